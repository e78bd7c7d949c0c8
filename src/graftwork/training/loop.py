"""The one training loop: model, balancer, objectives and data in; trained in slices, the same numbers however it is sliced.

Nothing in a step waits for a value (no ``.item()``); divergence is noticed by a running sum that is looked at every now and then.
Dropout and other random modules draw from torch's global generator, which the loop swaps for its own stream during a slice. On one machine
with equal thread counts two loops with equal arguments end with equal bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import CheckpointError, TrainingDivergedError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream, RowSource
from graftwork.data.suite import Suite
from graftwork.interfaces.balancer import BackwardContext, Balancer, WeightBalancer
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import task_loss
from graftwork.training.augment import augment_batch, check_augmentation
from graftwork.training.averaging import WeightAverage
from graftwork.training.callbacks import Callback
from graftwork.training.config import TrainConfig
from graftwork.training.optimizers import build_optimizer, load_optimizer_state, optimizer_state
from graftwork.training.schedules import schedule_factor

__all__ = ["TrainConfig", "Trainer", "learned_state"]

WATCH_EVERY = 50
"""Steps between looks at the running sum that tells divergence."""


class Trainer:
    """Trains a :class:`~graftwork.interfaces.shared_model.SharedModel`.

    Args:
        model: The model; it is trained in place.
        tasks: The tasks, in the order of ``model.task_names``.
        stream: Where batches come from.
        balancer: Turns the task losses into gradients.
        objectives: Extra losses.
        config: Settings of the loop.
        seeds: Root of the random streams (``dropout``, ``augment``).
        callbacks: Told about every step.
        device: Where model and batches live.

    Raises:
        ConfigError: If nothing learns, or the augmentation does not fit the data.
    """

    def __init__(
        self,
        model: SharedModel,
        tasks: Sequence[TaskSpec],
        stream: BatchStream,
        *,
        balancer: Balancer,
        objectives: Sequence[Objective] = (),
        config: TrainConfig,
        seeds: Seeds,
        callbacks: Sequence[Callback] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model.to(device)
        self.tasks = tuple(tasks)
        self.stream, self.balancer, self.objectives = stream, balancer, tuple(objectives)
        self.config, self.callbacks, self.device = config, tuple(callbacks), torch.device(device)
        self._step = 0
        check_augmentation(config.augment, tuple(stream.source.suite.inputs), self.tasks)
        self._augment_seed = seeds.integer("augment")
        extra = [*balancer.parameters(), *(parameter for objective in self.objectives for parameter in objective.parameters())]
        self.optimizer = build_optimizer(model, extra, config)
        self._learned = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._shared = [parameter for parameter in model.shared_parameters() if parameter.requires_grad]
        self._owned = [[p for p in model.task_parameters(task.name) if p.requires_grad] for task in self.tasks]
        # One norm over separate models would let them hold each other back: those are clipped one by one.
        self._clipped = [owned for owned in self._owned if owned]
        if self._shared or len({id(p) for p in self._learned}) != sum(map(len, self._clipped)):
            self._clipped = [self._learned]
        self._average = WeightAverage(model, config.ema_decay) if config.ema_decay > 0 else None
        # Built before any forward pass: copies of modules that hold a graph fail.
        self._eval_view = model if self._average is None else self._average.view_of(model)
        # A plain weighted sum and the objectives share one backward pass; other balancers get the objectives' gradients first.
        self._one_pass = isinstance(balancer, WeightBalancer) and type(balancer).backward is WeightBalancer.backward
        self._random = seeds.torch("dropout").get_state()
        self._epoch_sum = torch.zeros(len(self.tasks), device=self.device)
        self._epoch_count = torch.zeros(len(self.tasks), device=self.device)
        self._watch = torch.zeros((), device=self.device)
        self._finite_steps = torch.zeros(len(self.tasks), device=self.device)
        self._watched_steps = 0

    @property
    def step(self) -> int:
        """Number of finished steps."""
        return self._step

    def train(self, until: int, on_progress: Callable[[int], None] | None = None) -> None:
        """Train until ``step == until``.

        Args:
            until: Step to stop at; nothing happens if it is reached already.
            on_progress: Called after every step with the step; it may raise to stop, and the trainer is then still whole.

        Raises:
            TrainingDivergedError: If a loss, a gradient or a weight became NaN or infinite.
        """
        if until <= self._step:
            return
        self.model.train()
        with self._own_random_state():
            for callback in self.callbacks:
                callback.on_start(self)
            try:
                while self._step < until:
                    self._train_step()
                    if self._step % WATCH_EVERY == 0:
                        self._check_finite()
                    if on_progress is not None:
                        on_progress(self._step)
                self._check_finite(weights=True)
            finally:
                for callback in self.callbacks:
                    callback.on_end(self)

    def _train_step(self) -> None:
        batch = self.stream.batch(self._step)
        if self.config.augment != "none":
            batch = augment_batch(batch, self.config.augment, self.tasks, self._augment_seed, self._step)
        factor = schedule_factor(self.config.schedule, self._step, self.config.max_steps, self.config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(batch)
        if self.config.grad_clip > 0:
            for parameters in self._clipped:
                self._watch += nn.utils.clip_grad_norm_(parameters, self.config.grad_clip, foreach=True)
        self.optimizer.step()
        self._step += 1
        if self._average is not None:
            self._average.update(self._step)
        self._finite_steps += torch.isfinite(losses)
        self._watched_steps += 1
        self._follow_epoch(batch, losses)
        for callback in self.callbacks:
            callback.on_step(self, batch, losses)

    def _backward(self, batch: Batch) -> Tensor:
        """Write gradients into ``.grad`` and return the detached losses ``[T]``."""
        representation = self.model.encode(batch.inputs)
        outputs = self.model.decode(representation)
        losses = self.losses(outputs, batch)
        shown = representation if isinstance(representation, Tensor) else None
        extra = self.model.pop_auxiliary_loss()
        for objective in self.objectives:
            term = objective.loss(ObjectiveInputs(batch, self.model, outputs, losses, shown, self._step))
            extra = term if extra is None else extra + term
        if self._one_pass and isinstance(self.balancer, WeightBalancer):
            total, _ = self.balancer.scalarize(losses)
            total = total if extra is None else total + extra
            if total.requires_grad:
                total.backward()
            return losses.detach()
        if extra is not None and extra.requires_grad:
            extra.backward(retain_graph=True)
        self.balancer.backward(losses, BackwardContext(self._shared, self._owned, shown, self._step))
        return losses.detach()

    def losses(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each task on a batch of the stream's training rows, shape ``[T]``."""
        robust, full = self.config.robust_regression, self.stream.fully_labelled
        return torch.stack(
            [
                task_loss(task, outputs[task.name], batch.targets[task.name], robust=robust, complete=task.name in full)
                for task in self.tasks
            ]
        )

    def _follow_epoch(self, batch: Batch, losses: Tensor) -> None:
        self._epoch_sum += losses
        if self.stream.complete:
            self._epoch_count += 1.0
        else:
            self._epoch_count += torch.stack([batch.mask[task.name].any() for task in self.tasks])
        if self._step % self.stream.steps_per_epoch == 0:
            self.balancer.end_epoch(self._epoch_sum / self._epoch_count.clamp(min=1.0))
            self._epoch_sum.zero_()
            self._epoch_count.zero_()

    def _check_finite(self, weights: bool = False) -> None:
        watched = self._watch
        if weights:
            watched = watched + torch.stack(torch._foreach_norm([parameter.detach() for parameter in self._learned])).sum()
        finite = self._finite_steps.tolist()
        if min(finite) < self._watched_steps or not bool(torch.isfinite(watched)):
            # One step later everything is NaN: the culprit is the task that was finite for the fewest steps.
            broken = [task.name for task, count in zip(self.tasks, finite, strict=True) if count == min(finite)]
            where = f"the loss of {', '.join(broken)}" if min(finite) < self._watched_steps else "a gradient or weight"
            raise TrainingDivergedError(
                f"Training diverged: {where} became NaN or infinite by step {self._step}. Lower learning_rate (now "
                f"{self.config.learning_rate:g}) or grad_clip (now {self.config.grad_clip:g}), or look for extreme values in the data."
            )
        self._watch.zero_()
        self._finite_steps.zero_()
        self._watched_steps = 0

    @contextlib.contextmanager
    def _own_random_state(self) -> Iterator[None]:
        outside = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(outside)

    def eval_model(self) -> SharedModel:
        """Return the model to predict with, in evaluation mode: averaged weights if there are any, else the trained model itself."""
        return self._eval_view.eval()

    @torch.inference_mode()
    def predict(
        self, source: BatchStream | Suite, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, batch_size: int = 256
    ) -> dict[str, NDArray[Any]]:
        """Return decoded predictions of :meth:`eval_model` for some rows, in their order.

        Args:
            source: The suite, or a stream over it.
            rows: Row numbers.
            tasks: Names of the tasks; None takes all. What is not asked is not computed.
            batch_size: Rows at a time; part of the result for models whose rows see each other.
        """
        suite_rows = source.source if isinstance(source, BatchStream) else RowSource(source, self.device)
        model = self.eval_model()
        wanted = [task for task in self.tasks if tasks is None or task.name in tasks]
        parts: dict[str, list[Tensor]] = {task.name: [] for task in wanted}
        for start in range(0, len(rows), batch_size):
            batch = suite_rows.batch(np.asarray(rows[start : start + batch_size], dtype=np.int64))
            outputs = model(batch.inputs, tuple(parts))
            for task in wanted:
                parts[task.name].append(decode_output(task, outputs[task.name]).cpu())
        return {name: torch.cat(chunks).numpy() if chunks else np.zeros((0,), dtype=np.float32) for name, chunks in parts.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all state as nested tensors and JSON values (see ``training.checkpoints``); frozen parameters are left out.

        The tensors are the live ones: write them to a file, or copy them, before training goes on.
        """
        state: dict[str, Any] = {
            "step": self._step,
            "model": learned_state(self.model),
            "optimizer": optimizer_state(self.optimizer),
            "random": self._random.clone(),
            "balancer": self.balancer.state_dict(),
            "balancer_parameters": [parameter.detach() for parameter in self.balancer.parameters()],
            "objectives": [objective.state_dict() for objective in self.objectives],
            "objective_parameters": [[p.detach() for p in objective.parameters()] for objective in self.objectives],
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "epoch_sum": self._epoch_sum,
            "epoch_count": self._epoch_count,
            "watch": self._watch,
            "finite_steps": self._finite_steps,
            "watched_steps": self._watched_steps,
        }
        if self._average is not None:
            state["average"] = self._average.state_dict()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict` into a trainer built from equal arguments.

        Raises:
            CheckpointError: If the state is of another model or other settings.
        """
        missing = set(learned_state(self.model)) ^ set(state["model"])
        if missing or ("average" in state) != (self._average is not None):
            detail = (
                f"these tensors are in one of both only: {', '.join(sorted(missing)[:5])}"
                if missing
                else "weight averaging differs"
            )
            raise CheckpointError(f"The checkpoint belongs to another model: {detail}. Start the run again without --resume.")
        self.model.load_state_dict(state["model"], strict=False)
        load_optimizer_state(self.optimizer, state["optimizer"])
        self._step = int(state["step"])
        self._random = state["random"].clone()
        self.balancer.load_state_dict(state["balancer"])
        _copy_into(self.balancer.parameters(), state["balancer_parameters"])
        for objective, values, parameters in zip(
            self.objectives, state["objectives"], state["objective_parameters"], strict=True
        ):
            objective.load_state_dict(values)
            _copy_into(objective.parameters(), parameters)
        for callback, values in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(values)
        self._watched_steps = int(state["watched_steps"])
        for name in ("epoch_sum", "epoch_count", "watch", "finite_steps"):
            getattr(self, f"_{name}").copy_(state[name])
        if self._average is not None:
            self._average.load_state_dict(state["average"])


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: parameters that require gradients, and all persistent buffers, by name."""
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in frozen}


def _copy_into(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
