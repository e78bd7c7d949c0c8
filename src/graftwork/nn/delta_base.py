"""Whether a delta and a model belong together, and which of the model's tensors it changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.interfaces.delta import Delta
from graftwork.math.fingerprint import state_fingerprint, tensor_prints

__all__ = ["check_base", "check_same_base", "check_shapes", "once_each"]

_SHOWN = 5


def check_base(delta: Delta, state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], *, check: bool) -> None:
    """Refuse a model that is not the base of a delta.

    Args:
        delta: The delta.
        state: The model's tensors by plain name.
        shapes: Shapes of the tensors that the delta changes.
        check: Whether to compare fingerprints, where the delta's is known.

    Raises:
        ConfigError: Naming the tensors that differ.
    """
    check_shapes(state, shapes)
    if not check or not delta.base_fingerprint:
        return
    found = state_fingerprint(state)
    if found != delta.base_fingerprint:
        raise ConfigError(
            f"The delta was made for a base with fingerprint {delta.base_fingerprint[:12]}..., but this model has "
            f"{found[:12]}.... {_differences(delta.base_prints, state)}Load the base that it was tuned from, or pass "
            "check=False to add it all the same."
        )


def check_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Refuse a model that lacks a tensor that a delta changes, or has it in another shape.

    Raises:
        ConfigError: Naming the first such tensors, and how many there are.
    """
    missing = [name for name in shapes if name not in state]
    if missing:
        raise ConfigError(f"The delta was made for another model: this one has no tensor {_listed(missing)}.")
    other = [
        f"{name!r} is {list(state[name].shape)} here, {list(shape)} in the delta"
        for name, shape in shapes.items()
        if state[name].shape != shape
    ]
    if other:
        more = f"; and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        raise ConfigError(f"The delta was made for another model: {'; '.join(other[:_SHOWN])}{more}.")


def check_same_base(one: Delta, other: Delta) -> None:
    """Refuse two deltas of different bases.

    Raises:
        ConfigError: Naming the tensors in which the bases differ, if they are known.
    """
    if not one.base_fingerprint or not other.base_fingerprint or one.base_fingerprint == other.base_fingerprint:
        return
    shared = one.base_prints.keys() & other.base_prints.keys()
    unequal = sorted(name for name in shared if one.base_prints[name] != other.base_prints[name])
    where = f" The bases differ in {_listed(unequal)}." if unequal else ""
    raise ConfigError(
        f"These deltas belong to different bases ({one.base_fingerprint[:12]}... and {other.base_fingerprint[:12]}...), so they "
        f"cannot be added.{where} Tune both from one base."
    )


def once_each(delta: Delta, state: Mapping[str, Tensor]) -> list[str]:
    """Return one name for each tensor that a delta changes: tied weights have several, and change once.

    Raises:
        ConfigError: If the delta says different things of one tensor.
    """
    first: dict[int, str] = {}
    for name in delta.names():
        other = first.setdefault(id(state[name]), name)
        if other != name and not torch.equal(delta.change(other, state[other]), delta.change(name, state[name])):
            raise ConfigError(
                f"{other!r} and {name!r} are one tensor in this model, but the delta changes them in different ways. "
                "Attach it to a model in which they are not tied."
            )
    return list(first.values())


def _differences(prints: Mapping[str, str], state: Mapping[str, Tensor]) -> str:
    """Return a sentence that names the tensors in which a model differs from the base; empty if prints are unknown."""
    if not prints:
        return ""
    found = tensor_prints(state)
    sentences = [
        f"{len(names)} of {len(prints)} tensors {words}: {_listed(names)}."
        for words, names in (
            ("have other values", [name for name in prints if found.get(name, prints[name]) != prints[name]]),
            ("are missing here", [name for name in prints if name not in found]),
        )
        if names
    ]
    extra = [name for name in found if name not in prints]
    if extra:
        sentences.append(f"The base did not have {_listed(extra)}.")
    return " ".join(sentences) + " " if sentences else ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
