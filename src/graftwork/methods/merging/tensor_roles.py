"""What becomes of each tensor of a merge: merged, averaged as a statistic, or kept from the base; and what does not fit.

Merged are floating-point parameters. Everything else is kept from the base, which is right for counters and for what all models
share,
and wrong for quantised weights: integers that differ are refused. Tensors of the models that the base does not have are named in
notes.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.names import did_you_mean, short_list
from graftwork.methods.merging.sources import are_equal, dtype_name, is_float, lazy, shape

__all__ = ["Buffers", "TensorRoles", "assign_roles"]

Tensors = Mapping[str, NDArray[Any]]
Buffers = Literal["base", "mean"]
# Buffers of BatchNorm. Signs, thresholds or Fisher weights of changes mean nothing for them.
_STATISTICS = ("running_mean", "running_var")
_REMEDY = "Merge models tuned from one base, or leave tensors out with --exclude."


@dataclass(frozen=True, slots=True)
class TensorRoles:
    """Names of the base's tensors by what becomes of them; every name is in one of the three."""

    merged: tuple[str, ...]
    averaged: tuple[str, ...]
    """Running statistics, of which the models' mean is taken."""
    kept: tuple[str, ...]
    """Excluded tensors, and those that are no floating-point numbers: the base's values."""
    notes: tuple[str, ...]
    """What is left out of the merge and may surprise, one sentence each."""


def assign_roles(
    base: Tensors, experts: Sequence[Tensors], *, exclude: Sequence[str] = (), buffers: Buffers = "mean"
) -> TensorRoles:
    """Check that the models fit their base, and say what becomes of each tensor.

    Args:
        base: Pretrained tensors.
        experts: Tuned tensors.
        exclude: Shell patterns of names that keep the base's values.
        buffers: Whether running means and variances are averaged, or the base's.

    Raises:
        DataError: If tensors are missing or of another shape or type, integer weights differ, or nothing is left to merge; the
            first problems are listed by model and tensor.
    """
    if not experts:
        raise DataError("There are no models to merge. Give at least one with --models.")
    excluded = {name for name in base if _matches(name, exclude)}
    candidates = [name for name in sorted(base) if name not in excluded]
    statistics = [name for name in candidates if is_float(base, name) and name.endswith(_STATISTICS)]
    merged = [name for name in candidates if is_float(base, name) and not name.endswith(_STATISTICS)]
    others = [name for name in candidates if not is_float(base, name)]
    if not merged:
        what = f"{len(base)} tensors, {len(excluded)} of them excluded" if base else "no tensors at all"
        raise DataError(
            f"There is nothing to merge: the base has {what}, and no floating-point parameter is left. "
            f"Merging needs at least one{f'; --exclude was {short_list(exclude)}' if exclude else ''}."
        )
    # Buffers may be missing (the base's stay then), parameters may not.
    problems = [*_misfits(base, experts, merged, optional=False), *_misfits(base, experts, [*statistics, *others], optional=True)]
    # Comparing integers reads whole tensors, and needs equal shapes.
    if not problems:
        problems = _different_integers(base, experts, others)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise DataError(f"The models do not fit their base: {shown}. {_REMEDY}")
    averaged = [name for name in statistics if buffers == "mean" and all(name in expert for expert in experts)]
    kept = sorted({*base} - {*merged} - {*averaged})
    notes = _notes(base, experts, [*statistics, *others], exclude)
    return TensorRoles(tuple(merged), tuple(averaged), tuple(kept), tuple(notes))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _misfits(base: Tensors, experts: Sequence[Tensors], names: Sequence[str], *, optional: bool) -> list[str]:
    problems = []
    for number, expert in enumerate(experts, start=1):
        for name in names:
            if name not in expert:
                if not optional:
                    problems.append(f"model {number} has no tensor {name!r}")
            elif shape(expert, name) != shape(base, name):
                problems.append(
                    f"model {number}: {name!r} is {list(shape(expert, name))}, the base has {list(shape(base, name))}"
                )
            elif is_float(expert, name) != is_float(base, name):
                problems.append(
                    f"model {number}: {name!r} holds {dtype_name(expert, name)}, the base {dtype_name(base, name)}; "
                    "models of different types cannot be merged"
                )
    return problems


def _different_integers(base: Tensors, experts: Sequence[Tensors], names: Sequence[str]) -> list[str]:
    problems = []
    for number, expert in enumerate(experts, start=1):
        for name in names:
            is_counter = math.prod(shape(base, name)) <= 1  # batches seen by a normalisation layer, say: the base's is as good
            if name in expert and not is_counter and not are_equal(lazy(base, name), lazy(expert, name)):
                problems.append(
                    f"model {number}: {name!r} holds {dtype_name(expert, name)} that differ from the base's, and only "
                    "floating-point numbers can be merged (save quantised models unquantised first)"
                )
    return problems


def _notes(base: Tensors, experts: Sequence[Tensors], optional: Sequence[str], exclude: Sequence[str]) -> list[str]:
    notes = []
    for number, expert in enumerate(experts, start=1):
        extra = sorted(name for name in expert if name not in base and not _matches(name, exclude))
        if extra:
            notes.append(
                f"model {number} has {len(extra)} tensors that the base does not have; they are left out: {short_list(extra, 5)}."
            )
        lacking = [name for name in optional if name not in expert]
        if lacking:
            notes.append(f"model {number} lacks {len(lacking)} buffers; the base's are kept: {short_list(lacking, 5)}.")
    for pattern in exclude:
        if not any(_matches(name, [pattern]) for source in (base, *experts) for name in source):
            notes.append(f"--exclude {pattern!r} fits no tensor.{did_you_mean(pattern, base)}")
    return notes
