"""What a merge does to the answers: scores of every model on its tasks before, and of the merged weights after.

A model keeps its own heads where the models answer different tasks, as it would when it is used with merged weights. torch is
imported where networks are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.merging.sources import shape

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.methods.merging.model_answers import Answering

__all__ = ["MergeScorer", "TaskScore", "mean_change"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One model's score on one task."""

    model: str
    task: str
    metric: str
    num_rows: int
    """Labelled rows that it was measured on."""
    before: float
    """Of the model as it was; NaN if the rows leave the metric undefined."""
    after: float | None = None
    """With the merged weights; None before a merge, and for the base."""


class MergeScorer:
    """Scores networks with their own and with merged weights.

    Args:
        base: The base, if there is one; it is scored if it answers one of the tasks.
        experts: The models.
        context: Tasks and rows.
        metric: The metric of all tasks; empty takes each task's own.

    Raises:
        ConfigError: If a network is not known, no model answers a task of the rows, or the metric cannot judge a task.
    """

    def __init__(
        self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext, *, metric: str = ""
    ) -> None:
        from graftwork.evaluation.metrics import default_metric, metrics_of
        from graftwork.methods.merging.model_answers import Answering

        self._context = context
        self._experts = [Answering(model, context.tasks) for model in experts]
        if not any(model.tasks for model in self._experts):
            answered = sorted({name for model in self._experts for name in model.answered})
            raise ConfigError(
                f"The models answer {', '.join(answered)}, and the rows have {', '.join(task.name for task in context.tasks)}: "
                "no task is in both. Give a suite with the tasks of the models, under the same names."
            )
        # A base without heads for these tasks has nothing to be scored on.
        known = None if base is None or base.network is None else Answering(base, context.tasks)
        self._base = known if known is not None and known.tasks else None
        self._metrics: dict[str, str] = {}
        for task in {task.name: task for model in self._experts for task in model.tasks}.values():
            if metric and metric not in metrics_of(task):
                raise ConfigError(
                    f"The metric {metric!r} cannot judge the task {task.name!r} ({task.kind_words}); choose one of "
                    f"{', '.join(metrics_of(task))}, or leave it out to take each task's own."
                )
            self._metrics[task.name] = metric or default_metric(task)
        self._share_tasks = len({model.answered for model in self._experts}) == 1
        self._loaded = [0] if self._share_tasks else list(range(len(self._experts)))
        self._owned: list[set[str]] = [set() if self._share_tasks else set(model.owned()) for model in self._experts]

    def before(self, role: str) -> list[TaskScore]:
        """Return the scores of all models as they are, the base first. Call it before :meth:`load`.

        Raises:
            ConfigError: If there are no rows of this role.
            DataError: If none of them has a label of a task that a model answers.
        """
        everyone = [*([self._base] if self._base is not None else []), *self._experts]
        found = [score for model in everyone for score in self._scores(model, role)]
        if not found:
            raise DataError(f"None of the {role!r} rows has a label of a task of the models, so nothing can be scored on them.")
        return found

    def load(self, tensors: Mapping[str, Array]) -> None:
        """Put merged weights into all networks; heads of single tasks stay where models answer different tasks.

        Where all models answer the same tasks one network is enough: the first one that has the shapes of what was merged.

        Raises:
            DataError: If a tensor has another shape than in a network.
        """
        shapes = [
            {name.removeprefix("inner."): tuple(value.shape) for name, value in model.network.state_dict().items()}
            for model in self._experts
        ]
        wrong = [
            [name for name in tensors if name in known and name not in owned and known[name] != shape(tensors, name)]
            for known, owned in zip(shapes, self._owned, strict=True)
        ]
        self._loaded = list(range(len(self._experts)))
        if self._share_tasks:
            self._loaded = [next((place for place in self._loaded if not wrong[place]), 0)]
        for place in self._loaded:
            model, known = self._experts[place], shapes[place]
            if wrong[place]:
                name = wrong[place][0]
                raise DataError(
                    f"The merged tensor {name!r} is {list(shape(tensors, name))}, and {model.name} has {list(known[name])}: a network "
                    "of another shape cannot be scored in its place."
                )
            # Copies, one at a time: files are mapped read-only.
            own = (name for name in tensors if name in known and name not in self._owned[place])
            model.load((name, np.array(tensors[name])) for name in own)

    def after(self, before: Sequence[TaskScore], role: str) -> list[TaskScore]:
        """Return earlier scores with those of the weights that were loaded last."""
        networks = [self._experts[place] for place in self._loaded]
        found = {(model.name, score.task): score.before for model in networks for score in self._scores(model, role)}
        experts = {model.name for model in self._experts}

        def merged(score: TaskScore) -> float | None:
            # Models of the same tasks are the same network after the merge.
            return found.get((networks[0].name if self._share_tasks else score.model, score.task))

        return [replace(score, after=merged(score)) if score.model in experts else score for score in before]

    def _scores(self, model: Answering, role: str) -> list[TaskScore]:
        import torch

        from graftwork.evaluation.metrics import score_task
        from graftwork.interfaces.task_kind import task_kind

        tasks: Sequence[TaskSpec] = [task for task in model.tasks if task.name in self._metrics]
        names = [task.name for task in tasks]
        if not names:
            return []
        outputs: dict[str, list[Tensor]] = {name: [] for name in names}
        targets: dict[str, list[Tensor]] = {name: [] for name in names}
        network = model.network.to(self._context.device)
        with torch.inference_mode():
            for batch in self._context.batches(role):
                # Rows of other tasks only are not computed.
                known = torch.stack([batch.mask[name] for name in names]).any(dim=0)
                if not bool(known.any()):
                    continue
                part = batch.take(known.nonzero().flatten())
                answered = network(part.inputs, names)
                for task in tasks:
                    own = part.mask[task.name]
                    outputs[task.name].append(task_kind(task).decode(task, answered[task.name][own]).cpu())
                    targets[task.name].append(part.targets[task.name][own].cpu())
        found = []
        for task in tasks:
            if count := sum(map(len, targets[task.name])):
                truth, said = torch.cat(targets[task.name]).numpy(), torch.cat(outputs[task.name]).numpy()
                metric = self._metrics[task.name]
                found.append(TaskScore(model.name, task.name, metric, count, score_task(task, truth, said, [metric])[metric]))
        return found


def mean_change(scores: Sequence[TaskScore]) -> float:
    """Return the mean change of all models on all tasks against themselves before the merge, in percent; positive is better.

    Args:
        scores: With both sides; others do not count, nor do undefined ones.

    Returns:
        NaN if there is none.
    """
    from graftwork.evaluation.delta_m import relative_change

    changes = [relative_change(score.metric, score.after, score.before) for score in scores if score.after is not None]
    known = [change for change in changes if not np.isnan(change)]
    return float(np.mean(known)) if known else float("nan")
