"""Concrete merging: one learned mask over all parameters, shared by all task vectors, so that they disturb each other less.

Paper: Tang et al., "Concrete Subspace Learning based Interference Elimination for Multi-task Model Fusion", 2023,
https://arxiv.org/abs/2312.06173

Every entry has a logit ``s``. A mask is drawn as ``m = sigmoid((s + log u - log(1 - u)) / temperature)`` with ``u`` uniform, and the
change of a tensor becomes ``m * change / mean(m)``. Masked changes are merged by task arithmetic with a fixed factor, or by
AdaMerging. The logits learn from the entropy of the merged model's answers on rows without labels, by Adam. With AdaMerging each
step first moves the coefficients, from their first values, by one large step of Adam against the entropy on other rows (first
order: the logits do not see that step); after the logits have learned, a mask is drawn and the coefficients learn with it.

Departures: the rows are validation rows in place of test rows; see :mod:`graftwork.methods.merging.adamerging` for which rows are of
which task. ``shuffle`` is a control that the paper does not have: learned logits in a random order within each tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.methods.merging.adamerging import EntropyRows, check_learning, learn_coefficients
from graftwork.methods.merging.learned_coefficients import Coefficients, Grain, detached
from graftwork.methods.merging.task_vectors import TaskVectors

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["ConcreteConfig", "ConcreteMask", "ConcreteMerging"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConcreteConfig:
    """Settings of concrete merging (Tang et al., 2023)."""

    rule: Literal["task-arithmetic", "adamerging"] = "task-arithmetic"
    """How masked changes are merged."""
    scaling: float = 0.3
    """Factor of task arithmetic, or value of all coefficients at the start."""
    temperature: float = 0.5
    """Of the relaxed masks; near 0 they are 0 or 1."""
    steps: int = 2000
    """Steps in which the logits learn."""
    learning_rate: float = 1e-3
    """Of the logits."""
    batch_size: int = 16
    """Rows of each task a step."""
    grain: Grain = "tensor"
    """Of AdaMerging: a coefficient for each model and tensor, or one for each model."""
    inner_rate: float = 1.0
    """Of AdaMerging: how far coefficients move in the step before each step of the logits."""
    adapt_steps: int = 1000
    """Of AdaMerging: steps in which the coefficients learn in the end."""
    adapt_rate: float = 1e-3
    """Of AdaMerging: their learning rate."""
    binary: bool = False
    """Whether the mask in the end is 1 where an entry is more likely kept than not, and 0 elsewhere; otherwise it is drawn."""
    shuffle: bool = False
    """Whether the learned logits of each tensor are put in a random order: a control with as many entries kept."""
    role: str = "val"
    """Rows that it learns from; their labels are not used."""
    num_rows: int = 1024
    """Most rows of a task."""
    exclude: tuple[str, ...] = ()
    """Shell patterns of tensors that keep the base's values."""

    def __post_init__(self) -> None:
        check_learning(self.steps, self.learning_rate, self.batch_size, self.num_rows)
        check_learning(self.adapt_steps, self.adapt_rate, self.batch_size, self.num_rows)
        if not 0.0 < self.temperature < float("inf") or not 0.0 <= self.inner_rate < float("inf"):
            raise ConfigError(
                f"`temperature` must be above 0 and `inner_rate` at least 0; got {self.temperature!r} and {self.inner_rate!r}."
            )


class ConcreteMask:
    """Logits of all entries, 0 at the start, and masks drawn from them.

    Args:
        shapes: Tensors of the shapes and on the device of what is masked, by name.
        temperature: Of the relaxed masks.
        generator: Draws the noise.
    """

    def __init__(self, shapes: Mapping[str, Tensor], temperature: float, generator: Generator) -> None:
        import torch

        self.temperature = temperature
        self._generator = generator
        self.logits: dict[str, Tensor] = {
            name: torch.zeros_like(value, dtype=torch.float32).requires_grad_() for name, value in shapes.items()
        }

    def draw(self) -> dict[str, Tensor]:
        """Return a mask, each tensor divided by its mean; gradients flow to the logits."""
        import torch

        found = {}
        for name, logits in self.logits.items():
            # Drawn on the CPU, so that all devices get the same noise; 0 and 1 themselves have no logit.
            noise = torch.rand(logits.shape, generator=self._generator).clamp(1e-6, 1.0 - 1e-6).logit().to(logits.device)
            mask = ((logits + noise) / self.temperature).sigmoid()
            found[name] = mask / mask.mean()
        return found

    def binary(self) -> dict[str, Tensor]:
        """Return 1 where an entry is kept at least half of the time and 0 elsewhere, each tensor divided by its mean."""
        found = {}
        for name, logits in self.logits.items():
            mask = (logits.detach() >= 0.0).to(logits.dtype)
            # A tensor of which nothing is kept stays as the base has it.
            found[name] = mask / mask.mean().clamp(min=1.0 / max(mask.numel(), 1))
        return found

    def shuffle(self) -> None:
        """Put the logits of each tensor in a random order."""
        import torch

        for name, logits in self.logits.items():
            order = torch.randperm(logits.numel(), generator=self._generator).to(logits.device)
            self.logits[name] = logits.detach().flatten()[order].reshape(logits.shape)

    def kept(self) -> float:
        """Return the mean probability with which an entry is kept, in [0, 1]."""
        total = sum(float(logits.detach().sigmoid().sum()) for logits in self.logits.values())
        return total / max(sum(logits.numel() for logits in self.logits.values()), 1)


