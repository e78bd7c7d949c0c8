"""Runs a merger over named tensors: checks names and shapes, leaves out heads and buffers, makes the passes the merger asks for."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.interfaces.merger import Merger

__all__ = ["check_experts", "iterate_merged", "merge_arrays", "mergeable_names"]

Array = NDArray[Any]
_STATISTICS = ("running_mean", "running_var")


def mergeable_names(base: Mapping[str, Array], *, exclude: Sequence[str] = ()) -> list[str]:
    """Return the sorted names of floating-point parameters that are merged.

    Args:
        base: Tensors of the base.
        exclude: Shell patterns of names to leave out (task heads, ``"head.*"``).
    """

    def is_parameter(name: str) -> bool:
        kind = getattr(base, "is_float", None)
        floating = kind(name) if kind else np.issubdtype(base[name].dtype, np.floating)
        return (
            bool(floating) and not name.endswith(_STATISTICS) and not any(fnmatch.fnmatch(name, pattern) for pattern in exclude)
        )

    return sorted(name for name in base if is_parameter(name))


def check_experts(base: Mapping[str, Array], experts: Sequence[Mapping[str, Array]], names: Sequence[str]) -> None:
    """Check that every expert has every merged tensor in the base's shape.

    Raises:
        DataError: Listing the first mismatches by model and tensor.
    """
    if not experts:
        raise DataError("There are no models to merge. Give at least one with --models.")
    problems = []
    for number, expert in enumerate(experts, start=1):
        for name in names:
            if name not in expert:
                problems.append(f"model {number} has no tensor {name!r}")
            elif _shape(expert, name) != _shape(base, name):
                problems.append(
                    f"model {number}: {name!r} is {list(_shape(expert, name))}, the base has {list(_shape(base, name))}"
                )
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise DataError(
            f"The models do not fit their base: {shown}. Merge models tuned from one base, or leave tensors out with --exclude."
        )


def iterate_merged(
    base: Mapping[str, Array],
    experts: Sequence[Mapping[str, Array]],
    merger: Merger,
    *,
    exclude: Sequence[str] = (),
    buffers: Literal["base", "mean"] = "mean",
) -> Iterator[tuple[str, Array]]:
    """Yield ``(name, values)`` of every tensor of the base, merged or kept.

    Args:
        base: Pretrained tensors.
        experts: Tuned tensors.
        merger: What to merge with.
        exclude: Patterns of names that keep the base's values.
        buffers: What becomes of running means and variances: the base's, or the experts' mean. Integer buffers are the base's.
    """
    names = mergeable_names(base, exclude=exclude)
    check_experts(base, experts, names)
    while merger.needs_pass():
        for name in names:
            merger.observe(name, base[name], [expert[name] for expert in experts])
        merger.finish_pass()
    chosen = set(names)
    for name in sorted(base):
        if name in chosen:
            yield name, merger.merge_tensor(name, base[name], [expert[name] for expert in experts])
        elif buffers == "mean" and name.endswith(_STATISTICS) and all(name in expert for expert in experts):
            yield name, np.asarray(np.mean([expert[name] for expert in experts], axis=0, dtype=np.float64))
        else:
            yield name, base[name]


def merge_arrays(
    base: Mapping[str, Array],
    experts: Sequence[Mapping[str, Array]],
    merger: Merger,
    *,
    exclude: Sequence[str] = (),
    buffers: Literal["base", "mean"] = "mean",
) -> dict[str, Array]:
    """Merge models that fit in memory; see :func:`iterate_merged`."""
    merged = {name: np.array(values) for name, values in iterate_merged(base, experts, merger, exclude=exclude, buffers=buffers)}
    for name, indices, values in merger.corrections():
        merged[name].reshape(-1)[indices] = values
    return merged


def _shape(source: Mapping[str, Array], name: str) -> tuple[int, ...]:
    shape = getattr(source, "shape", None)
    return tuple(shape(name)) if shape else tuple(source[name].shape)
