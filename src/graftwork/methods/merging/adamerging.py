"""AdaMerging: coefficients of task vectors that make the merged model sure of its answers, learned on rows without labels.

Paper: Yang et al., "AdaMerging: Adaptive Model Merging for Multi-Task Learning", ICLR 2024, https://arxiv.org/abs/2310.02575

``base + sum_i lambda_i (model_i - base)``, with one ``lambda`` for each model (``grain=model``) or for each model and tensor
(``grain=tensor``, layer-wise), learned by Adam on the mean entropy of the answers of all models' heads.

Departures: the rows are validation rows in place of test rows. Which rows are of which task is taken from where labels are; what
they are is never looked at, and rows without any label count for every task. Entropies of yes-or-no labels are those of their
probabilities; tasks whose answers are numbers are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.methods.merging.answer_entropy import answer_entropy, has_entropy
from graftwork.methods.merging.learned_coefficients import Coefficients, Grain
from graftwork.methods.merging.model_answers import Answering
from graftwork.methods.merging.row_pools import RowPool
from graftwork.methods.merging.task_vectors import TaskVectors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AdaMerging", "AdaMergingConfig", "EntropyRows", "check_learning", "learn_coefficients"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaMergingConfig:
    """Settings of AdaMerging (Yang et al., 2024)."""

    grain: Grain = "tensor"
    """``tensor`` learns a coefficient for each model and tensor (layer-wise), ``model`` one for each model (task-wise)."""
    scaling: float = 0.3
    """Value of all coefficients at the start."""
    steps: int = 500
    learning_rate: float = 1e-3
    batch_size: int = 16
    """Rows of each task a step."""
    clamp: bool = True
    """Whether coefficients are held between 0 and 1."""
    role: str = "val"
    """Rows that it learns from; their labels are not used."""
    num_rows: int = 1024
    """Most rows of a task."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of tensors that keep the base's values."""

    def __post_init__(self) -> None:
        check_learning(self.steps, self.learning_rate, self.batch_size, self.num_rows)


def check_learning(steps: int, learning_rate: float, batch_size: int, num_rows: int) -> None:
    """Refuse numbers with which nothing can be learned.

    Raises:
        ConfigError: Naming the values.
    """
    if steps < 0 or not 0.0 < learning_rate < float("inf") or batch_size < 1 or num_rows < 1:
        raise ConfigError(
            "`steps` must be at least 0, `learning_rate` above 0, `batch_size` and `num_rows` at least 1; "
            f"got {steps!r}, {learning_rate!r}, {batch_size!r} and {num_rows!r}."
        )


class EntropyRows:
    """Rows of every task whose answers have an entropy, and that entropy as losses of the weights.

    Args:
        vectors: The models.
        role: Rows that are drawn from.
        batch_size: Rows of each task a draw.
        num_rows: Most rows of a task.

    Raises:
        ConfigError: If no task of the rows has an answer with an entropy, or there are no such rows.
    """

    def __init__(self, vectors: TaskVectors, role: str, batch_size: int, num_rows: int) -> None:
        everything = vectors.questions()
        self._questions = [(owner, task) for owner, task in everything if has_entropy(task)]
        others = [task.name for _, task in everything if not has_entropy(task)]
        if not self._questions:
            raise ConfigError(
                f"The answers of {', '.join(others)} are numbers, and have no entropy that could be lowered. Use a method that needs "
                "no entropy, such as atlas (labels) or regmean."
            )
        if others:
            warnings.warn(f"The answers of {', '.join(others)} have no entropy; these tasks are left out.", stacklevel=3)
        self._vectors, self._size = vectors, batch_size
        self._pools: list[RowPool] = vectors.pools(self._questions, role, labelled=False, num_rows=num_rows)

    def losses(self) -> list[Callable[[Mapping[str, Tensor]], Tensor]]:
        """Draw fresh rows of every task; return the entropy of the answers to them, one loss a task."""
        return [self._loss(owner, task, pool) for (owner, task), pool in zip(self._questions, self._pools, strict=True)]

    def _loss(self, owner: Answering, task: TaskSpec, pool: RowPool) -> Callable[[Mapping[str, Tensor]], Tensor]:
        batch = pool.draw(self._size)
        self._vectors.context.count("samples", len(batch))

        def entropy(weights: Mapping[str, Tensor]) -> Tensor:
            return answer_entropy(task, self._vectors.outputs(owner, weights, batch, [task.name])[task.name])

        return entropy


def learn_coefficients(
    vectors: TaskVectors,
    coefficients: Coefficients,
    rows: EntropyRows,
    *,
    steps: int,
    learning_rate: float,
    changes: Mapping[str, Tensor] | None = None,
) -> list[float]:
    """Lower the entropy of all answers by Adam on the coefficients; return its sum over tasks at every step.

    Args:
        vectors: The models.
        coefficients: What learns.
        rows: Rows and their entropy.
        steps: Steps of Adam.
        learning_rate: Its rate.
        changes: In place of the models' changes (masked ones, say).
    """
    import torch

    optimizer = torch.optim.Adam([coefficients.values], lr=learning_rate)
    curve = []
    for _ in range(steps):
        optimizer.zero_grad()
        curve.append(sum(vectors.backward(vectors.combine(coefficients.by_name(), changes), rows.losses())))
        optimizer.step()
        vectors.context.count("steps")
    return curve


class AdaMerging(ModelMerger):
    """Learn the coefficients of task vectors without labels. Needs a base, networks, and rows.

    Args:
        config: Settings; see :class:`AdaMergingConfig`.
    """

    def __init__(self, config: AdaMergingConfig | None = None) -> None:
        self.config = config or AdaMergingConfig()
        self.weights: tuple[float, ...] | None = None
        """Mean coefficient of each model after a merge."""

    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> dict[str, Array]:
        """Return the merged tensors under the base's names.

        Raises:
            ConfigError: If base, networks, rows or tasks are missing.
            DataError: If the models do not fit together.
        """
        config = self.config
        vectors = TaskVectors(base, experts, context, exclude=config.exclude)
        if not vectors.names:
            return vectors.result({})
        coefficients = Coefficients(vectors, config.grain, config.scaling, clamp=config.clamp)
        rows = EntropyRows(vectors, config.role, config.batch_size, config.num_rows)
        learn_coefficients(vectors, coefficients, rows, steps=config.steps, learning_rate=config.learning_rate)
        self.weights = coefficients.means()
        return vectors.result(vectors.combine(coefficients.by_name()))

    def settings(self) -> Mapping[str, Any]:
        """Return the settings, and each model's mean coefficient once it is known."""
        return {"method": "adamerging", **asdict(self.config), "weights": self.weights}
