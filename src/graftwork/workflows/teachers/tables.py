"""Teachers that are files: predictions or features of the same rows, whoever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.data.suite import Suite
from graftwork.data.teacher_answers import TeacherAnswers
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.raw_answers import raw_answers

__all__ = ["ARRAY_FILES", "read_teacher_file"]

Array = NDArray[Any]
ARRAY_FILES = (".npy", ".npz", ".safetensors")
HARD = 0.9
"""Probability that a class gets where a table holds nothing but its name: a pseudo label may be wrong."""


def read_teacher_file(path: Path, suite: Suite) -> TeacherAnswers:
    """Read what a teacher said of the suite's rows, in the order of the data.

    A table (CSV, JSON lines, Parquet ...) holds columns as ``graftwork predict`` writes them: the task's name, or ``task[class]``
    with probabilities. An array file holds ``features`` ``[N, width]``, ``classes`` (probabilities of the teacher's own classes)
    or predictions under the names of tasks; one array without a name (``.npy``) is features.

    Args:
        path: The file.
        suite: The rows.

    Raises:
        ConfigError: If it holds nothing of use, or has another number of rows.
        FileFormatError: If it cannot be read.
    """
    answers = _of_arrays(path, suite) if path.suffix in ARRAY_FILES else _of_table(path, suite)
    for name, array in answers.arrays().items():
        if len(array) != len(suite):
            raise ConfigError(
                f"{path} has {len(array):,} rows of {name!r}, and the data has {len(suite):,}. A file of a teacher has one row "
                f"a row of the data, in its order."
            )
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())
            raise ConfigError(
                f"{path}: {bad:,} rows of {name!r} hold numbers that are not finite. A teacher says something of every row."
            )
    return answers


def _of_arrays(path: Path, suite: Suite) -> TeacherAnswers:
    arrays = _load(path)
    tasks = {task.name: task for task in suite.tasks}
    outputs = {name: raw_answers(tasks[name], array) for name, array in arrays.items() if name in tasks}
    features, classes = arrays.get("features"), arrays.get("classes")
    if not outputs and features is None and classes is None:
        raise ConfigError(
            f"{path} holds the arrays {', '.join(arrays) or 'none'}; a teacher gives features, classes, or predictions under "
            f"the name of a task ({', '.join(tasks)})."
        )
    if classes is not None and (classes.ndim != 2 or (classes < 0).any() or not np.allclose(classes.sum(axis=1), 1.0, atol=1e-2)):
        raise ConfigError(
            f"{path}: `classes` must be probabilities [N, C] with the sum 1 in each row; got the shape {classes.shape}."
        )
    if features is not None:
        features = np.asarray(features, dtype=np.float32).reshape(len(features), -1)
    return TeacherAnswers(name=str(path), outputs=outputs, features=features, classes=classes)


def _load(path: Path) -> dict[str, Array]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            arrays = dict(load_file(path))
        else:
            # Never pickled: an array of objects could run code.
            found = np.load(path, allow_pickle=False)
            arrays = {"features": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except Exception as error:  # what damaged files raise is of many kinds
        raise FileFormatError(f"{path} cannot be read as arrays: {error!s:.200}") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not array.ndim:
            raise FileFormatError(
                f"{path}: the array {name!r:.80} has the type {array.dtype!s:.40} and the shape {array.shape}; a teacher's arrays are "
                "numbers with one row a row of the data. Write it again."
            )
    return arrays


def _of_table(path: Path, suite: Suite) -> TeacherAnswers:
    from graftwork.data.reading.readers import read_table

    frame = read_table(path)
    columns = [str(name) for name in frame.columns]
    outputs = {}
    for task in suite.tasks:
        try:
            found = task_kind(task).read_answers(task, {name: np.asarray(frame[name]) for name in columns}, hard=HARD)
        except GraftworkError as error:  # kinds know the column and the cell, and no file
            wrong = ConfigError if isinstance(error, ConfigError) else FileFormatError
            raise wrong(f"{path}: {error}") from error
        if found is not None:
            outputs[task.name] = raw_answers(task, found)
    if not outputs:
        raise ConfigError(
            f"{path} has the columns {', '.join(columns[:12])}, and none of them predicts a task "
            f"({', '.join(suite.task_names)}). Write it with: graftwork predict RUN DATA --probabilities"
        )
    return TeacherAnswers(name=str(path), outputs=outputs)
