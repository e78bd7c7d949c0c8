"""Trains a shared model on tasks: the loop with the multi-task step and the rows of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.interfaces.balancer import Balancer
from graftwork.interfaces.callback import Callback
from graftwork.interfaces.objective import Objective
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.transform import GradientTransform
from graftwork.training.augment import augment_batch, check_augmentation
from graftwork.training.config import TrainConfig
from graftwork.training.loop import Loop
from graftwork.training.multitask import MultiTaskStep
from graftwork.training.parallel import DataParallel
from graftwork.training.prediction import predict_rows

__all__ = ["TaskBatches", "TrainConfig", "Trainer"]


class TaskBatches:
    """The rows of a stream, this process' share of them, pictures changed at random: a source of batches, and a pure function of
    the step.

    Args:
        stream: Which rows make up a step.
        tasks: The tasks.
        config: ``augment`` is read.
        seed: Seed of the augmentation.
        processes: The processes that share every batch.

    Raises:
        ConfigError: If the augmentation does not fit the data.
    """

    def __init__(
        self,
        stream: BatchStream,
        tasks: Sequence[TaskSpec],
        config: TrainConfig,
        seed: int,
        processes: DataParallel | None = None,
    ) -> None:
        check_augmentation(config.augment, tuple(stream.source.suite.inputs), tuple(tasks))
        self.stream, self.tasks, self.augment, self.processes = stream, tuple(tasks), config.augment, processes
        self._seed = seed

    def batch(self, step: int) -> Batch:
        """Return the batch of ``step``."""
        # Drawn for the whole batch in every process, then shared: the rows do not depend on the number of processes.
        rows = self.stream.rows_of(step)
        if self.processes is None:
            return augment_batch(self.stream.source.batch(rows), self.augment, self.tasks, self._seed, step)
        batch = self.stream.source.batch(self.processes.own_rows(rows))
        return augment_batch(batch, self.augment, self.tasks, self._seed, step, share=self.processes.share, num_rows=len(rows))


class Trainer(Loop[Batch]):
    """Trains a :class:`~graftwork.interfaces.shared_model.SharedModel`.

    Args:
        model: The model; it is trained in place.
        tasks: The tasks, in the order of ``model.task_names``.
        stream: Where batches come from.
        balancer: Turns the task losses into gradients.
        objectives: Extra losses.
        transforms: What changes the gradients before the optimiser sees them, in this order.
        config: Settings of the training.
        seeds: Root of the random streams (``dropout``, ``augment``, one per transform).
        callbacks: Called after every step.
        device: Where model and batches live.
        processes: The processes that share every batch; None trains in this one alone.

    Raises:
        ConfigError: If nothing learns, the augmentation does not fit the data, or the balancer cannot take a batch in parts or
            shares.
    """

    config: TrainConfig
    model: SharedModel
    train_step: MultiTaskStep

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
        step = MultiTaskStep(
            model,
            tasks,
            stream,
            balancer=balancer,
            objectives=objectives,
            transforms=transforms,
            config=config,
            processes=processes,
        )
        source = TaskBatches(stream, tasks, config, seeds.integer("augment"), processes)
        super().__init__(step, source, config=config, seeds=seeds, callbacks=callbacks, device=device, processes=processes)
        self.stream = stream

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks."""
        return self.train_step.tasks

    @property
    def balancer(self) -> Balancer:
        """The balancer."""
        return self.train_step.balancer

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives."""
        return self.train_step.objectives

    @property
    def transforms(self) -> tuple[GradientTransform, ...]:
        """The gradient transforms."""
        return self.train_step.transforms

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each task on a batch of the stream's training rows, shape ``[T]``."""
        return self.train_step.losses(outputs, batch)

    def eval_model(self) -> SharedModel:
        """Return the model to predict with, in evaluation mode: averaged weights if there are any, else the trained model
        itself."""
        return cast(SharedModel, super().eval_model())

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
