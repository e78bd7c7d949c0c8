"""What jobs of one process share: the suite of the run, its divisions by seed, and learners built from plans."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import Plan, Scores
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = [
    "StoredPredictions",
    "build_learner",
    "job_suite",
    "primary_scores",
    "read_predictions",
    "score_rows",
    "write_predictions",
]

Array = NDArray[Any]


@functools.lru_cache(maxsize=8)
def _stored_suite(folder: Path, seed: int) -> Suite:
    from graftwork.data.splits import resplit
    from graftwork.data.store import load_suite

    return load_suite(folder) if seed == 0 else resplit(_stored_suite(folder, 0), seed)


def job_suite(folder: Path, job: Mapping[str, Any]) -> Suite:
    """Return the suite that a job trains on.

    Args:
        folder: Folder of the stored suite.
        job: ``seed`` 0 is the split of the suite itself, others divide the development rows anew, the test rows stay;
            ``keep_task``
            asks for the control: the training targets of all other tasks are shuffled.
    """
    suite = _stored_suite(folder, job["seed"])
    keep = job.get("keep_task")
    if keep is None:
        return suite
    from graftwork.evaluation.controls import shuffled_companions

    return shuffled_companions(suite, keep, Seeds(job.get("root_seed", 0)).child("control").integer(f"{keep}/{job['seed']}"))


def build_learner(job: Mapping[str, Any], suite: Suite) -> Learner:
    """Build the learner of a job's plan."""
    from graftwork.interfaces.learner import Learner, LearnerContext

    plan = Plan.from_json(job["plan"])
    context = LearnerContext(
        suite=suite,
        plan=plan,
        seed=Seeds(job.get("root_seed", 0)).integer(f"seed {job['seed']}"),  # the same for all plans: comparisons are paired
        max_steps=job["max_steps"],
        cache=Path(job["cache"]),
        backbone=job.get("backbone") or "",
        threads=job.get("threads", 1),
        overrides=job.get("overrides", {}),
    )
    learner: Learner = plan.train.learner.build(context, seam=Learner)
    return learner


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

    arrays = {
        f"{split}/{index}": np.ascontiguousarray(tasks[task.name], dtype=np.float32)
        for split, tasks in predictions.items()
        for index, task in enumerate(suite.tasks)
        if task.name in tasks
    }
    write_bytes(path, save(arrays))


def read_predictions(path: Path, suite: Suite) -> dict[str, dict[str, Array]]:
    """Read :func:`write_predictions`' file."""
    from safetensors.numpy import load

    found: dict[str, dict[str, Array]] = {}
    for key, array in sorted(load(path.read_bytes()).items(), key=lambda item: int(item[0].rpartition("/")[2])):
        split, _, index = key.partition("/")
        found.setdefault(split, {})[suite.tasks[int(index)].name] = array
    return found


class StoredPredictions(Mapping[str, Array]):
    """``{task: array}`` of one split in :func:`write_predictions`' file, read anew at every access: many runs need not fit into
    memory.

    Args:
        path: The file.
        suite: Gives the names of the tasks.
        split: Name of the split; one that the file lacks is empty.
    """

    def __init__(self, path: Path, suite: Suite, split: str) -> None:
        from safetensors import safe_open

        self._path = path
        with safe_open(path, framework="numpy") as file:
            keys = [key for key in file.keys() if key.rpartition("/")[0] == split]  # noqa: SIM118  (not a mapping)
        self._keys = {suite.tasks[int(key.rpartition("/")[2])].name: key for key in keys}

    def __getitem__(self, task: str) -> Array:
        from safetensors import safe_open

        with safe_open(self._path, framework="numpy") as file:
            found: Array = file.get_tensor(self._keys[task])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
