"""Scores of all finalists on the test rows and on every resample of them: what the verdict's statements are computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import Interval, Scores
from graftwork.data.suite import Suite, labelled_rows
from graftwork.evaluation.bootstrap import Resampler, resample
from graftwork.evaluation.changes import Change, SeedScores, change, mean_change
from graftwork.evaluation.delta_m import relative_changes
from graftwork.evaluation.metrics import default_metric, find_metric, metrics_of, prepare_metric
from graftwork.interfaces.metric import Evaluator, Floats
from graftwork.math.weighted_sums import mean_of_columns

__all__ = ["FinalRun", "ScoreBank", "resamples_of_verdict"]

_FEW_TASKS, _EACH = 20, 5
"""Beyond so many tasks the work of all of them counts, so many of them as one: a verdict on hundreds of tasks took longer than their
race."""
_MOST_WORK = 10_000_000
"""Rows times resamples; above it there are fewer resamples (at least 200): with that many rows the noise of the bootstrap is
small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalRun:
    """One finalist trained with one seed, and what it predicts."""

    plan_name: str
    seed: int
    predictions: Mapping[str, NDArray[Any]]
    """``{task: prediction}`` in the user's units for ``suite.splits["test"]``, in that order."""
    validation: Scores
    """``{task: {metric: value}}`` on the validation rows of this seed: the only thing that selects."""
    validation_parts: Mapping[int, Scores] | None = None
    """In a cross-validation, the same for each fold: how they vary says how sure the mean is. None if there is one division."""
    transfer_predictions: Mapping[str, NDArray[Any]] | None = None
    """The same for ``suite.splits["transfer"]``, if the suite has one."""
    parts: NDArray[np.int64] | None = None
    """In a cross-validation, the fold of each test row: rows of one fold were answered by one model. None if one model answered
    all."""


def resamples_of_verdict(num_tasks: int, num_rows: int, planned: int = 1000) -> int:
    """Return how many resamples of the test rows are drawn: as planned, fewer for very many rows or tasks."""
    many = num_tasks / _EACH if num_tasks > _FEW_TASKS else 1.0
    return max(2, min(planned, max(200, int(_MOST_WORK / (many * max(1, num_rows))))))