class ConcreteMerging(ModelMerger):
    """Learn a mask common to all task vectors, then merge what it leaves. Needs a base, networks, and rows.

    Args:
        config: Settings; see :class:`ConcreteConfig`.
    """

    def __init__(self, config: ConcreteConfig | None = None) -> None:
        self.config = config or ConcreteConfig()
        self.weights: tuple[float, ...] | None = None
        """Mean coefficient of each model after a merge."""
        self.kept: float | None = None
        """Mean probability with which an entry is kept, after a merge."""

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
        rows = EntropyRows(vectors, config.role, config.batch_size, config.num_rows)
        mask = ConcreteMask(vectors.start, config.temperature, Seeds(context.seed).torch("masks"))
        adaptive = config.rule == "adamerging"
        grain: Grain = config.grain if adaptive else "model"
        coefficients = Coefficients(vectors, grain, config.scaling, clamp=adaptive)
        self._learn_mask(vectors, mask, coefficients, rows)
        if config.shuffle:
            mask.shuffle()
        drawn = mask.binary() if config.binary else detached(mask.draw())
        if adaptive:
            coefficients.reset()
            masked = {name: change * drawn[name].to(change.dtype) for name, change in vectors.changes.items()}
            learn_coefficients(
                vectors, coefficients, rows, steps=config.adapt_steps, learning_rate=config.adapt_rate, changes=masked
            )
        self.weights, self.kept = coefficients.means(), mask.kept()
        return vectors.result(detached(masked_weights(vectors, merged_changes(vectors, coefficients), drawn)))

    def _learn_mask(self, vectors: TaskVectors, mask: ConcreteMask, coefficients: Coefficients, rows: EntropyRows) -> None:
        import torch

        config = self.config
        optimizer = torch.optim.Adam(list(mask.logits.values()), lr=config.learning_rate)
        changes = merged_changes(vectors, coefficients)
        for _ in range(config.steps):
            drawn = mask.draw()
            if config.rule == "adamerging":
                self._inner_step(vectors, detached(drawn), coefficients, rows)
                changes = merged_changes(vectors, coefficients)
            optimizer.zero_grad()
            vectors.backward(masked_weights(vectors, changes, drawn), rows.losses())
            optimizer.step()
            vectors.context.count("steps")

    def _inner_step(
        self, vectors: TaskVectors, drawn: Mapping[str, Tensor], coefficients: Coefficients, rows: EntropyRows
    ) -> None:
        import torch

        # From the first values each time: coefficients that went on from step to step would be another method.
        coefficients.reset()
        optimizer = torch.optim.Adam([coefficients.values], lr=self.config.inner_rate)
        vectors.backward(masked_weights(vectors, vectors.sums(coefficients.by_name()), drawn), rows.losses())
        optimizer.step()
        vectors.context.count("steps")

    def settings(self) -> Mapping[str, Any]:
        """Return the settings, and what is known after a merge: mean coefficients and the share of entries kept."""
        return {"method": "concrete-merging", **asdict(self.config), "weights": self.weights, "kept": self.kept}


def merged_changes(vectors: TaskVectors, coefficients: Coefficients) -> dict[str, Tensor]:
    """Return the sum of all changes times their coefficients, before any mask, without a graph."""
    return vectors.sums(detached(coefficients.by_name()))


def masked_weights(vectors: TaskVectors, changes: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the base plus masked changes. The mask is common to all models, so that it multiplies their sum."""
    return {name: start + changes[name] * mask[name].to(start.dtype) for name, start in vectors.start.items()}
