"""IA3 adapters merged with each other without their base: a sum of what they change is an IA3 adapter again, whatever the weights are.

With factors :math:`s_i` on the outputs of a layer ``W`` the changes are :math:`s_i W - W`, and their weighted sum is
:math:`s W - W` with :math:`s = 1 + \\sum_i w_i (s_i - 1)`; likewise for inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.model_folder import ADAPTER_NAMES
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.driver import check_settings, iterate_merged
from graftwork.methods.merging.tensor_roles import assign_roles
from graftwork.workflows.merge_adapter_checks import check_prefixes
from graftwork.workflows.merge_changed_source import ZeroTensors
from graftwork.workflows.merge_changes import Change
from graftwork.workflows.merge_folder import result_folder

if TYPE_CHECKING:
    from graftwork.methods.tuning.peft_ia3 import Scale

__all__ = ["all_scales", "merged_scales", "write_scales_folder"]


def all_scales(changes: Sequence[Change]) -> list[dict[str, Scale]] | None:
    """Return the factors of each change by layer; None if one of them holds anything else."""
    found = []
    for change in changes:
        own = dict(change.scales) or _of_delta(change)
        if not own:
            return None
        found.append(own)
    return found


def _of_delta(change: Change) -> dict[str, Scale]:
    """Return the factors that a delta is made of; empty if it is made of anything else."""
    from graftwork.methods.tuning.peft_ia3 import Scale
    from graftwork.nn.delta_parts import Rescaled

    found: dict[str, Scale] = {}
    biases: dict[str, Any] = {}
    for name, part in change.delta.parts.items():
        layer, _, kind = name.rpartition(".")
        if not isinstance(part, Rescaled) or not layer or kind not in ("weight", "bias"):
            return {}
        values = 1.0 + part.factor * (part.scale.float() - 1.0)
        if kind == "bias":
            biases[layer] = values
        elif part.axis < 2 <= len(change.delta.shapes[name]):
            of_maps = len(change.delta.shapes[name]) == 4
            found[layer] = Scale(side="outputs" if part.axis == 0 else "inputs", values=values, of_maps=of_maps)
        else:
            return {}
    # An adapter scales the bias with the outputs, and never without.
    fits = all(
        layer in found and found[layer].side == "outputs" and found[layer].values.equal(values)
        for layer, values in biases.items()
    )
    return found if fits else {}


def merged_scales(
    each: Sequence[Mapping[str, Scale]], changes: Sequence[Change], merger: Merger, exclude: Sequence[str]
) -> tuple[dict[str, Scale], tuple[str, ...]]:
    """Return the merged factors by layer, and notes; a change that leaves a layer alone counts as no change of it.

    Args:
        each: See :func:`all_scales`.
        changes: What they are of.
        merger: A weighted sum or mean.
        exclude: Shell patterns of weights that are left unchanged.

    Raises:
        DataError: If layers are scaled on other sides or have other sizes, or their names differ by a prefix.
    """
    import torch

    check_prefixes([(change.path, [f"{layer}.weight" for layer in scales]) for change, scales in zip(changes, each, strict=True)])
    first: dict[str, tuple[Scale, Path]] = {}
    for change, scales in zip(changes, each, strict=True):
        for layer, scale in scales.items():
            known, path = first.setdefault(layer, (scale, change.path))
            if (known.side, len(known.values)) != (scale.side, len(scale.values)):
                raise DataError(
                    f"{layer!r} has factors for {len(known.values)} {known.side} in {path} and for {len(scale.values)} {scale.side} in "
                    f"{change.path}. Merge changes of one base, or name it with --base."
                )
    zero = ZeroTensors({f"{layer}.weight": (len(scale.values),) for layer, (scale, _) in first.items()})
    moved = [{name: _change(scales.get(name.removesuffix(".weight")), zero[name]) for name in zero} for scales in each]
    merger.has_base = merger.needs_base
    check_settings(merger, len(each))
    roles = assign_roles(zero, moved, exclude=exclude)
    kept = set(roles.merged)
    found = {}
    for name, values in iterate_merged(zero, moved, merger, roles=roles):
        if name in kept:
            scale = first[name.removesuffix(".weight")][0]
            made = torch.from_numpy(1.0 + np.array(values, np.float32))
            found[name.removesuffix(".weight")] = type(scale)(side=scale.side, values=made, of_maps=scale.of_maps)
    return found, roles.notes


def _change(scale: Scale | None, nothing: NDArray[Any]) -> NDArray[Any]:
    return nothing if scale is None else np.asarray(scale.values.float().numpy() - 1.0)


def write_scales_folder(
    out: Path, scales: Mapping[str, Scale], changes: Sequence[Change], metadata: Mapping[str, str]
) -> list[str]:
    """Write merged factors as an adapter folder of peft, and return notes.

    Raises:
        ConfigError: If the folder is not ours.
        StorageError: If it cannot be written.
    """
    from graftwork.methods.tuning.peft_ia3 import write_scales

    names = {change.base_model for change in changes}
    with result_folder(out, ADAPTER_NAMES) as notes:
        write_scales(scales, out, base_model=names.pop() if len(names) == 1 else "", metadata=metadata)
    return notes