class ScoreBank:
    """All metrics of all arms on one split, with the same resamples of its rows for everybody.

    Args:
        suite: The suite.
        arms: Runs by the name of their arm (plan, or control); an arm may lack tasks.
        split: ``"test"`` or ``"transfer"``.
        num_resamples: Resamples, fewer for very many rows.
        seed: Seed of the resamples.
        weights: Weights of tasks in means over tasks, above 0; tasks without one weigh 1.

    Raises:
        DataError: If a prediction has another number of rows than the split.
    """

    def __init__(
        self,
        suite: Suite,
        arms: Mapping[str, Sequence[FinalRun]],
        *,
        split: str = "test",
        num_resamples: int = 1000,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.suite = suite
        self.weights = dict(weights or {})
        self._exchanged: dict[str, float] = {}
        rows = suite.splits[split]
        self.groups = None if suite.groups is None else suite.groups[rows]
        resamples = resamples_of_verdict(len(suite.tasks), len(rows), num_resamples)
        self._resampler = Resampler(len(rows), groups=self.groups, num_resamples=resamples, seed=seed)
        self._targets = {name: suite.targets[name][rows] for name in suite.task_names}
        self._parts: dict[tuple[str, str, str], list[dict[int, float]]] = {}
        self._scores = self._measure(arms, split)

    def _measure(self, arms: Mapping[str, Sequence[FinalRun]], split: str) -> dict[tuple[str, str, str], SeedScores]:
        evaluators: list[Evaluator] = []
        places: dict[tuple[str, str, str], tuple[list[int], list[int]]] = {}
        for arm, runs in arms.items():
            for run in runs:
                if run.parts is not None and split == "test":
                    self._add_parts(arm, run)
                predictions = run.predictions if split == "test" else run.transfer_predictions or {}
                parts = run.parts if split == "test" else None
                for task in self.suite.tasks:
                    if task.name not in predictions:
                        continue
                    target, prediction = self._targets[task.name], np.asarray(predictions[task.name])
                    if len(prediction) != len(target):
                        raise DataError(
                            f"Plan {run.plan_name!r}, seed {run.seed}: {len(prediction)} predictions of task {task.name!r} for "
                            f"{len(target)} {split} rows. Predict suite.splits[{split!r}], in its order."
                        )
                    for metric in metrics_of(task):
                        seeds, indices = places.setdefault((arm, task.name, metric), ([], []))
                        seeds.append(run.seed)
                        indices.append(len(evaluators))
                        evaluators.append(self._resampler.adapt(prepare_metric(task, target, prediction, metric, parts=parts)))
        # Every unit once: the sample itself.
        once = np.ones((1, self._resampler.num_units))
        # One evaluator for each run and metric; `places` says which of them belong together.
        point = np.array([evaluate(once)[0] for evaluate in evaluators])
        resampled = resample(evaluators, self._resampler)
        return {
            key: SeedScores(tuple(seeds), point[indices], resampled[indices], *self._by_part(key))
            for key, (seeds, indices) in places.items()
        }

    def _add_parts(self, arm: str, run: FinalRun) -> None:
        """Measure the primary metrics of one run fold by fold."""
        assert run.parts is not None
        for task in self.suite.tasks:
            if task.name not in run.predictions:
                continue
            metric, prediction = default_metric(task), np.asarray(run.predictions[task.name])
            values: dict[int, float] = {}
            for part in np.unique(run.parts):
                rows = run.parts == part
                evaluate = prepare_metric(task, self._targets[task.name][rows], prediction[rows], metric)
                values[int(part)] = float(evaluate(np.ones((1, int(rows.sum()))))[0])
            self._parts.setdefault((arm, task.name, metric), []).append(values)

    def _by_part(self, key: tuple[str, str, str]) -> tuple[NDArray[np.float64] | None, tuple[int, ...]]:
        """Return an arm's primary metric by fold, the mean over repetitions, and the folds' numbers; None without folds."""
        found = self._parts.get(key)
        if not found:
            return None, ()
        ids = tuple(sorted({part for values in found for part in values}))
        return mean_of_columns(np.array([[values.get(part, np.nan) for values in found] for part in ids])), ids

    def scores(self, arm: str, task: str, metric: str = "") -> SeedScores | None:
        """Return an arm's scores of a task (primary metric by default); None if it has none."""
        return self._scores.get((arm, task, metric or default_metric(self.suite.task(task))))

    def intervals(self, arm: str) -> dict[str, dict[str, Interval]]:
        """Return ``{task: {metric: mean over seeds with interval}}`` of one arm."""
        found: dict[str, dict[str, Interval]] = {}
        for (name, task, metric), scores in self._scores.items():
            if name == arm:
                found.setdefault(task, {})[metric] = scores.interval(find_metric(metric))
        return found

    def per_seed(self, arm: str) -> list[dict[str, Any]]:
        """Return ``[{"seed", "test": {task: {metric: value}}}]`` of one arm."""
        found: dict[int, Scores] = {}
        for (name, task, metric), scores in self._scores.items():
            if name == arm:
                for seed, value in zip(scores.seeds, scores.point, strict=True):
                    found.setdefault(seed, {}).setdefault(task, {})[metric] = float(value)
        return [{"seed": seed, "test": found[seed]} for seed in sorted(found)]

    def change(self, task: str, arm: str, reference: str, *, relative: Callable[..., Floats] = relative_changes) -> Change | None:
        """Return the paired relative change of a task's primary metric; None if one arm lacks the task."""
        left, right = self.scores(arm, task), self.scores(reference, task)
        if left is None or right is None:
            return None
        spec, units = self.suite.task(task), self.num_units(task)
        return change(spec, left, right, exchange=self._exchange(task), units=units, relative=relative)

    def _exchange(self, task: str) -> float:
        """Return how many rows seeds (or folds) exchange with the training rows of a task, as a share of those.

        Seeds share the test rows and exchange validation rows; folds exchange test rows, of which each has as many.
        """
        # Rows without a label of the task teach and judge nothing, so they are not exchanged either.
        if task not in self._exchanged:
            target, splits = self.suite.targets[task], self.suite.splits
            train, val = (int(labelled_rows(target[splits[split]]).sum()) for split in ("train", "val"))
            self._exchanged[task] = val / max(1, train)
        return self._exchanged[task]

    def changes(self, arm: str, reference: str) -> dict[str, Change]:
        """Return :meth:`change` for all tasks that both arms have."""
        found = {task: self.change(task, arm, reference) for task in self.suite.task_names}
        return {task: item for task, item in found.items() if item is not None}

    def delta_m(self, arm: str, reference: str) -> Change | None:
        """Return the (weighted) mean change over tasks; None if the arms share no task."""
        found = self.changes(arm, reference)
        return mean_change(list(found.values()), [self.weights.get(task, 1.0) for task in found]) if found else None

    def num_labelled(self, task: str) -> int:
        """Return how many rows of the split have a label of the task."""
        return int(labelled_rows(self._targets[task]).sum())

    def num_units(self, task: str) -> int:
        """Return how many independent units have a label of the task: groups, or rows."""
        known = labelled_rows(self._targets[task])
        return int(known.sum()) if self.groups is None else len(np.unique(self.groups[known]))
