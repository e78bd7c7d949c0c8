"""Streams made of one suite: classes that come in groups, one group after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Array, Suite
from graftwork.interfaces.stream import Experience, Stream

__all__ = ["ClassStream", "class_groups"]

LEARNED = ("train", "val")
"""Splits that experiences have, where the suite has them."""


def class_groups(num_classes: int, num_groups: int, *, seed: int | None = None) -> tuple[tuple[int, ...], ...]:
    """Return the classes in groups whose sizes differ by one at most, each in increasing order.

    Args:
        num_classes: Number of classes.
        num_groups: Number of groups, from 1 to the number of classes.
        seed: Shuffles the classes before they are cut into groups; None leaves them in order.

    Raises:
        ConfigError: If the number of groups is out of range.

    Example:
        >>> class_groups(5, 2)
        ((0, 1, 2), (3, 4))
    """
    if not 1 <= num_groups <= num_classes:
        raise ConfigError(f"`num_groups` must be from 1 to the number of classes, {num_classes}; got {num_groups}.")
    order = np.arange(num_classes) if seed is None else Seeds(seed).numpy("class_groups").permutation(num_classes)
    # array_split makes the first groups larger by one.
    return tuple(tuple(sorted(int(index) for index in part)) for part in np.array_split(order, num_groups))


class ClassStream(Stream):
    """Experiences that show one group of a task's classes each (class-incremental learning).

    An experience has the rows of ``train`` and ``val`` that show a class of its group. Of a multilabel task only the group's
    labels are known there: a row may come again in a later experience, with that group's labels. A multiclass row comes once.
    Other tasks of the suite are left out.

    Args:
        suite: The whole data.
        task: Name of a multiclass or multilabel task; None takes the only one.
        groups: Classes of each experience, without repetition. Classes in no group are never shown.

    Raises:
        ConfigError: If the task is of another kind, or the groups are empty, overlap or name classes that are not there.
        DataError: If there is no such task, or a group has no training row.
    """

    def __init__(self, suite: Suite, groups: Sequence[Sequence[int]], *, task: str | None = None) -> None:
        if task is None and len(suite.tasks) > 1:
            raise ConfigError(f"Say which task's classes come one after the other: {', '.join(suite.task_names)}.")
        spec = suite.task(suite.task_names[0] if task is None else task)
        if spec.kind not in ("multiclass", "multilabel") or spec.is_dense:
            raise ConfigError(
                f"Task {spec.name!r} is of kind {spec.kind!r}; a stream of classes needs a multiclass or multilabel task with "
                "one answer a row."
            )
        self.tasks: tuple[TaskSpec, ...] = (spec,)
        self.groups = tuple(tuple(sorted(int(index) for index in group)) for group in groups)
        named = [index for group in self.groups for index in group]
        problems = [] if self.groups else ["there is no group"]
        problems += [f"group {number} is empty" for number, group in enumerate(self.groups) if not group]
        problems += [f"class {index} is there twice" for index in sorted({item for item in named if named.count(item) > 1})]
        problems += [
            f"there is no class {index}; the {spec.size} classes count from 0"
            for index in sorted(set(named))
            if not 0 <= index < spec.size
        ]
        if problems:
            raise ConfigError(f"The groups of classes of task {spec.name!r} cannot be used.", problems)
        self._suite = suite.with_tasks((spec.name,))
        target = self._suite.targets[spec.name]
        train = np.asarray(self._suite.splits["train"], dtype=np.int64)
        for number, group in enumerate(self.groups):
            if not _shows(target[train], group).any():
                raise DataError(f"Experience {number}: none of the {len(train)} training rows shows one of the classes {group}.")

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.groups)

    def experience(self, number: int) -> Experience:
        """Return the rows that show a class of the group, with the labels of the group."""
        if not 0 <= number < len(self.groups):
            raise IndexError(f"There is no experience {number}; there are {len(self.groups)}.")
        spec, group = self.tasks[0], self.groups[number]
        target = self._suite.targets[spec.name]
        splits = {
            name: rows[_shows(target[rows], group)]
            for name, rows in ((name, np.asarray(self._suite.splits[name])) for name in LEARNED if name in self._suite.splits)
        }
        suite = replace(self._suite, targets={spec.name: _only(target, group)}, splits=splits)
        return Experience(number=number, suite=suite, classes={spec.name: group})

    def asked(self, number: int) -> Mapping[str, tuple[int, ...]]:
        """Return all classes of the groups up to this one."""
        if not 0 <= number < len(self.groups):
            raise IndexError(f"There is no experience {number}; there are {len(self.groups)}.")
        return {self.tasks[0].name: tuple(sorted(index for group in self.groups[: number + 1] for index in group))}


def _shows(target: Array, group: tuple[int, ...]) -> Array:
    """Return which rows show one of the classes, bool ``[N]``."""
    # NaN == 1 is False, so what is not known is not shown.
    found: Array = (target[:, list(group)] == 1).any(axis=1) if target.ndim == 2 else np.isin(target, group)
    return found


def _only(target: Array, group: tuple[int, ...]) -> Array:
    """Return the target with nothing known of other classes."""
    if target.ndim == 1:
        return np.where(np.isin(target, group), target, -1)
    kept = np.full_like(target, np.nan)
    kept[:, list(group)] = target[:, list(group)]
    return kept
