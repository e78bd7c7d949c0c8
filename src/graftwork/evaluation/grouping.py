"""Which tasks to train together: the best partition of tasks into a few groups, from their affinities.

The value of a partition is the sum over tasks of the mean affinity that the other members of its group have onto it, as in task
affinity groupings (TAG, Fifty et al. 2021, https://arxiv.org/abs/2109.04617): effects of more than two tasks are taken to be
means of effects of pairs. A task alone gains nothing and loses nothing, so "train it separately" is a valid answer.

Departure from the paper: groups do not overlap, since a task that is learned twice costs its parameters twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graftwork.core.optional import require
from graftwork.evaluation.pair_judgement import judged_tasks

__all__ = ["EXACT_LIMIT", "Grouping", "advise_grouping", "advised_groups", "best_grouping", "group_tasks", "grouping_value"]

EXACT_LIMIT = 10
"""Most tasks for which every partition is considered."""
SURE, PROBABLE = 0.95, 0.8
"""Shares of draws from which a task's place is asserted, or called probable."""
_TIE = 1e-9
"""Values that differ by less count as equal."""
_ROUNDING = 1e-13

Groups = tuple[tuple[int, ...], ...]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grouping:
    """A partition of tasks ``0 .. T - 1``."""

    groups: Groups
    """Tasks of each group in ascending order; groups in the order of their first task."""
    value: float
    """Sum over tasks of the mean affinity from the rest of its group."""
    is_exact: bool
    """Whether no partition into as many groups has a higher value; False after the greedy search."""


def _gains(affinity: ArrayLike) -> Floats:
    """Return the affinities with a zero diagonal and zeros for what is unknown: nothing is gained from what nobody knows."""
    # Infinities become NaN here only to be found and refused below.
    table = np.nan_to_num(np.asarray(affinity, dtype=np.float64), nan=0.0, posinf=np.nan, neginf=np.nan)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
        raise ValueError(f"`affinity` must have shape [T, T] with T at least 1; got {list(table.shape)}.")
    if np.isnan(table).any():
        raise ValueError("`affinity` must not hold infinities.")
    # A task's own step is no gain from others.
    np.fill_diagonal(table, 0.0)
    return table


def _group_value(gains: Floats, group: Sequence[int]) -> float:
    members = list(group)
    # Each member gets the mean over the n - 1 others; summed, that is the sum of the block over n - 1.
    return float(gains[np.ix_(members, members)].sum() / (len(members) - 1)) if len(members) > 1 else 0.0


def grouping_value(affinity: ArrayLike, groups: Sequence[Sequence[int]]) -> float:
    """Return the value of a partition.

    Args:
        affinity: ``[T, T]``, row = who is trained along, column = whom it helps (positive) or hurts; the diagonal does not
            count, NaN counts 0.
        groups: A partition of ``0 .. T - 1``.

    Raises:
        ValueError: If ``groups`` is no partition, or the table is not square.

    Example:
        >>> grouping_value([[1.0, 0.5], [-0.2, 1.0]], [[0, 1]]), grouping_value([[1.0, 0.5], [-0.2, 1.0]], [[0], [1]])
        (0.3, 0.0)
    """
    gains = _gains(affinity)
    if sorted(task for group in groups for task in group) != list(range(len(gains))):
        raise ValueError(f"`groups` must hold each of the {len(gains)} tasks once; got {[list(group) for group in groups]}.")
    return sum(_group_value(gains, group) for group in groups)


def best_grouping(affinity: ArrayLike, max_groups: int, *, exact_limit: int = EXACT_LIMIT) -> Grouping:
    """Return the partition of highest value into at most ``max_groups`` groups; of equal values, the one with the fewest groups.

    Exact by dynamic programming over subsets (``O(G * 3^T)``) for up to ``exact_limit`` tasks, beyond that by merging groups and
    then moving single tasks while that helps.

    Args:
        affinity: ``[T, T]``; see :func:`grouping_value`.
        max_groups: Most groups, at least 1.
        exact_limit: Most tasks for the exact search.

    Raises:
        ValueError: If the table is not square or ``max_groups`` is below 1.

    Example:
        >>> best_grouping([[1, 0.4, -0.3], [0.2, 1, -0.1], [-0.5, 0.0, 1]], 2).groups
        ((0, 1), (2,))
    """
    gains = _gains(affinity)
    if max_groups < 1:
        raise ValueError(f"`max_groups` must be at least 1; got {max_groups}.")
    exact = len(gains) <= exact_limit
    # More groups than tasks cannot be filled.
    found = _exact(gains, min(max_groups, len(gains))) if exact else _greedy(gains, max_groups)
    # One spelling for each partition, so that equal ones compare equal.
    groups = tuple(sorted(tuple(sorted(group)) for group in found))
    return Grouping(groups, grouping_value(affinity, groups), exact)


