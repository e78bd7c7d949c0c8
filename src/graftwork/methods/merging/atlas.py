"""aTLAS: known task vectors are put together for tasks with few labels, by learning how much of each block of each vector to take.

Paper: Zhang et al., "Knowledge Composition using Task Vectors with Learned Anisotropic Scaling", NeurIPS 2024,
https://github.com/fredzzhang/atlas

``base + sum_i sum_k lambda_ik change_ik`` over models ``i`` and tensors ``k``; all ``lambda`` start at 0 and are all that learns, by
AdamW on labelled rows. With ``parts`` above 1 the entries of each tensor are divided at random into so many parts with a number of
their own. The tasks of the rows are those of the models (task addition), or others that the base's own head answers (few-shot
use: leave the target's own model out).

Departures: the state that is kept is the one with the lowest mean loss on the rows it learns from, looked at a few times; the paper
looks at validation accuracy after each epoch. Task negation, unlabelled test-time adaptation and the choice of blocks by gradient
are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.interfaces.task_kind import task_kind
from graftwork.methods.merging.adamerging import check_learning
from graftwork.methods.merging.learned_coefficients import Coefficients, Grain
from graftwork.methods.merging.model_answers import Answering
from graftwork.methods.merging.row_pools import RowPool
from graftwork.methods.merging.task_vectors import TaskVectors

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.core.batch import Batch

__all__ = ["Atlas", "AtlasConfig"]

Array = NDArray[Any]
Question = tuple[Answering, TaskSpec]
_WHOLE = 256  # rows of a task in one piece when all of them are judged


@dataclass(frozen=True, kw_only=True, slots=True)
class AtlasConfig:
    """Settings of aTLAS (Zhang et al., 2024)."""

    grain: Grain = "tensor"
    """``tensor`` learns a number for each model and tensor; ``model`` one for each model, the isotropic baseline."""
    parts: int = 1
    """Into how many random parts each tensor is divided, each with a number of its own (aTLAS x K)."""
    steps: int = 300
    learning_rate: float = 1e-2
    """Highest rate, from which a cosine leads to 0."""
    weight_decay: float = 0.1
    penalty: Literal["none", "l1", "l2"] = "none"
    """Norm of the coefficients that is added to the loss."""
    penalty_weight: float = 0.5
    batch_size: int = 16
    """Labelled rows of each task a step."""
    looks: int = 5
    """How often the loss on all rows is measured, the last step included; the best state is kept. 1 keeps the last one."""
    role: str = "val"
    """Labelled rows that it learns from."""
    num_rows: int = 1024
    """Most rows of a task."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of tensors that keep the base's values."""

    def __post_init__(self) -> None:
        check_learning(self.steps, self.learning_rate, self.batch_size, self.num_rows)
        if self.parts < 1 or self.looks < 1 or self.weight_decay < 0.0 or self.penalty_weight < 0.0:
            raise ConfigError(
                "`parts` and `looks` must be at least 1, `weight_decay` and `penalty_weight` at least 0; "
                f"got {self.parts!r}, {self.looks!r}, {self.weight_decay!r} and {self.penalty_weight!r}."
            )
        if self.parts > 1 and self.grain == "model":
            raise ConfigError("`parts` divide tensors; with `grain=model` a model has one number for all of them. Leave one out.")


class Atlas(ModelMerger):
    """Learn coefficients of blocks of task vectors from labelled rows. Needs a base, networks, and rows with labels.

    Args:
        config: Settings; see :class:`AtlasConfig`.
    """

    def __init__(self, config: AtlasConfig | None = None) -> None:
        self.config = config or AtlasConfig()
        self.weights: tuple[float, ...] | None = None
        """Mean coefficient of each model after a merge."""

    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> dict[str, Array]:
        """Return the merged tensors under the base's names.

        Raises:
            ConfigError: If base, networks, rows or tasks are missing.
            DataError: If the models do not fit together, or a task has no labelled row.
        """
        config = self.config
        vectors = TaskVectors(base, experts, context, exclude=config.exclude)
        if not vectors.names:
            return vectors.result({})
        questions = vectors.questions()
        pools = vectors.pools(questions, config.role, labelled=True, num_rows=config.num_rows)
        coefficients = Coefficients(vectors, config.grain, 0.0, parts=config.parts, seed=context.seed)
        self._learn(vectors, coefficients, questions, pools)
        self.weights = coefficients.means()
        return vectors.result(vectors.combine(coefficients.by_name()))

    def settings(self) -> Mapping[str, Any]:
        """Return the settings, and each model's mean coefficient once it is known."""
        return {"method": "atlas", **asdict(self.config), "weights": self.weights}

    def _learn(
        self, vectors: TaskVectors, coefficients: Coefficients, questions: Sequence[Question], pools: Sequence[RowPool]
    ) -> None:
        import torch

        config = self.config
        optimizer = torch.optim.AdamW([coefficients.values], lr=config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(config.steps, 1))
        # Steps after which the state is judged, evenly spaced, the last one among them.
        looks = (
            {round(config.steps * (number + 1) / config.looks) for number in range(config.looks)} if config.looks > 1 else set()
        )
        best, kept = float("inf"), None
        for step in range(1, config.steps + 1):
            optimizer.zero_grad()
            losses = []
            for question, pool in zip(questions, pools, strict=True):
                batch = pool.draw(config.batch_size)
                vectors.context.count("samples", len(batch))
                losses.append(_loss(vectors, question, batch))
            vectors.backward(vectors.combine(coefficients.by_name()), losses)
            if config.penalty != "none":
                norm = coefficients.values.abs().sum() if config.penalty == "l1" else coefficients.values.square().sum()
                (config.penalty_weight * norm).backward()
            torch.nn.utils.clip_grad_norm_([coefficients.values], 1.0)
            optimizer.step()
            schedule.step()
            vectors.context.count("steps")
            if step in looks:
                loss = _whole_loss(vectors, coefficients, questions, pools)
                if loss < best:
                    best, kept = loss, coefficients.values.detach().clone()
        if kept is not None:
            with torch.no_grad():
                coefficients.values.copy_(kept)


def _loss(vectors: TaskVectors, question: Question, batch: Batch) -> Callable[[Mapping[str, Tensor]], Tensor]:
    owner, task = question

    def loss(weights: Mapping[str, Tensor]) -> Tensor:
        output = vectors.outputs(owner, weights, batch, [task.name])[task.name]
        return task_kind(task).loss(task, output, batch.targets[task.name])

    return loss


def _whole_loss(
    vectors: TaskVectors, coefficients: Coefficients, questions: Sequence[Question], pools: Sequence[RowPool]
) -> float:
    """Return the mean over tasks of the loss on all rows."""
    import torch

    total = 0.0
    with torch.no_grad():
        weights = vectors.combine(coefficients.by_name())
        for question, pool in zip(questions, pools, strict=True):
            for begin in range(0, len(pool), _WHOLE):
                batch = pool.rows.take(slice(begin, begin + _WHOLE))
                total += float(_loss(vectors, question, batch)(weights)) * len(batch) / len(pool)
    return total / len(questions)
