"""A suite: tasks over one or several data sets, with inputs, targets, splits and groups, all in NumPy (no torch here)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_kinds import join_kinds
from graftwork.core.input_spec import InputSpec, InputSpecs
from graftwork.core.kinds import old_name
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind

__all__ = ["Suite", "labelled_rows"]

Array = NDArray[Any]


def labelled_rows(target: Array) -> NDArray[np.bool_]:
    """Return which rows of a target array have at least one label, bool ``[N]``.

    Example:
        >>> labelled_rows(np.array([0, -1, 2])).tolist()
        [True, False, True]
    """
    # -1 for integers and NaN for floats mean "missing", see TaskSpec.
    known: Array = target >= 0 if np.issubdtype(target.dtype, np.integer) else ~np.isnan(target)
    # Over all axes but the first; without a row, reshaping to (0, -1) is not defined.
    return np.asarray(known.any(axis=tuple(range(1, known.ndim))), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Encoded data of ``N`` rows, ready for learners.

    What a row is made of is in ``input_specs``: one input, or several of the same or different kinds. Each kind has arrays of
    fixed names, so that models, caches and exported graphs agree (:mod:`graftwork.data.inputs` has one module a kind):

    - ``table``: ``numeric`` float32 ``[N, F]`` (standardised on training rows, missing = 0, with one indicator column per
      column that has missing values) and ``categorical`` int64 ``[N, C]`` (0 = missing or unseen).
    - ``image``: ``image`` uint8 ``[N, S, S, 3]``, RGB, square; models normalise and resize in their own graph.
    - ``text``: ``tokens`` int64 ``[N, L]`` of the suite's own tokenizer, 0 = padding; and ``text`` is kept in ``raw``.
    """

    name: str
    tasks: tuple[TaskSpec, ...]
    inputs: Mapping[str, Array]
    """Arrays of all inputs, by names that are unique in the suite."""
    targets: Mapping[str, Array]
    """``{task: target}`` as :class:`~graftwork.core.records.TaskSpec` lays out; regression targets in the user's units."""
    splits: Mapping[str, NDArray[np.int64]]
    """Row numbers of ``train``, ``val`` and ``test``; ``test`` is never used for selection. Extra splits (``transfer``) may
    exist."""
    groups: NDArray[np.int64] | None = None
    """Group of each row (patient, user, site); rows of one group are on one side of every split."""
    domain: NDArray[np.int64] | None = None
    """Index of the data set or domain of each row; None means one."""
    domains: tuple[str, ...] = ()
    """Names of the domains, in index order."""
    input_specs: InputSpecs = field(default_factory=dict)
    """The inputs by name: kind, sizes, and the encoder that turns new raw rows into arrays without torch."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """Things to show or re-encode: ``text`` list of str, ``preview`` uint8 pictures, ``frame`` raw table columns, ``labels`` row
    names."""
    notes: tuple[str, ...] = ()
    """Findings of the checks (duplicates, likely groups, leaks), one sentence each, shown to the user."""
    credits: Mapping[str, str] = field(default_factory=dict)
    """Licence or credit line of each source, by name."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each input file, by name."""

    def __post_init__(self) -> None:
        sizes = {f"input {name!r}": len(array) for name, array in self.inputs.items()}
        sizes |= {f"target {name!r}": len(array) for name, array in self.targets.items()}
        if len(set(sizes.values())) > 1:
            raise DataError(f"Suite {self.name!r}: all inputs and targets need the same number of rows; got {sizes}.")
        missing = [task.name for task in self.tasks if task.name not in self.targets]
        if missing:
            raise DataError(f"Suite {self.name!r}: no targets for the tasks {missing}.")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the inputs, each once, in order."""
        return tuple(dict.fromkeys(spec.kind for spec in self.input_specs.values()))

    @property
    def only_input(self) -> InputSpec:
        """The input of a suite that has one.

        Raises:
            ConfigError: If it has several, or none is described.
        """
        if len(self.input_specs) != 1:
            found = ", ".join(self.input_specs) or "none"
            raise ConfigError(f"Suite {self.name!r} must have one input for this; its inputs are: {found}.")
        return next(iter(self.input_specs.values()))

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(task.name for task in self.tasks)

    def task(self, name: str) -> TaskSpec:
        """Return the task called ``name``.

        Raises:
            DataError: If there is none.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise DataError(f"There is no task {name!r}; the tasks are {', '.join(self.task_names)}.")

    def with_tasks(self, names: tuple[str, ...]) -> Suite:
        """Return the suite restricted to some tasks."""
        return replace(self, tasks=tuple(self.task(name) for name in names), targets={name: self.targets[name] for name in names})

    def with_targets(self, targets: Mapping[str, Array]) -> Suite:
        """Return the suite with some targets replaced (the shuffled control uses this)."""
        return replace(self, targets={**self.targets, **targets})

    def with_inputs(self, inputs: Mapping[str, Array]) -> Suite:
        """Return the suite with other inputs for the same rows (cached features use this)."""
        return replace(self, inputs=dict(inputs))

    def with_splits(self, splits: Mapping[str, NDArray[np.int64]]) -> Suite:
        """Return the suite with other splits."""
        return replace(self, splits=dict(splits))

    def fingerprint(self) -> str:
        """Return a SHA-256 over tasks, inputs, targets and splits: equal data gives equal fingerprints."""
        digest = hashlib.sha256(repr((self.name, join_kinds(self.kinds), [_hashed(task) for task in self.tasks])).encode())
        for part in (self.inputs, self.targets, self.splits):
            # Sorted: the order of a mapping is no property of the data.
            for key in sorted(part):
                array = np.ascontiguousarray(part[key])
                # Type and shape too: equal bytes can be other arrays.
                digest.update(f"{key}{array.dtype}{array.shape}".encode())
                digest.update(array.view(np.uint8).reshape(-1).data)
        return digest.hexdigest()

    @classmethod
    def of_arrays(cls, **fields: Any) -> Self:
        """Build a suite from arrays; tasks get what their kind takes from the training rows (center and scale of values, say)."""
        tasks = [
            task_kind(task).fit_spec(task, np.asarray(fields["targets"][task.name])[fields["splits"]["train"]])
            for task in fields.pop("tasks")
        ]
        return cls(tasks=tuple(tasks), **fields)


def _hashed(task: TaskSpec) -> dict[str, Any]:
    """Return a task for the fingerprint, kinds over positions by the one word that they had, so that older runs still find their
    data."""
    value = task.to_json()
    name = old_name(task.kind, task.positions)
    if name != task.kind:
        value["kind"] = name
        del value["positions"]
    return value