def _exact(gains: Floats, max_groups: int) -> list[list[int]]:
    size = len(gains)
    full = (1 << size) - 1
    members = [[task for task in range(size) if mask >> task & 1] for mask in range(full + 1)]
    value = [_group_value(gains, tasks) for tasks in members]
    # best[mask]: value of the best partition of `mask` into exactly the current number of groups, and its group of the lowest
    # task.
    # With one group the mask itself is the group.
    best = list(value)
    choices = [list(range(full + 1))]
    totals = [best[full]]
    for _ in range(1, max_groups):
        # Minus infinity: fewer tasks than groups have no partition.
        new, choice = [-np.inf] * (full + 1), [0] * (full + 1)
        for mask in range(1, full + 1):
            low = mask & -mask
            rest = mask ^ low
            # All proper subsets of `rest`, from large to small: (part - 1) & rest is the next smaller one.
            part = (rest - 1) & rest
            while rest:  # every proper subset of `mask` that holds its lowest task, so that no partition is met twice
                candidate = value[part | low] + best[rest ^ part]
                if candidate > new[mask]:
                    new[mask], choice[mask] = candidate, part | low
                if part == 0:
                    break
                part = (part - 1) & rest
        best = new
        choices.append(choice)
        totals.append(best[full])
    # The fewest groups among equals, up to rounding.
    level = next(count for count, total in enumerate(totals) if total >= max(totals) - _ROUNDING)
    groups, mask = [], full
    while mask:
        group = choices[level][mask] if level else mask
        groups.append(members[group])
        # What is left was split best into one group less.
        mask, level = mask ^ group, level - 1
    return groups


def _greedy(gains: Floats, max_groups: int) -> list[list[int]]:
    groups = [[task] for task in range(len(gains))]
    while True:
        groups = _merged(gains, groups, max_groups)
        moved = False
        for task in range(len(gains)):
            best = max(_moves(groups, task, max_groups), key=lambda other: _total(gains, other))
            # The margin keeps rounding from moving a task to and fro for ever.
            if _total(gains, best) > _total(gains, groups) + _TIE:
                groups, moved = best, True
        if not moved:  # a move adds more than the tie, a merge loses less: it ends
            return groups


def _total(gains: Floats, groups: Sequence[Sequence[int]]) -> float:
    return sum(_group_value(gains, group) for group in groups)


def _merged(gains: Floats, groups: Sequence[Sequence[int]], max_groups: int) -> list[list[int]]:
    """Return the groups with pairs merged, the best pair first, as long as nothing is lost or there are too many."""
    found = [list(group) for group in groups]
    while len(found) > 1:
        pairs = [(i, j) for i in range(len(found)) for j in range(i)]
        changes = [
            _group_value(gains, found[i] + found[j]) - _group_value(gains, found[i]) - _group_value(gains, found[j])
            for i, j in pairs
        ]
        # Too many groups must merge even at a loss.
        if max(changes) < -_ROUNDING and len(found) <= max_groups:
            break
        i, j = pairs[int(np.argmax(changes))]
        # j < i, so popping i does not move j.
        found[j] = found[j] + found.pop(i)
    return found


def _moves(groups: Sequence[Sequence[int]], task: int, max_groups: int) -> list[list[list[int]]]:
    """Return the partition and all that differ from it by the place of one task."""
    rest = [[member for member in group if member != task] for group in groups]
    rest = [group for group in rest if group]
    found = [[*rest[:index], [*group, task], *rest[index + 1 :]] for index, group in enumerate(rest)]
    # Alone is a place as well, if there may be one more group.
    return [*found, [*rest, [task]]] if len(rest) < max_groups or not rest else found


