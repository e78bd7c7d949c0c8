"""What jobs of one process share: the suite of the run with its divisions by seed, scores and stored predictions."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import FileFormatError
from graftwork.core.records import Scores
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = [
    "StoredPredictions",
    "control_suite",
    "primary_scores",
    "read_predictions",
    "run_suite",
    "score_rows",
    "write_predictions",
]

Array = NDArray[Any]


_Written = tuple[int, int, int] | None
"""Which writing of a suite lies in a folder: a run may have been removed, and another one begun in its place."""


# A process serves many jobs; dividing and loading would dominate short ones.
@functools.lru_cache(maxsize=16)
def _stored_suite(folder: Path, written: _Written, seed: int, folds: int, parts: int, rows: int, keep_all: bool = False) -> Suite:
    from graftwork.data.folds import fold_suite, whole_suite
    from graftwork.data.samples import sampled_suite
    from graftwork.data.splits import resplit
    from graftwork.data.store import load_suite

    if rows:
        return sampled_suite(_stored_suite(folder, written, seed, folds, parts, 0, keep_all), rows, seed)
    if not (seed or folds or parts):
        return load_suite(folder)
    suite = _stored_suite(folder, written, 0, 0, 0, 0)
    if parts:
        return whole_suite(suite, parts, seed, keep_all=keep_all)
    return fold_suite(suite, folds, seed) if folds else resplit(suite, seed)


def _written(folder: Path) -> _Written:
    try:
        # Written last, so that it is another file of another suite.
        found = os.stat(folder / "suite.json")
    except OSError:  # whoever loads it says what is wrong
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def run_suite(folder: Path, seed: int, *, folds: int = 0, parts: int = 0, rows: int = 0, keep_all: bool = False) -> Suite:
    """Return the suite of a run, divided for a seed.

    Args:
        folder: Folder of the stored suite.
        seed: 0 is the split of the suite itself, others divide the development rows anew, the test rows stay.
        folds: Cross-validation in so many folds: the seed numbers its trainings, and each has other test rows. 0 is none.
        parts: The models that are handed over, so many of which are averaged: the seed numbers them, none has test rows. 0 is
            none; otherwise ``folds`` does not matter.
        rows: Most training rows (see :func:`graftwork.data.samples.sampled_suite`); 0 is all.
        keep_all: Of ``parts``: whether what one leaves out is learned from, too.
    """
    return _stored_suite(folder, _written(folder), seed, 0 if parts else folds, parts, rows, keep_all and parts > 0)


def control_suite(suite: Suite, keep: str, root_seed: int, seed: int) -> Suite:
    """Return the suite of a control: the training targets of all tasks but one are shuffled.

    Args:
        suite: The suite, divided for ``seed``.
        keep: The task that is left as it is.
        root_seed: Root seed of the run.
        seed: Seed of the training.
    """
    from graftwork.evaluation.controls import shuffled_companions

    return shuffled_companions(suite, keep, Seeds(root_seed).child("control").integer(f"{keep}/{seed}"))


def score_rows(learner: Learner, suite: Suite, rows: NDArray[np.int64]) -> tuple[Scores, dict[str, Array]]:
    """Return ``{task: {metric: value}}`` of the learner on some rows, and its predictions."""
    from graftwork.evaluation.metrics import score_task

    predictions = learner.predict(rows)
    scores = {
        task.name: score_task(task, np.asarray(suite.targets[task.name][rows]), predictions[task.name]) for task in suite.tasks
    }
    return scores, predictions


def primary_scores(scores: Scores, suite: Suite) -> dict[str, float]:
    """Return the primary metric of each task; NaN if it is missing."""
    from graftwork.evaluation.metrics import default_metric

    values = {task.name: scores.get(task.name, {}).get(default_metric(task)) for task in suite.tasks}
    return {name: float("nan") if value is None else float(value) for name, value in values.items()}


def write_predictions(path: Path, predictions: dict[str, dict[str, Array]], suite: Suite) -> None:
    """Write ``{split: {task: array}}`` as one safetensors file, atomically."""
    from safetensors.numpy import save

    from graftwork.core.files import write_bytes

    # Numbered, not named: names of tasks may hold slashes, which separate split and task here.
    arrays = {
        f"{split}/{index}": np.ascontiguousarray(tasks[task.name], dtype=np.float32)
        for split, tasks in predictions.items()
        for index, task in enumerate(suite.tasks)
        if task.name in tasks
    }
    write_bytes(path, save(arrays))


def read_predictions(path: Path, suite: Suite) -> dict[str, dict[str, Array]]:
    """Read :func:`write_predictions`' file.

    Raises:
        FileFormatError: If it is missing, damaged, or of other tasks.
    """
    from safetensors.numpy import load

    found: dict[str, dict[str, Array]] = {}
    with _reading(path):
        # By number: the file sorts keys as texts, where 10 comes before 2.
        for key, array in sorted(load(path.read_bytes()).items(), key=lambda item: int(item[0].rpartition("/")[2])):
            split, _, index = key.partition("/")
            found.setdefault(split, {})[suite.tasks[int(index)].name] = array
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise FileFormatError(
            f"{path} is missing or damaged ({error!s:.200}). Restore it from a copy, or remove the folder {path.parent} and go on "
            "with --resume: then this training is made again."
        ) from error


class StoredPredictions(Mapping[str, Array]):
    """``{task: array}`` of one split in :func:`write_predictions`' file, read anew at every access: many runs need not fit into
    memory.

    Args:
        path: The file.
        suite: Gives the names of the tasks.
        split: Name of the split; one that the file lacks is empty.

    Raises:
        FileFormatError: If the file is missing, damaged, or of other tasks; also when values are asked for.
    """

    def __init__(self, path: Path, suite: Suite, split: str) -> None:
        from safetensors import safe_open

        self._path = path
        with _reading(path):
            with safe_open(path, framework="numpy") as file:
                keys = [key for key in file.keys() if key.rpartition("/")[0] == split]  # noqa: SIM118  (not a mapping)
            self._keys = {suite.tasks[int(key.rpartition("/")[2])].name: key for key in keys}

    def __getitem__(self, task: str) -> Array:
        from safetensors import safe_open

        key = self._keys[task]  # before the file is opened: a task that is not there is no damage
        with _reading(self._path), safe_open(self._path, framework="numpy") as file:
            found: Array = file.get_tensor(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
