"""The one training loop: a step and a source of batches in; trained in slices, the same numbers however it is sliced.

The loop owns what every training needs: optimiser, schedule, clipping, averaged weights, the watch for divergence, callbacks,
state for checkpoints. What is computed in a step is a :class:`~graftwork.interfaces.train_step.TrainStep`; tasks, balancers and
objectives are one of them (:class:`~graftwork.training.trainer.Trainer`), denoising, contrast or a policy are others.

Nothing in a step waits for a value (no ``.item()``); divergence is noticed by running sums that are looked at every now and then.
Dropout, noise and all other draws in a step come from torch's global generators, that of the CPU and that of the model's device,
which the loop swaps for its own stream during a slice. On one machine with equal thread counts two loops with equal arguments end
with equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from graftwork.core.errors import CheckpointError
from graftwork.core.seeds import Seeds
from graftwork.interfaces.callback import Callback
from graftwork.interfaces.train_step import BatchSource, TrainStep
from graftwork.training.averaging import WeightAverage
from graftwork.training.config import LoopConfig
from graftwork.training.learned import copy_into, learned_state
from graftwork.training.optimizers import build_optimizer, load_optimizer_state, optimizer_state
from graftwork.training.parallel import DataParallel
from graftwork.training.random_state import RandomStream
from graftwork.training.schedules import schedule_factor
from graftwork.training.watch import DivergenceWatch

__all__ = ["Loop"]

WATCH_EVERY = 50
"""Steps between looks at the running sums that tell divergence."""

BatchT = TypeVar("BatchT")


class Loop(Generic[BatchT]):
    """Trains the model of a step.

    Args:
        train_step: What is computed in a step; its model is trained in place.
        source: Where batches come from.
        config: Settings of the loop.
        seeds: Root of the random streams: ``dropout`` is the loop's own (all that a step draws from torch's global generator);
            the step takes others.
        callbacks: Called after every step.
        device: Where the model lives.
        processes: The processes that share every step; None trains in this one alone.

    Raises:
        ConfigError: If nothing learns, or the step refuses.
    """

    def __init__(
        self,
        train_step: TrainStep[BatchT],
        source: BatchSource[BatchT],
        *,
        config: LoopConfig,
        seeds: Seeds,
        callbacks: Sequence[Callback] = (),
        device: torch.device | str = "cpu",
        processes: DataParallel | None = None,
    ) -> None:
        self.device, self.processes = torch.device(device), processes
        self.train_step, self.source, self.config, self.callbacks = train_step, source, config, tuple(callbacks)
        self.model: nn.Module = train_step.model.to(self.device)
        self._step = 0
        # First of all: binding may add modules and parameters, which the optimiser has to know.
        train_step.prepare(seeds, self.device)
        self._modules = {name: module.to(self.device) for name, module in train_step.modules().items()}
        if processes is not None:
            for module in (self.model, *self._modules.values()):
                processes.same_start(module)
        self._extra = train_step.parameters()
        self.optimizer = build_optimizer(self.model, self._extra, config, list(self._modules.values()))
        self._learned = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._clipped = train_step.clipping_groups(self._learned)
        self._average = WeightAverage(self.model, config.ema_decay) if config.ema_decay > 0 else None
        # Built before any forward pass: copies of modules that hold a graph fail.
        self._eval_view = self.model if self._average is None else self._average.view_of(self.model)
        self._random = RandomStream(seeds, "dropout", self.device)
        self._watch = DivergenceWatch(train_step.loss_names, self.device)

    @property
    def step(self) -> int:
        """Number of finished steps."""
        return self._step

    def train(self, until: int, on_progress: Callable[[int], None] | None = None) -> None:
        """Train until ``step == until``.

        Args:
            until: Step to stop at; nothing happens if it is reached already.
            on_progress: Called after every step with the step; it may raise to stop, and the loop is then still whole.

        Raises:
            TrainingDivergedError: If a loss, a gradient or a weight became NaN or infinite.
        """
        if until <= self._step:
            return
        for module in (self.model, *self._modules.values()):
            module.train()
        with self._random.swapped():
            for callback in self.callbacks:
                callback.on_start(self)
            try:
                while self._step < until:
                    self._train_step()
                    if self._step % WATCH_EVERY == 0:
                        self._check_finite()
                    if on_progress is not None:
                        on_progress(self._step)
                # The last step may have broken the weights after its loss was looked at.
                self._check_finite(weights=True)
            finally:
                for callback in self.callbacks:
                    callback.on_end(self)

    def _train_step(self) -> None:
        batch = self.source.batch(self._step)
        self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.train_step.backward(batch, self._step)
        if self.processes is not None:
            # By hand, in one message, and not by hooks: a step may make several backward passes, each of which would send its
            # part.
            self.processes.average_gradients(self._learned)
            losses = self.processes.average(losses)
        self.train_step.before_clipping(self._learned, self._step)
        self._clip()
        self.train_step.after_clipping(self._learned, self._step)
        self.optimizer.step()
        # Before the average, which counts finished steps.
        self._step += 1
        if self._average is not None:
            self._average.update(self._step)
        self._watch.add_losses(losses)
        self.train_step.finish(batch, losses, self._step)
        for callback in self.callbacks:
            callback.on_step(self, batch, losses)

    def _set_rates(self) -> None:
        factor = schedule_factor(self.config.schedule, self._step, self.config.max_steps, self.config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _clip(self) -> None:
        if self.config.grad_clip > 0:
            for parameters in self._clipped:
                self._watch.add_norm(nn.utils.clip_grad_norm_(parameters, self.config.grad_clip, foreach=True))

    def _check_finite(self, weights: bool = False) -> None:
        advice = (
            f"Lower learning_rate (now {self.config.learning_rate:g}) or grad_clip (now {self.config.grad_clip:g}), "
            "or look for extreme values in the data."
        )
        self._watch.check(self._step, advice, self._learned if weights else ())

    def eval_model(self) -> nn.Module:
        """Return the model to predict with, in evaluation mode: averaged weights if there are any, else the trained model
        itself."""
        return self._eval_view.eval()

    def state_dict(self) -> dict[str, Any]:
        """Return all state as nested tensors and JSON values (see ``training.checkpoints``); frozen parameters of the model are
        left out.

        The tensors are the live ones: write them to a file, or copy them, before training goes on.
        """
        state: dict[str, Any] = {
            "step": self._step,
            "model": learned_state(self.model),
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "parameters": [parameter.detach() for parameter in self._extra],
            "optimizer": optimizer_state(self.optimizer),
            **self._random.state_dict(),
            "train_step": self.train_step.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "watch": self._watch.state_dict(),
        }
        if self._average is not None:
            state["average"] = self._average.state_dict()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict` into a loop built from equal arguments.

        Raises:
            CheckpointError: If the state is of another model or other settings.
        """
        self._check_state(state)
        # Frozen tensors are not in the state; `_check_state` has made sure that nothing else is missing.
        self.model.load_state_dict(state["model"], strict=False)
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self._step = int(state["step"])
        self._random.load_state_dict(state)
        self.train_step.load_state_dict(state["train_step"])
        copy_into(self._extra, state["parameters"])
        for callback, values in zip(self.callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(values)
        self._watch.load_state_dict(state["watch"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])

    def _check_state(self, state: dict[str, Any]) -> None:
        mine = set(learned_state(self.model))
        theirs = set(state["model"])
        for name, module in self._modules.items():
            mine |= {f"{name}: {key}" for key in module.state_dict()}
        for name, tensors in state["modules"].items():
            theirs |= {f"{name}: {key}" for key in tensors}
        # Both ways, since the loading is not strict.
        alone = sorted(mine ^ theirs)
        if alone:
            detail = f"these tensors are in one of both only: {', '.join(alone[:5])}"
        elif ("average" in state) != (self._average is not None):
            detail = "weight averaging differs"
        elif len(state["parameters"]) != len(self._extra):
            detail = f"it has {len(state['parameters'])} parameters outside of modules, this training has {len(self._extra)}"
        else:
            return
        raise CheckpointError(f"The checkpoint belongs to another model: {detail}. Start the run again without --resume.")