def group_tasks(
    affinity: Mapping[str, Any], max_groups: int, *, exact_limit: int = EXACT_LIMIT, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return the best partition with the confidence of every task's place, as JSON.

    Args:
        affinity: From :func:`graftwork.evaluation.affinity.summarise_affinity`.
        max_groups: Most groups, at least 1.
        exact_limit: See :func:`best_grouping`.
        draws: Number of tables drawn from the measurements' t distributions.
        seed: Seed of the draws.

    Returns:
        ``{"tasks", "groups" (names), "value", "together", "is_exact", "confidence", "max_groups"}``; ``together`` is the value
        of one group for all, ``confidence`` for each task the share of draws in which no other place for it alone is better;
        None with fewer than two measurements.
    """
    names = list(affinity["tasks"])
    table = np.array([[np.nan if cell is None else cell for cell in row] for row in affinity["value"]], dtype=np.float64)
    found = best_grouping(table, max_groups, exact_limit=exact_limit)
    sampled = _draw(affinity, table, draws, seed)
    return {
        "tasks": names,
        "groups": [[names[task] for task in group] for group in found.groups],
        "value": found.value,
        "together": grouping_value(table, [range(len(names))]),
        "is_exact": found.is_exact,
        "confidence": None if sampled is None else _confidence(sampled, found.groups, max_groups),
        "max_groups": max_groups,
    }


def _draw(affinity: Mapping[str, Any], table: Floats, draws: int, seed: int) -> Floats | None:
    """Return tables ``[draws, T, T]`` from the cells' t distributions; None if their spread is unknown."""
    count = int(affinity.get("measurements", 0))
    if count < 2:
        return None
    student = require("scipy.stats", extra="train", purpose="The confidence of a grouping").t
    ends = [np.array([[np.nan if cell is None else cell for cell in row] for row in affinity[key]]) for key in ("low", "high")]
    # From the half width of the interval back to the standard error. Unknown cells do not vary.
    error = np.nan_to_num((ends[1] - ends[0]) / 2 / float(student.ppf(0.975, count - 1)))
    noise = np.random.default_rng(seed).standard_t(count - 1, size=(draws, *table.shape))
    sampled: Floats = np.nan_to_num(table) + error * noise
    return sampled


def _confidence(sampled: Floats, groups: Groups, max_groups: int) -> list[float]:
    def values(partition: Sequence[Sequence[int]]) -> Floats:
        total = np.zeros(len(sampled))
        for group in partition:
            if len(group) > 1:
                block = sampled[:, list(group)][:, :, list(group)]
                # The diagonal is taken out: draws have one, gains do not.
                total += (block.sum(axis=(1, 2)) - np.trace(block, axis1=1, axis2=2)) / (len(group) - 1)
        return total

    chosen = values(groups)
    return [
        # Among the moves is the partition itself, so rounding alone must not count against it.
        float((chosen >= np.max([values(other) for other in _moves(groups, task, max_groups)], axis=0) - 1e-9).mean())
        for task in range(sampled.shape[1])
    ]


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def advised_groups(grouping: Mapping[str, Any], controls: Mapping[str, str] | None) -> list[tuple[list[str], float]]:
    """Return the groups that the control with shuffled companions bears out, each with the confidence of its least sure task.

    A group counts only if the companions' labels help every task of it; a task that stays alone only if they hurt it. How
    steadily one training shows its affinities is no evidence that the tasks are related.

    Args:
        grouping: From :func:`group_tasks`.
        controls: ``{task: label}`` from :func:`graftwork.evaluation.controls.classify_control`; None if no control was made.
    """
    return [(group, share) for group, share in _borne_out(grouping, controls) if share >= PROBABLE]


def _borne_out(grouping: Mapping[str, Any], controls: Mapping[str, str] | None) -> list[tuple[list[str], float]]:
    """Return the groups of which the controls say what their place says, however steady that is."""
    effects = judged_tasks(controls)
    shares = dict(zip(grouping["tasks"], grouping["confidence"] or [0.0] * len(grouping["tasks"])))
    found = []
    for group in grouping["groups"]:
        wanted = 1 if len(group) > 1 else -1
        if all(effects.get(name) == wanted for name in group):
            found.append((list(group), min(shares[name] for name in group)))
    return found


def advise_grouping(grouping: Mapping[str, Any], controls: Mapping[str, str] | None) -> list[str]:
    """Return what a grouping says in words, one sentence for each of :func:`advised_groups`.

    Args:
        grouping: From :func:`group_tasks`.
        controls: See :func:`advised_groups`.

    Example:
        >>> found = {"tasks": ["depth", "normals", "edges"], "groups": [["depth", "normals"], ["edges"]], "confidence": [0.99, 0.97, 0.85]}
        >>> advise_grouping(found, {"depth": "transfer", "normals": "transfer", "edges": "harm"})
        ['Train `depth` with `normals` (confidence 97 %).', 'Probably keep `edges` apart (confidence 85 %).']
        >>> advise_grouping(found, {"depth": "unclear", "normals": "transfer", "edges": "no gain"})
        ['No grouping is advised: against shuffled companions, no group of tasks was shown to help all its members.']
        >>> advise_grouping({**found, "confidence": [0.6, 0.7, 0.5]}, {"depth": "transfer", "normals": "transfer"})
        ['No grouping is advised: the affinities change too much from one measurement to the next.']
    """
    if not controls:
        return [
            "No grouping is advised: the affinities were not checked against shuffled companions, and unrelated tasks show steady "
            "groups, too."
        ]
    sentences = []
    for group, share in advised_groups(grouping, controls):
        what = f"keep {_listed(group)} apart" if len(group) == 1 else f"train {_listed(group[:1])} with {_listed(group[1:])}"
        lead = f"{what[0].upper()}{what[1:]}" if share >= SURE else f"Probably {what}"
        sentences.append(f"{lead} (confidence {_percent(share)}).")
    if sentences:
        return sentences
    if _borne_out(grouping, controls):
        return ["No grouping is advised: the affinities change too much from one measurement to the next."]
    return ["No grouping is advised: against shuffled companions, no group of tasks was shown to help all its members."]


def _percent(share: float) -> str:
    return f"{int(100 * min(share, 0.99) + 1e-9)} %"  # cut, not rounded: 94.9 % must not read like 95 %
