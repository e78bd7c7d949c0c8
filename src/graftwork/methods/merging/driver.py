"""Runs a merger over named tensors: the passes that it asks for, then tensor after tensor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.sources import are_equal, lazy, num_not_finite, release
from graftwork.methods.merging.tensor_roles import Buffers, TensorRoles, assign_roles

__all__ = ["check_settings", "iterate_merged", "merge_arrays"]

Array = NDArray[Any]


def check_settings(merger: Merger, num_models: int) -> None:
    """Check the number of models, and the settings that every merger may have: numbers are finite, and ``weights`` has one for
    each model.

    Raises:
        ConfigError: Naming the setting and its value.
    """
    least, most = merger.num_models
    if num_models and (num_models < least or (most is not None and num_models > most)):
        allowed = str(least) if most == least else f"{least} to {most}" if most is not None else f"at least {least}"
        name = merger.settings().get("method", type(merger).__name__)
        raise ConfigError(f"The number of models for {name}, besides a base, must be {allowed}; got {num_models}.")
    for key, value in merger.settings().items():
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"`{key}` must be finite; got {value!r}.")
    weights = merger.settings().get("weights")
    if weights is not None and len(weights) != num_models:
        raise ConfigError(f"`weights` has {len(weights)} numbers for {num_models} models; give one per model.")


def iterate_merged(
    base: Mapping[str, Array],
    experts: Sequence[Mapping[str, Array]],
    merger: Merger,
    *,
    exclude: Sequence[str] = (),
    buffers: Buffers = "mean",
    roles: TensorRoles | None = None,
) -> Iterator[tuple[str, Array]]:
    """Yield ``(name, values)`` of every tensor of the base, merged or kept.

    Args:
        base: Pretrained tensors.
        experts: Tuned tensors.
        merger: What to merge with.
        exclude: Patterns of names that keep the base's values.
        buffers: What becomes of running means and variances: the base's, or the experts' mean. Counters are the base's.
        roles: What :func:`.assign_roles` found for these models, if it was called before; then the two options above do not
            count.

    Raises:
        ConfigError: If a setting of the merger does not fit the models.
        DataError: If the models do not fit their base, or hold so much NaN that the merger's statistics are undefined.
    """
    roles = assign_roles(base, experts, exclude=exclude, buffers=buffers) if roles is None else roles
    check_settings(merger, len(experts))
    shown = ""

    def show(name: str) -> tuple[Array, list[Array]]:
        nonlocal shown
        if shown:
            release(shown, base, *experts)
        shown = name
        return lazy(base, name), [lazy(expert, name) for expert in experts]

    try:
        merger.run_passes(roles.merged, show)
    except DataError as error:
        # Finding the tensor takes another pass over all files, so it is looked for only after a failure.
        raise DataError(f"{error}{_where_not_finite(base, experts, roles.merged)}") from error
    merged, averaged = set(roles.merged), set(roles.averaged)
    for name in sorted(base):
        if name in merged:
            yield name, merger.merge_tensor(name, lazy(base, name), [lazy(expert, name) for expert in experts])
        elif name in averaged:
            yield name, _mean([expert[name] for expert in experts])
        else:
            yield name, lazy(base, name)
        # Written by now. Otherwise all models would be in memory in the end, as mapped pages.
        release(name, base, *experts)


def merge_arrays(
    base: Mapping[str, Array],
    experts: Sequence[Mapping[str, Array]],
    merger: Merger,
    *,
    exclude: Sequence[str] = (),
    buffers: Buffers = "mean",
) -> dict[str, Array]:
    """Merge models that fit in memory; see :func:`iterate_merged`. What is left out and may surprise is said as a warning."""
    roles = assign_roles(base, experts, exclude=exclude, buffers=buffers)
    for note in roles.notes:
        warnings.warn(note, stacklevel=2)
    merged = {name: np.array(values) for name, values in iterate_merged(base, experts, merger, roles=roles)}
    # Only known once every tensor was merged.
    for name, indices, values in merger.corrections():
        merged[name].reshape(-1)[indices] = values
    return merged


def _mean(arrays: Sequence[Array]) -> Array:
    if all(are_equal(arrays[0], array) for array in arrays[1:]):  # a mean of equal numbers need not be that number
        return np.array(arrays[0])
    # float64: variances of many models add up without losing digits.
    return np.asarray(np.mean(arrays, axis=0, dtype=np.float64))


def _where_not_finite(base: Mapping[str, Array], experts: Sequence[Mapping[str, Array]], names: Sequence[str]) -> str:
    """Return a sentence that names the model and tensor with the most NaN and infinity; empty if there is none."""
    worst, place = 0, ""
    for model, source in (("the base", base), *((f"model {number}", expert) for number, expert in enumerate(experts, start=1))):
        for name in names:
            values = lazy(source, name)
            if (count := num_not_finite(values)) > worst:
                worst, place = count, f"{name!r} of {model}, where {count:,} of {values.size:,} entries are NaN or infinite"
    return f" Look at {place}." if place else ""
