"""The multi-task step: forward pass, task losses, balancer, objectives, gradient transforms, one clipping norm per separate
model.

The pipeline of a step: per-task gradients and their aggregation (both inside the balancer), with the objectives' gradients on
top; transforms before the clipping, clipping, transforms after it (the loop's order). A batch may go through the model in parts,
and be shared by processes: the balancer then sees each part with its share of the batch's losses.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.interfaces.balancer import BackwardContext, Balancer, ForwardPass, Recompute, WeightBalancer
from graftwork.interfaces.binding import Binding, SuiteFacts
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.train_step import TrainStep
from graftwork.interfaces.transform import GradientContext, GradientTransform
from graftwork.tasks.losses import task_loss
from graftwork.training.config import TrainConfig
from graftwork.training.parallel import DataParallel
from graftwork.training.parts import check_shares, loss_shares, split_batch
from graftwork.training.replay import get_random_state, replaying, tracking_layers

__all__ = ["MultiTaskStep", "suite_facts"]


class MultiTaskStep(TrainStep[Batch]):
    """One step of a :class:`~graftwork.interfaces.shared_model.SharedModel`.

    Args:
        model: The model.
        tasks: The tasks, in the order of ``model.task_names``.
        stream: Where the batches come from: which labels can be missing, and how long an epoch is.
        balancer: Turns the task losses into gradients.
        objectives: Extra losses.
        transforms: What changes the gradients before the optimiser sees them, in this order.
        config: Settings.
        processes: The processes that share every batch; None for this one alone.

    Raises:
        ConfigError: If the balancer cannot take a batch in parts or shares.
    """

    model: SharedModel

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
        processes: DataParallel | None = None,
    ) -> None:
        check_shares(balancer, config.accumulate, processes)
        self.model, self.tasks, self.stream = model, tuple(tasks), stream
        self.loss_names = tuple(task.name for task in self.tasks)
        self.balancer, self.objectives, self.transforms = balancer, tuple(objectives), tuple(transforms)
        self.config, self.processes = config, processes
        self._device = torch.device("cpu")
        self._shared = [parameter for parameter in model.shared_parameters() if parameter.requires_grad]
        self._owned = [[p for p in model.task_parameters(task.name) if p.requires_grad] for task in self.tasks]
        # A plain weighted sum and the objectives share one backward pass; other balancers get the objectives' gradients first.
        self._one_pass = isinstance(balancer, WeightBalancer) and type(balancer).backward is WeightBalancer.backward
        self._tracking = tracking_layers(model)
        self._present: Tensor | None = None
        self._epoch_sum = torch.zeros(len(self.tasks))
        self._epoch_count = torch.zeros(len(self.tasks))

    def prepare(self, seeds: Seeds, device: torch.device) -> None:
        """Take the device, and bind balancer, objectives and transforms."""
        self._device = device
        self._epoch_sum, self._epoch_count = self._epoch_sum.to(device), self._epoch_count.to(device)
        # A pure function of the step: taking the first batch here changes nothing of the training.
        facts, example = suite_facts(self.stream, self.config.max_steps), self.stream.batch(0)
        parts: dict[str, Balancer | Objective | GradientTransform] = {"balancer": self.balancer}
        parts |= {f"objective/{index}": objective for index, objective in enumerate(self.objectives)}
        parts |= {f"transform/{index}": transform for index, transform in enumerate(self.transforms)}
        for name, part in parts.items():
            seed = seeds.integer(name)
            # Modules made in `bind` draw their first weights from the global generator: seeded for them, and as before for
            # everybody else.
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                part.bind(Binding(self.model, self.tasks, facts, example, device, seed))

    def modules(self) -> dict[str, nn.Module]:
        """Return the objectives' modules."""
        found = {f"objective/{index}": objective.module for index, objective in enumerate(self.objectives)}
        return {name: module for name, module in found.items() if module is not None}

    def parameters(self) -> list[nn.Parameter]:
        """Return what the balancer and the objectives learn themselves, outside of modules."""
        return [
            *self.balancer.parameters(),
            *(parameter for objective in self.objectives for parameter in objective.parameters()),
        ]

    def clipping_groups(self, learned: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Return one group per separate model and one of what objectives learn in modules of their own; all models in one if the
        balancer learns as well."""
        inside = [p for module in self.modules().values() for p in module.parameters() if p.requires_grad]
        own = {id(p) for p in inside}
        # A large gradient of an objective's own network (a domain classifier, say) must not shrink the step of the model: with
        # the objective's strength at zero, the model trains as it would without it.
        others = [p for p in learned if id(p) not in own]
        # One norm over separate models would let them hold each other back: those are clipped one by one.
        parts = [[p for p in part if p.requires_grad] for part in self.model.separate_parts()]
        groups = [part for part in parts if part]
        # A balancer's own parameters belong to no part: then everything is coupled anyway.
        whole = groups if len({id(p) for p in others}) == sum(map(len, groups)) else [others]
        return [*whole, inside] if inside else whole

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each task on a batch of the stream's training rows, shape ``[T]``."""
        robust, full = self.config.robust_regression, self.stream.fully_labelled
        return torch.stack(
            [
                task_loss(task, outputs[task.name], batch.targets[task.name], robust=robust, complete=task.name in full)
                for task in self.tasks
            ]
        )

    def backward(self, batch: Batch, step: int) -> Tensor:
        """Write gradients into ``.grad``; return the detached task losses ``[T]`` of this process' rows."""
        self._present = None
        # Shares would be exactly one: the plain means over labelled entries are the batch's losses.
        if self.config.accumulate == 1 and self.processes is None:
            return self._backward_part(batch, step)
        # Quotas stand one after the other in a batch; a run of rows would hold one role only.
        parts = split_batch(batch, self.config.accumulate, interleaved=len(self.stream.quotas) > 1)
        shares, self._present = loss_shares(parts, self.tasks, self.processes)
        losses = torch.zeros(len(self.tasks), device=self._device)
        for index, (part, share) in enumerate(zip(parts, shares, strict=True)):
            with self._draws(len(part), step):
                losses += self._backward_part(part, step, share, index, len(parts))
        return losses

    def _draws(self, rows: int, step: int) -> contextlib.AbstractContextManager[object]:
        if self.processes is None:
            return contextlib.nullcontext()
        return self.processes.draws(rows, len(self.stream.rows_of(step)), self.config.accumulate)

    def _backward_part(self, batch: Batch, step: int, share: Tensor | None = None, part: int = 0, parts: int = 1) -> Tensor:
        """Add the gradients of one part of the batch; ``share [T]`` is the part's share in the losses."""
        # The random state has to be remembered before the first pass, so it is asked for here and not when the balancer wants
        # the second one.
        recompute = self._make_recompute(batch) if self.balancer.needs_recompute else None
        outputs, losses, representation = self._forward(batch)
        if share is not None and self._present is not None:
            # A loss of exactly 0 tells balancers that a task has no labels in the batch. A task without labels in this part but
            # with some in another one must not look so: it gets the smallest number above 0, which no gradient notices.
            losses = losses * share + self._present * torch.finfo(losses.dtype).tiny
        extra = self._extra_loss(batch, step, outputs, losses, representation)
        if extra is not None and parts > 1:
            # Objectives are means over the rows that they see: the mean over parts is their value for the batch. Task losses were
            # weighted by their shares above.
            extra = extra / parts
        if self._one_pass and isinstance(self.balancer, WeightBalancer):
            # Everything is one scalar: a single backward pass, half the cost of two. The balancer's own `backward` would be the
            # same pass without the objectives. Terms that are no multiple of a loss (the log-variances of uncertainty weighting)
            # must count once a batch and not once a part: losses are scaled up to a batch's size, and the sum down again.
            total = self.balancer.scalarize(losses)[0] if parts == 1 else self.balancer.scalarize(losses * parts)[0] / parts
            total = total if extra is None else total + extra
            # No labels and frozen heads leave nothing to differentiate: a step that moves nothing, not an error.
            if total.requires_grad:
                total.backward()
            return losses.detach()
        if extra is not None and extra.requires_grad:
            # Before the balancer, which frees the graph. Its aggregation is about task gradients alone: objectives are added,
            # never balanced.
            extra.backward(retain_graph=True)
        processes = self.processes
        context = BackwardContext(
            self._shared,
            self._owned,
            representation,
            step,
            recompute,
            outputs,
            batch.inputs,
            self.tasks,
            part=part,
            parts=parts,
            processes=1 if processes is None else processes.size,
            # Aggregators need the rows of the whole batch, averaged over processes; averaging their result afterwards is not the
            # same.
            average=None if processes is None else processes.average,
        )
        self.balancer.backward(losses, context)
        return losses.detach()

    def _forward(self, batch: Batch) -> ForwardPass:
        half = self.config.autocast != "none"
        with contextlib.ExitStack() as watched, torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half):
            for objective in self.objectives:
                watched.enter_context(objective.watching(self.model))
            representation = self.model.encode_batch(batch)
            outputs = self.model.decode(representation)
        # Losses are computed in float32: logarithms of half-precision probabilities are too coarse.
        if half:
            outputs = {name: output.float() for name, output in outputs.items()}
        # Balancers that work on the representation need one tensor, not a tuple.
        return ForwardPass(outputs, self.losses(outputs, batch), representation if isinstance(representation, Tensor) else None)

    def _make_recompute(self, batch: Batch) -> Recompute:
        """Return what repeats the forward pass that is about to be made."""
        states = get_random_state(self._device)

        def recompute(inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
            with replaying(self._device, states, self._tracking):
                again = self._forward(batch if inputs is None else dataclasses.replace(batch, inputs=inputs))
            self.model.pop_auxiliary_loss()  # counted in the first pass
            return again

        return recompute

    def _extra_loss(
        self, batch: Batch, step: int, outputs: Mapping[str, Tensor], losses: Tensor, representation: Tensor | None
    ) -> Tensor | None:
        """Return the model's auxiliary loss and the objectives' terms, summed; None if there are none."""
        extra = self.model.pop_auxiliary_loss()
        for objective in self.objectives:
            term = objective.loss(ObjectiveInputs(batch, self.model, outputs, losses, representation, step))
            extra = term if extra is None else extra + term
        return extra

    def before_clipping(self, learned: Sequence[nn.Parameter], step: int) -> None:
        """Apply the transforms that clipping must see."""
        self._transform(learned, step, after=False)

    def after_clipping(self, learned: Sequence[nn.Parameter], step: int) -> None:
        """Apply the transforms that must not be clipped."""
        self._transform(learned, step, after=True)

    def _transform(self, learned: Sequence[nn.Parameter], step: int, *, after: bool) -> None:
        for transform in self.transforms:
            if transform.after_clipping == after:
                transform.apply(GradientContext(learned, self._shared, self._owned, step))

    def finish(self, batch: Batch, losses: Tensor, step: int) -> None:
        """Add the losses to the epoch's means, and hand them to the balancer where an epoch ends."""
        self._epoch_sum += losses
        # A task without labels has a loss of 0, which must not pull down its mean: only batches with labels count.
        if self.stream.complete:
            self._epoch_count += 1.0
        elif self._present is not None:
            self._epoch_count += self._present
        else:
            # Last, since looking at the masks costs time in every step.
            self._epoch_count += torch.stack([batch.mask[task.name].any() for task in self.tasks])
        if step % self.stream.steps_per_epoch == 0:
            # A task without any label in the epoch divides 0 by 1.
            self.balancer.end_epoch(self._epoch_sum / self._epoch_count.clamp(min=1.0))
            self._epoch_sum.zero_()
            self._epoch_count.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the memories of balancer, objectives and transforms, and the epoch's sums; the tensors are the live ones."""
        return {
            "balancer": self.balancer.state_dict(),
            "objectives": [objective.state_dict() for objective in self.objectives],
            "transforms": [transform.state_dict() for transform in self.transforms],
            "epoch_sum": self._epoch_sum,
            "epoch_count": self._epoch_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.balancer.load_state_dict(state["balancer"])
        for objective, values in zip(self.objectives, state["objectives"], strict=True):
            objective.load_state_dict(values)
        for transform, values in zip(self.transforms, state["transforms"], strict=True):
            transform.load_state_dict(values)
        self._epoch_sum.copy_(state["epoch_sum"])
        self._epoch_count.copy_(state["epoch_count"])


def suite_facts(stream: BatchStream, horizon: int) -> SuiteFacts:
    """Return what the parts of a plan may know of the rows that a stream draws from."""
    domain, names = stream.source.domain, stream.source.domain_names

    def count(rows: NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(int(number) for number in np.bincount(domain[rows], minlength=len(names)))

    return SuiteFacts(names, count(stream.rows), count(stream.unlabelled), stream.batch_size, stream.steps_per_epoch, horizon)
