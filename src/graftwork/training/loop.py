"""The one training loop: model, balancer, objectives and data in; trained in slices, the same numbers however it is sliced.

A step: batch, forward pass, per-task gradients and their aggregation (the balancer), transforms and clipping, optimiser.

Nothing in a step waits for a value (no ``.item()``); divergence is noticed by a running sum that is looked at every now and then.
Dropout and other random modules draw from torch's global generator, which the loop swaps for its own stream during a slice. On one machine
with equal thread counts two loops with equal arguments end with equal bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import CheckpointError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.interfaces.balancer import BackwardContext, Balancer, ForwardPass, Recompute, WeightBalancer
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.transform import GradientContext, GradientTransform
from graftwork.tasks.losses import task_loss
from graftwork.training.augment import augment_batch, check_augmentation
from graftwork.training.averaging import WeightAverage
from graftwork.training.callbacks import Callback
from graftwork.training.config import TrainConfig
from graftwork.training.learned import copy_into, learned_state
from graftwork.training.optimizers import build_optimizer, load_optimizer_state, optimizer_state
from graftwork.training.parallel import DataParallel
from graftwork.training.parts import check_shares, loss_shares, split_batch
from graftwork.training.prediction import predict_rows
from graftwork.training.replay import get_random_state, replaying, tracking_layers
from graftwork.training.schedules import schedule_factor
from graftwork.training.watch import DivergenceWatch

__all__ = ["TrainConfig", "Trainer"]

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
        transforms: What changes the gradients before the optimiser sees them, in this order.
        config: Settings of the loop.
        seeds: Root of the random streams (``dropout``, ``augment``, one per transform).
        callbacks: Told about every step.
        device: Where model and batches live.
        processes: The processes that share every batch; None trains in this one alone.

    Raises:
        ConfigError: If nothing learns, the augmentation does not fit the data, or the balancer cannot take a batch in parts or shares.
    """

    def __init__(
        self,
        model: SharedModel,
        tasks: Sequence[TaskSpec],
        stream: BatchStream,
        *,
        balancer: Balancer,
        objectives: Sequence[Objective] = (),
        transforms: Sequence[GradientTransform] = (),
        config: TrainConfig,
        seeds: Seeds,
        callbacks: Sequence[Callback] = (),
        device: torch.device | str = "cpu",
        processes: DataParallel | None = None,
    ) -> None:
        self.model = model.to(device)
        self.processes = processes
        if processes is not None:
            processes.same_start(self.model)
        self.tasks = tuple(tasks)
        self.stream, self.balancer, self.objectives, self.transforms = stream, balancer, tuple(objectives), tuple(transforms)
        self.config, self.callbacks, self.device = config, tuple(callbacks), torch.device(device)
        self._step = 0
        check_shares(balancer, config.accumulate, processes)
        check_augmentation(config.augment, tuple(stream.source.suite.inputs), self.tasks)
        self._augment_seed = seeds.integer("augment")
        extra = [*balancer.parameters(), *(parameter for objective in self.objectives for parameter in objective.parameters())]
        self.optimizer = build_optimizer(model, extra, config)
        self._learned = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._shared = [parameter for parameter in model.shared_parameters() if parameter.requires_grad]
        self._owned = [[p for p in model.task_parameters(task.name) if p.requires_grad] for task in self.tasks]
        # One norm over separate models would let them hold each other back: those are clipped one by one.
        parts = [[p for p in part if p.requires_grad] for part in model.separate_parts()]
        self._clipped = [part for part in parts if part]
        if len({id(p) for p in self._learned}) != sum(map(len, self._clipped)):  # a balancer or an objective learns as well
            self._clipped = [self._learned]
        self._average = WeightAverage(model, config.ema_decay) if config.ema_decay > 0 else None
        # Built before any forward pass: copies of modules that hold a graph fail.
        self._eval_view = model if self._average is None else self._average.view_of(model)
        # A plain weighted sum and the objectives share one backward pass; other balancers get the objectives' gradients first.
        self._one_pass = isinstance(balancer, WeightBalancer) and type(balancer).backward is WeightBalancer.backward
        self._random = seeds.torch("dropout").get_state()
        for index, transform in enumerate(self.transforms):
            transform.start(seeds.integer(f"transform/{index}"))
        self._tracking = tracking_layers(model)
        self._epoch_sum = torch.zeros(len(self.tasks), device=self.device)
        self._epoch_count = torch.zeros(len(self.tasks), device=self.device)
        self._watch = DivergenceWatch([task.name for task in self.tasks], self.device)

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
        batch = self._next_batch()
        self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        losses, present = self._backward(batch)
        self._shape_gradients()
        self.optimizer.step()
        self._step += 1
        if self._average is not None:
            self._average.update(self._step)
        self._watch.add_losses(losses)
        self._follow_epoch(batch, losses, present)
        for callback in self.callbacks:
            callback.on_step(self, batch, losses)

    def _next_batch(self) -> Batch:
        rows = self.stream.rows_of(self._step)
        batch = self.stream.source.batch(rows if self.processes is None else self.processes.own_rows(rows))
        if self.config.augment != "none":
            batch = augment_batch(batch, self.config.augment, self.tasks, self._augment_seed, self._step)
        return batch

    def _set_rates(self) -> None:
        factor = schedule_factor(self.config.schedule, self._step, self.config.max_steps, self.config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _backward(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Write gradients into ``.grad``; return the detached losses ``[T]`` and which tasks have labels (None: see the batch)."""
        if self.config.accumulate == 1 and self.processes is None:
            return self._backward_part(batch), None
        parts = split_batch(batch, self.config.accumulate)
        shares, present = loss_shares(parts, self.tasks, self.processes)
        losses = torch.zeros(len(self.tasks), device=self.device)
        for index, (part, share) in enumerate(zip(parts, shares, strict=True)):
            losses += self._backward_part(part, share, present, index, len(parts))
        if self.processes is not None:
            self.processes.average_gradients(self._learned)
            losses = self.processes.average(losses)
        return losses, present

    def _backward_part(
        self, batch: Batch, share: Tensor | None = None, present: Tensor | None = None, part: int = 0, parts: int = 1
    ) -> Tensor:
        """Add the gradients of one part of the batch; ``share [T]`` is the part's share in the losses."""
        self.model.begin_batch(batch)
        recompute = self._make_recompute(batch) if self.balancer.needs_recompute else None
        outputs, losses, representation = self._forward(batch, batch.inputs)
        if share is not None and present is not None:
            # A loss of exactly 0 says that a task has no labels; one that has some elsewhere in the batch must not look like it.
            losses = losses * share + present * torch.finfo(losses.dtype).tiny
        extra = self._extra_loss(batch, outputs, losses, representation)
        if extra is not None and parts > 1:
            extra = extra / parts
        if self._one_pass and isinstance(self.balancer, WeightBalancer):
            # Terms that are no multiple of a loss (the log-variances of uncertainty weighting) must count once a batch: scaled up, then down.
            total = self.balancer.scalarize(losses)[0] if parts == 1 else self.balancer.scalarize(losses * parts)[0] / parts
            total = total if extra is None else total + extra
            if total.requires_grad:
                total.backward()
            return losses.detach()
        if extra is not None and extra.requires_grad:
            extra.backward(retain_graph=True)
        processes = self.processes
        context = BackwardContext(
            self._shared,
            self._owned,
            representation,
            self._step,
            recompute,
            outputs,
            batch.inputs,
            self.tasks,
            part=part,
            parts=parts,
            processes=1 if processes is None else processes.size,
            average=None if processes is None else processes.average,
        )
        self.balancer.backward(losses, context)
        return losses.detach()

    def _forward(self, batch: Batch, inputs: Mapping[str, Tensor]) -> ForwardPass:
        half = self.config.autocast != "none"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            representation = self.model.encode(inputs)
            outputs = self.model.decode(representation)
        if half:
            outputs = {name: output.float() for name, output in outputs.items()}
        return ForwardPass(outputs, self.losses(outputs, batch), representation if isinstance(representation, Tensor) else None)

    def _make_recompute(self, batch: Batch) -> Recompute:
        """Return what repeats the forward pass that is about to be made."""
        states = get_random_state(self.device)

        def recompute(inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
            with replaying(self.device, states, self._tracking):
                again = self._forward(batch, batch.inputs if inputs is None else inputs)
            self.model.pop_auxiliary_loss()  # counted in the first pass
            return again

        return recompute

    def _extra_loss(
        self, batch: Batch, outputs: Mapping[str, Tensor], losses: Tensor, representation: Tensor | None
    ) -> Tensor | None:
        """Return the model's auxiliary loss and the objectives' terms, summed; None if there are none."""
        extra = self.model.pop_auxiliary_loss()
        for objective in self.objectives:
            term = objective.loss(ObjectiveInputs(batch, self.model, outputs, losses, representation, self._step))
            extra = term if extra is None else extra + term
        return extra

    def _shape_gradients(self) -> None:
        """Clip, and let each transform act on its side of the clipping."""
        context = GradientContext(self._learned, self._shared, self._owned, self._step)
        for transform in self.transforms:
            if not transform.after_clipping:
                transform.apply(context)
        if self.config.grad_clip > 0:
            for parameters in self._clipped:
                self._watch.add_norm(nn.utils.clip_grad_norm_(parameters, self.config.grad_clip, foreach=True))
        for transform in self.transforms:
            if transform.after_clipping:
                transform.apply(context)

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each task on a batch of the stream's training rows, shape ``[T]``."""
        robust, full = self.config.robust_regression, self.stream.fully_labelled
        return torch.stack(
            [
                task_loss(task, outputs[task.name], batch.targets[task.name], robust=robust, complete=task.name in full)
                for task in self.tasks
            ]
        )

    def _follow_epoch(self, batch: Batch, losses: Tensor, present: Tensor | None) -> None:
        self._epoch_sum += losses
        if self.stream.complete:
            self._epoch_count += 1.0
        elif present is not None:
            self._epoch_count += present
        else:
            self._epoch_count += torch.stack([batch.mask[task.name].any() for task in self.tasks])
        if self._step % self.stream.steps_per_epoch == 0:
            self.balancer.end_epoch(self._epoch_sum / self._epoch_count.clamp(min=1.0))
            self._epoch_sum.zero_()
            self._epoch_count.zero_()

    def _check_finite(self, weights: bool = False) -> None:
        advice = (
            f"Lower learning_rate (now {self.config.learning_rate:g}) or grad_clip (now {self.config.grad_clip:g}), "
            "or look for extreme values in the data."
        )
        self._watch.check(self._step, advice, self._learned if weights else ())

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
        return predict_rows(self.eval_model(), self.tasks, source, rows, tasks, batch_size=batch_size, device=self.device)

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
            "transforms": [transform.state_dict() for transform in self.transforms],
            "objective_parameters": [[p.detach() for p in objective.parameters()] for objective in self.objectives],
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "epoch_sum": self._epoch_sum,
            "epoch_count": self._epoch_count,
            "watch": self._watch.state_dict(),
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
        copy_into(self.balancer.parameters(), state["balancer_parameters"])
        for objective, values, parameters in zip(
            self.objectives, state["objectives"], state["objective_parameters"], strict=True
        ):
            objective.load_state_dict(values)
            copy_into(objective.parameters(), parameters)
        for transform, values in zip(self.transforms, state["transforms"], strict=True):
            transform.load_state_dict(values)
        for callback, values in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(values)
        self._watch.load_state_dict(state["watch"])
        self._epoch_sum.copy_(state["epoch_sum"])
        self._epoch_count.copy_(state["epoch_count"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
