"""What a student of data without labels learns: the tasks that its teachers answer, or their own classes, or their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.files import read_json
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.task_kind import task_kind
from graftwork.workflows.teachers.asking import open_teacher
from graftwork.workflows.teachers.naming import check_teacher
from graftwork.workflows.teachers.tables import ARRAY_FILES

__all__ = ["Given", "PseudoTask", "missing_target", "tasks_of_teachers"]

Given = Literal["outputs", "classes", "features"]
"""What of a teacher's answers a task is made of."""
_NOT_PREDICTED = ("_probability", "_low", "_high")


@dataclass(frozen=True, slots=True)
class PseudoTask:
    """A task, and which teachers say something of it."""

    spec: TaskSpec
    teachers: Mapping[int, Given] = field(default_factory=dict)
    """By the number of the teacher."""


def tasks_of_teachers(names: Sequence[str], suite: Suite) -> tuple[list[PseudoTask], list[str]]:
    """Return the tasks, and notes about those that are left out.

    Args:
        names: The teachers, as the user named them.
        suite: The rows, without tasks.

    Raises:
        ConfigError: If two teachers mean different things by one name, a column of the data has the name of a task, or no teacher
            gives anything that can be learned.
        GraftworkError: If a teacher cannot be read.
    """
    found: dict[str, PseudoTask] = {}
    notes: list[str] = []
    for number, name in enumerate(names):
        for spec, given in _of_teacher(name, number, suite, notes):
            known = found.get(spec.name)
            if known is None:
                found[spec.name] = PseudoTask(spec, {number: given})
                continue
            differs = [key for key in ("kind", "size", "classes") if getattr(known.spec, key) != getattr(spec, key)]
            if differs:
                first = names[next(iter(known.teachers))]
                raise ConfigError(
                    f"{first} and {name} both answer {spec.name!r}, with another {', '.join(differs)}. Take one of them as the teacher."
                )
            found[spec.name] = replace(known, teachers={**known.teachers, number: given})
    _check_columns(found, suite)
    if not found:
        raise ConfigError("None of the teachers gives anything that can be learned without labels.", notes)
    return list(found.values()), notes


def _of_teacher(name: str, number: int, suite: Suite, notes: list[str]) -> list[tuple[TaskSpec, Given]]:
    source = check_teacher(name, suite.kinds)
    if source is None and Path(name).suffix not in ARRAY_FILES:
        return [(spec, "outputs") for spec in _of_table(Path(name), suite)]
    if source is not None and source.way == "run":
        return [(spec, "outputs") for spec in _of_run(name, Path(source.place), notes)]
    # Of two rows: how many classes or features there are is all that counts here.
    arrays = _widths(Path(name), suite) if source is None else _asked(name, suite)
    own = f"{Path(name.partition(':')[2] or name).stem or name}"
    own = own if number == 0 else f"{own} ({number + 1})"
    if "classes" in arrays:
        size = arrays["classes"]
        classes = tuple(f"class {index}" for index in range(size))
        return [(TaskSpec(name=f"classes of {own}", kind="multiclass", size=size, classes=classes), "classes")]
    if "features" in arrays:
        return [(TaskSpec(name=f"features of {own}", kind="regression", size=arrays["features"]), "features")]
    return []


def _asked(name: str, suite: Suite) -> dict[str, int]:
    answers = open_teacher(name, suite).ask(np.arange(min(2, len(suite))))
    return {key: int(array.shape[1]) for key, array in answers.items() if key in ("features", "classes")}


def _widths(path: Path, suite: Suite) -> dict[str, int]:
    from graftwork.workflows.teachers.tables import read_teacher_file

    arrays = read_teacher_file(path, suite).arrays()
    return {key: int(array.shape[1]) for key, array in arrays.items() if key in ("features", "classes")}


def _of_run(name: str, model: Path, notes: list[str]) -> list[TaskSpec]:
    config = read_json(model / "config.json")
    try:
        specs = [TaskSpec.from_json(task) for task in config["tasks"]]
    except (GraftworkError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{model / 'config.json'} is damaged: tasks cannot be read ({error}).") from error
    kept = [spec for spec in specs if not spec.is_dense and task_kind(spec).can_be_taught]
    left = [spec.name for spec in specs if spec not in kept]
    if left:
        notes.append(f"{name} answers {', '.join(left)} too, which cannot be learned from answers alone.")
    # What the teacher's metric or thresholds are is of no use to somebody who has no labels.
    return [replace(spec, metric="") for spec in kept]


def _of_table(path: Path, suite: Suite) -> list[TaskSpec]:
    """Return the tasks that a table of predictions answers, read as columns of labels are."""
    from graftwork.data.reading.infer import infer_tasks, parse_targets
    from graftwork.data.reading.readers import read_table

    frame = read_table(path)
    names = [str(column) for column in frame.columns]
    if len(frame) != len(suite):
        raise ConfigError(
            f"{path} has {len(frame):,} rows, and the data has {len(suite):,}. A file of a teacher has one row a row of the data, in "
            "its order."
        )
    own = [
        name
        for name in names
        if name not in ("row", "file")
        and "[" not in name
        and not any(name == f"{base}{end}" for base in names for end in _NOT_PREDICTED)
    ]
    if not own:
        raise ConfigError(f"{path} has the columns {', '.join(names[:12])}, and none of them is a prediction.")
    train = suite.splits["train"]
    found = infer_tasks(frame, parse_targets(own, names))
    return [task_kind(task.spec).fit_spec(task.spec, task.target[train]) for task in found]


def _check_columns(tasks: Mapping[str, PseudoTask], suite: Suite) -> None:
    """Refuse data in which a task of the teachers is a column: it would be learned from, and is probably a label."""
    for name in tasks:
        # What is left out is in the list as well, without a use.
        if suite.raw.get("columns", {}).get(name, {}).get("use"):
            raise ConfigError(
                f"The data has a column {name!r}, which is what a teacher answers. If it is the label, say --targets {name}; else leave "
                f"it out with --ignore {name}."
            )


def missing_target(spec: TaskSpec, rows: int) -> NDArray[Any]:
    """Return a target without any label, ``[rows, ...]``."""
    if spec.kind in ("binary", "multiclass", "ordinal"):
        return np.full(rows, -1, dtype=np.int64)
    return np.full((rows, spec.size), np.nan, dtype=np.float32)
