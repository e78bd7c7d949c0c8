"""Linear models on the stored features of a frozen backbone, fitted to the end in one go.

Heads on features are a convex problem, so they need neither steps nor a schedule: each is fitted by L-BFGS for a few penalties,
and the penalty with the lowest validation loss counts. Features are standardised, which the stored heads undo, so that the
deployed model is that of any plan with linear heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.records import Ledger, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import inputs_to_torch
from graftwork.interfaces.learner import LearnerContext
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.heads import GlobalHead
from graftwork.nn.plain_optimizers import plain_optimizer
from graftwork.tasks.losses import task_loss
from graftwork.training.learner import NeuralLearner

__all__ = ["PENALTIES", "LinearProbeLearner", "fit_head"]

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
"""Half of this times the squared weights is added to the mean loss, the strongest first."""
_CHOOSING_ROWS = 5000
"""Training rows on which the penalty is chosen."""
_BATCH = 1024


def fit_head(
    task: TaskSpec, features: Tensor, target: Tensor, penalty: float, start: tuple[Tensor, Tensor], *, steps: int
) -> tuple[Tensor, Tensor]:
    """Return weights ``[K, width]`` and biases ``[K]`` of a linear head that have the lowest mean loss plus penalty.

    Args:
        task: The task; ``K`` is its number of raw outputs.
        features: ``[N, width]``, standardised.
        target: Targets of the rows, missing ones as the task says.
        penalty: Half of it times the squared weights is added; biases are free.
        start: Weights and biases to begin with.
        steps: Most iterations of L-BFGS.
    """
    weight, bias = (tensor.clone().requires_grad_() for tensor in start)
    optimizer = plain_optimizer(torch.optim.LBFGS)(
        [weight, bias], max_iter=steps, history_size=10, tolerance_grad=1e-6, tolerance_change=1e-8, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task_loss(task, features @ weight.T + bias, target) + 0.5 * penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


class LinearProbeLearner(NeuralLearner):
    """Fitted at the first call of :meth:`train`, which is its only step. Settings of the training loop do not apply.

    Args:
        context: A plan whose tuner keeps the features of the backbone fixed, and whose heads are linear.

    Raises:
        ConfigError: If the plan is another, or a task needs more than one vector of features a row.
    """

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        if not self._assembly.fronts:
            raise ConfigError(
                f"Plan {context.plan.name!r} fits linear models to one vector of stored features a row: it needs a tuner that "
                "keeps the backbone fixed (tuning = graftwork.methods.tuning.frozen:Frozen), and tasks with one answer a row."
            )
        self._heads = {task.name: _linear_head(self.model, task) for task in self.suite.tasks}

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Fit all heads, unless that is done."""
        if until < 1 or self.step:
            return
        torch.set_num_threads(self.context.threads)
        with self._costs.running():
            self.adopt(self._fitted(), 1)
        if on_progress is not None:
            on_progress(1)

    def _fitted(self) -> dict[str, Tensor]:
        """Return the parameters of the heads by their names in the model."""
        train, val = (np.asarray(self.suite.splits[name], dtype=np.int64) for name in ("train", "val"))
        features = self._features(train)
        mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
        spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
        features = (features - mean) / spread
        order = Seeds(self.context.seed).numpy("penalty").permutation(len(train))
        if len(val):
            # A model of all rows learns from those of validation, too, in the end: a penalty must not be judged by rows that it saw.
            unseen = order[~np.isin(train[order], val)]
            fit, held = np.sort(unseen[:_CHOOSING_ROWS]), (self._features(val) - mean) / spread
            held_rows = val
        else:  # a fifth of the training rows judges penalties
            cut = max(1, len(train) // 5)
            fit, held = np.sort(order[cut:][:_CHOOSING_ROWS]), features[torch.from_numpy(order[:cut])]
            held_rows = train[order[:cut]]
        found: dict[str, Tensor] = {}
        for task in self.suite.tasks:
            prefix, linear = self._heads[task.name]
            start = torch.zeros_like(linear.weight, device="cpu"), torch.zeros_like(linear.bias, device="cpu")
            penalty = _best_penalty(
                task, features[torch.from_numpy(fit)], self._target(task, train[fit]), held, self._target(task, held_rows), start
            )
            weight, bias = fit_head(task, features, self._target(task, train), penalty, start, steps=200)
            found[f"{prefix}.weight"] = weight / spread
            found[f"{prefix}.bias"] = bias - (weight / spread) @ mean
        return found

    def _target(self, task: TaskSpec, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.array(self.suite.targets[task.name][rows]))

    @torch.no_grad()
    def _features(self, rows: NDArray[np.int64]) -> Tensor:
        """Return what the heads' linear layers see, ``[n, width]``."""
        source: Mapping[str, NDArray[np.generic]] = self._stream.source.suite.inputs
        model = self.model.eval()
        norm = next(module for module in model.modules() if isinstance(module, GlobalHead)).norm  # untrained, so all are equal
        parts = []
        for start in range(0, max(len(rows), 1), _BATCH):
            part = inputs_to_torch(source, rows[start : start + _BATCH])
            encoded = model.encode({name: tensor.to(self._device) for name, tensor in part.items()})
            # Fitted on the CPU, wherever the features were made: few numbers, many small steps.
            parts.append(norm(encoded if isinstance(encoded, Tensor) else encoded[0]).cpu())
        return torch.cat(parts)

    def load(self, folder: Path) -> None:
        """Restore a checkpoint.

        Raises:
            CheckpointError: If it is damaged, or belongs to another plan, seed, suite, horizon, backbone or other overrides.
        """
        super().load(folder)
        self._adopted = 1 if self._best.is_filled else None

    def training_ledger(self) -> Ledger:
        """Return the costs of training alone; every training row was seen."""
        return replace(super().training_ledger(), samples=self.step * len(self.suite.splits["train"]))


def _best_penalty(
    task: TaskSpec, features: Tensor, target: Tensor, held: Tensor, wanted: Tensor, start: tuple[Tensor, Tensor]
) -> float:
    best, chosen, state = float("inf"), 0.1, start
    for penalty in PENALTIES:
        state = fit_head(task, features, target, penalty, state, steps=40)
        with torch.no_grad():
            loss = float(task_loss(task, held @ state[0].T + state[1], wanted))
        if loss < best:
            best, chosen = loss, penalty
        elif loss > 1.05 * best:  # weaker penalties only cost time
            break
    return chosen


def _linear_head(model: SharedModel, task: TaskSpec) -> tuple[str, nn.Linear]:
    """Return the linear layer of a task's head, and its name in the model."""
    own = {id(parameter) for parameter in model.task_parameters(task.name)}
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and {id(parameter) for parameter in module.parameters()} <= own
    ]
    if len(layers) != 1:
        raise ConfigError(
            f"Task {task.name!r} must have one linear layer on the vector of features; its head has {len(layers)}. Set "
            "head_hidden = 0 in the plan's sharing operator."
        )
    return layers[0]
