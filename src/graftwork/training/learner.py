"""The learner of all neural plans: assembles the model that the plan describes and trains it with the one loop.

Validation happens at a few points that depend on the horizon alone. Its score is the mean over tasks of the validation loss
divided by the loss of the best constant prediction on the same rows; the weights with the lowest score are kept (of models that
share nothing: each task's own best) and predict. Before the first validation the current (averaged) weights predict. With a
patience, training stops before its horizon where validations have not become better for so long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import Ledger
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream, inputs_to_torch, iter_rows
from graftwork.evaluation.probes import flops_per_sample
from graftwork.export.delta_files import write_deltas
from graftwork.export.model_folder import write_model
from graftwork.interfaces.balancer import Balancer
from graftwork.interfaces.delta import Delta
from graftwork.interfaces.learner import Array, Learner, LearnerContext, Precision
from graftwork.interfaces.objective import Objective
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.transform import GradientTransform
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import prior_loss, task_loss
from graftwork.training.assembly import assemble, default_settings, prepare_inputs
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint
from graftwork.training.config import TrainConfig
from graftwork.training.costs import CostMeter, held_for_backward, inference_costs
from graftwork.training.devices import on_cpu
from graftwork.training.feature_store import cached_features
from graftwork.training.learned import begin_from
from graftwork.training.selection import BestWeights, last_improvement, still_improves
from graftwork.training.trainer import Trainer
from graftwork.training.validation import evaluation_batch, validation_points, validation_rows

__all__ = ["NeuralLearner"]

MOST_COUNTED = 12
"""Tasks up to which the operations of each are counted."""
LEAST_PATIENCE = 100
"""Steps without a better validation that every training is granted, however short its horizon."""


class NeuralLearner(Learner):
    """Trains any plan made of a backbone, a tuner, a sharing operator, a balancer, objectives and gradient transforms.

    Args:
        context: What to learn, from what, for how long.

    Raises:
        ConfigError: If the plan or a training setting cannot be used.
    """

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        torch.set_num_threads(context.threads)
        plan, seeds, self._device = context.plan, Seeds(context.seed), torch.device(context.device)
        self._costs = CostMeter()
        # Building draws from the global generator; the caller's numbers must go on as if nothing had been built.
        with self._costs.running(), torch.random.fork_rng(devices=[]):
            self.suite = prepare_inputs(context.suite, plan, context.backbone)
            torch.manual_seed(seeds.integer("init"))
            asked = {**context.defaults, **plan.train.training, **context.overrides}
            self._assembly = assemble(
                plan,
                self.suite.tasks,
                self.suite.input_specs,
                backbone=context.backbone,
                # Augmented pictures differ in every step, so their features cannot be stored.
                store_features=asked.get("augment", "none") == "none",
            )
            # Drawn on the CPU, so that equal seeds begin with equal weights on every device; and moved before anything is copied.
            self.model = self._assembly.model.to(self._device)
            begin_from(self.model, context.start)
            balancer = plan.train.optimization.build(seam=Balancer)
            objectives = [objective.build(seam=Objective) for objective in plan.train.objectives]
            transforms = [transform.build(seam=GradientTransform) for transform in plan.train.transforms]
            self.config = self._make_config()
            learned = self.suite
            for front in self._assembly.fronts:
                arrays = front.spec.own(self.suite.inputs)
                features = cached_features(front.backbone.to(self._device), arrays, context.cache / "features", batch_size=32)
                # No arrays named means that the input reads all of the suite's.
                read = set(front.spec.arrays.values() or self.suite.inputs)
                # What the front has read is replaced; the model behind it must not see raw inputs as well.
                others = {name: array for name, array in learned.inputs.items() if name not in read}
                learned = learned.with_inputs({**others, front.array: features})
        self._stream = BatchStream(
            learned,
            self.suite.splits["train"],
            self.config.batch_size,
            seeds.integer("batches"),
            mixing=self.config.mixing,  # type: ignore[arg-type]
            quotas=self.config.quotas,
            device=self._device,
        )
        # Before the trainer: binding may run the model, and copies of modules that hold a graph fail.
        self._best = BestWeights(self.model)
        self.trainer = Trainer(
            self.model,
            self.suite.tasks,
            self._stream,
            balancer=balancer,
            objectives=objectives,
            transforms=transforms,
            config=self.config,
            seeds=seeds,
            callbacks=context.callbacks,
            device=self._device,
        )
        self._validation_rows = validation_rows(self.suite.splits["val"], seeds)
        self._points = validation_points(self.config, self._stream.batch_size, len(self._validation_rows))
        self._validated = 0
        self._priors: dict[str, float] = {}
        self._held_bytes = 0
        self._adopted: int | None = None
        self._inference: dict[str, float] = {}
        self.validation: list[tuple[int, dict[str, float]]] = []
        """``(step, relative loss per task)`` of every validation so far."""

    def _make_config(self) -> TrainConfig:
        """Return the settings: defaults for the model, then the workflow's, the plan's, then what a suite.yaml asks for, then the user's."""
        context = self.context
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in self.model.parameters()]
        total = sum(count for count, _ in counts)
        defaults = default_settings(
            self.suite.kinds,
            pretrained=context.plan.source == "pretrained",
            stored=bool(self._assembly.fronts),
            trained_share=sum(count for count, learns in counts if learns) / max(total, 1),
        )
        mixing = {"mixing": self.suite.raw["mixing"]} if "mixing" in self.suite.raw else {}
        half, forced = _autocast(context.precision, is_pretrained=context.plan.source == "pretrained")
        # The horizon is the workflow's decision; it reads a plan's own `max_steps` before it makes one.
        return TrainConfig.from_settings(
            {**defaults, **half},
            context.defaults,
            context.plan.train.training,
            mixing,
            {**forced, **context.overrides},
            {"max_steps": context.max_steps},
        )

    @property
    def step(self) -> int:
        """Number of finished steps."""
        return self.trainer.step if self._adopted is None else self._adopted

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which as many rows are seen as there are training rows."""
        return self._stream.steps_per_epoch

    @property
    def is_converged(self) -> bool:
        """Whether training has stopped because validations have not become better for as long as the patience says."""
        if not self.config.patience or not self.validation:
            return False
        granted = max(self.config.patience * self.config.max_steps, LEAST_PATIENCE)
        return self._validated - last_improvement(self.validation, self._best.groups) >= granted

    @property
    def still_improving(self) -> bool:
        """Whether the last validation was the best one, and clearly better than those of the first three quarters."""
        return still_improves(self.validation, self._best.groups)

    @property
    def best_model(self) -> SharedModel:
        """The model that predicts, in evaluation mode; it takes stored features if the plan's backbone is fixed."""
        # Averaged weights before the first validation.
        return self._best.model.eval() if self._best.is_filled else self.trainer.eval_model()

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Train until ``step == until``; see :class:`~graftwork.interfaces.learner.Learner`."""
        torch.set_num_threads(self.context.threads)
        # Measured once and outside of the clock: it is no part of the training.
        if not self._held_bytes and until > self.step:
            self._held_bytes = held_for_backward(self.model, self._stream.batch(0))
        with self._costs.running():
            self._validate_if_due()  # a stop may have come between the last step and its validation
            while self.step < until and not self.is_converged:
                upcoming = [point for point in self._points if point > self.step]
                self.trainer.train(min([until, *upcoming[:1]]), on_progress)
                self._validate_if_due()

    def _validate_if_due(self) -> None:
        if self.step not in self._points or self._validated >= self.step:
            return
        model = self.trainer.eval_model()
        losses = self._validation_losses(model)
        self.validation.append((self.step, losses))
        self._best.offer(model, losses)
        self._validated = self.step

    @torch.inference_mode()
    def _validation_losses(self, model: SharedModel) -> dict[str, float]:
        """Return the loss per task over that of the best constant, for tasks with a validation label."""
        collected: dict[str, list[tuple[Tensor, Tensor]]] = {task.name: [] for task in self.suite.tasks}
        size = evaluation_batch(self._stream.source.suite.inputs)
        for start in range(0, len(self._validation_rows), size):
            batch = self._stream.source.batch(self._validation_rows[start : start + size])
            outputs = model(batch.inputs)
            for name, parts in collected.items():
                parts.append((outputs[name], batch.targets[name]))
        losses: dict[str, float] = {}
        for task in self.suite.tasks:
            output, target = (torch.cat(column) for column in zip(*collected[task.name], strict=True))
            if task.name not in self._priors:
                # Missing classes are negative, missing numbers NaN.
                known = (target >= 0) if not target.is_floating_point() else ~torch.isnan(target)
                # 0 marks a task without a label among these rows; it is not judged.
                self._priors[task.name] = prior_loss(task, target.cpu()) if bool(known.any()) else 0.0
            if self._priors[task.name] > 0:
                loss = task_loss(task, output, target, robust=self.config.robust_regression)
                losses[task.name] = float(loss) / self._priors[task.name]
        return losses

    def adopt(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Predict with these weights from now on, as if they had come of ``step`` steps here: a stage that makes them elsewhere
        (by merging, say) hands them in, and has no more steps trained here.

        Args:
            weights: Tensors by their names in the model; others stay as they are.
            step: What :attr:`step` says from now on.
        """
        self._best.adopt(weights)
        self._adopted = step

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield the rows of a split in their order, as the model takes them: with stored features if its backbone is fixed."""
        return iter_rows(self._stream.source.suite, self.suite.splits[split], batch_size, device=self._device)

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return predictions of the best weights so far; see :class:`~graftwork.interfaces.learner.Learner`.

        ``inputs`` are those of the learner's :attr:`suite`.
        """
        torch.set_num_threads(self.context.threads)
        wanted = [self.suite.task(name) for name in (self.suite.task_names if tasks is None else tasks)]
        model = self.best_model
        source: Mapping[str, Array] = self._stream.source.suite.inputs
        if inputs is not None:
            missing = [name for name in self.suite.inputs if name not in inputs]
            if missing:
                raise ConfigError(
                    f"`inputs` lacks {', '.join(missing)}; got {', '.join(inputs)}. Encode new rows with the suite's encoder."
                )
            # New rows are raw: the backbone that made the stored features goes in front.
            model, source = self._assembly.deployable(model).eval(), inputs
        rows = np.asarray(rows, dtype=np.int64)
        parts: dict[str, list[Array]] = {task.name: [] for task in wanted}
        with torch.inference_mode():
            # One empty pass at least, so that no rows give arrays of the right shape.
            size = evaluation_batch(source)
            for start in range(0, max(len(rows), 1), size):
                part = inputs_to_torch(source, rows[start : start + size])
                outputs = model({name: tensor.to(self._device) for name, tensor in part.items()}, tuple(parts))
                for task in wanted:
                    parts[task.name].append(decode_output(task, outputs[task.name]).cpu().numpy())
        return {name: np.concatenate(chunks) for name, chunks in parts.items()}

    def save(self, folder: Path) -> None:
        """Write a checkpoint with all state, atomically."""
        state = {
            "identity": self.context.identity(),
            "trainer": self.trainer.state_dict(),
            "best": self._best.state_dict(),
            "costs": self._costs.state_dict(),
            "held_bytes": self._held_bytes,
            "validated": self._validated,
            "validation": [[step, losses] for step, losses in self.validation],
        }
        save_checkpoint(folder, state)

    def load(self, folder: Path) -> None:
        """Restore a checkpoint.

        Raises:
            CheckpointError: If it is damaged, or belongs to another plan, seed, suite, horizon, backbone or other overrides.
        """
        state = load_checkpoint(folder)
        self.context.check_identity(state["identity"], folder)
        self.trainer.load_state_dict(state["trainer"])
        self._best.load_state_dict(state["best"])
        self._costs.load_state_dict(state["costs"])
        self._held_bytes = int(state["held_bytes"])
        self._validated = int(state["validated"])
        self.validation = [(int(step), dict(losses)) for step, losses in state["validation"]]

    def ledger(self) -> Ledger:
        """Return the costs so far. Deployment needs every parameter of the model and of a backbone in front of it."""
        # On the CPU, where it will be used and where all plans are timed.
        deployed = on_cpu(self._assembly.deployable(self.best_model))
        total = sum(parameter.numel() for parameter in deployed.parameters())
        if not self._inference:
            row = inputs_to_torch(self.suite.inputs, self._stream.rows[:1])
            self._inference = inference_costs(deployed, row, threads=self.context.threads)
        return replace(
            self.training_ledger(),
            parameters_total=total,
            parameters_stored=total,
            **self._inference,  # type: ignore[arg-type]
        )

    def own_costs(self) -> dict[str, Ledger]:
        """Return the parameters of each task's own part, and, of few tasks, the operations that the others do without."""
        model, names = on_cpu(self._assembly.deployable(self.best_model)), self.suite.task_names
        if len(names) < 2:
            return {}
        row, whole = inputs_to_torch(self.suite.inputs, self._stream.rows[:1]), self.ledger().flops_per_sample
        found = {}
        for name in names:
            numbers = sum(parameter.numel() for parameter in {id(one): one for one in model.task_parameters(name)}.values())
            others = [other for other in names if other != name]
            # With every task a pass through all others is counted: too slow for very many.
            flops = max(0.0, whole - flops_per_sample(model, row, others)) if len(names) <= MOST_COUNTED else 0.0
            found[name] = Ledger(parameters_total=numbers, parameters_stored=numbers, flops_per_sample=flops)
        return found

    def training_ledger(self) -> Ledger:
        """Return the costs of training alone: nothing of what the model stores, or takes to predict."""
        return Ledger(
            parameters_trained=sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad),
            steps=self.step,
            samples=self.step * self._stream.batch_size,
            wall_seconds=self._costs.wall_seconds,
            cpu_seconds=self._costs.cpu_seconds,
            peak_rss_bytes=self._costs.peak_rss_bytes,
            activation_bytes=self._held_bytes,
        )

    def deltas(self) -> dict[str, Delta]:
        """Return what tuning added to each backbone inside the model, with the best weights so far, by the backbone's name in
        the model.

        Plans without a tuner have none, and neither have those that learn from stored features.
        """
        context, found = self.context, self._assembly.deltas(on_cpu(self.best_model))
        for delta in found.values():
            delta.lineage = {
                **delta.lineage,
                "plan": context.plan.to_json(),
                "seed": context.seed,
                "step": self.step,
                "suite": self.suite.name,
                "backbone": context.backbone if context.plan.source == "pretrained" else context.plan.source,
                "base_fingerprint": delta.base_fingerprint,
            }
        return found

    def export(self, folder: Path) -> None:
        """Write ``model.safetensors``, ``config.json`` and ``model.onnx`` of the best weights so far.

        Where a pretrained backbone was tuned, what was added to it is written beside them; see
        :func:`graftwork.export.delta_files.write_deltas`.
        """
        context = self.context
        described = {"plan": context.plan.to_json(), "seed": context.seed, "step": self.step, "backbone": context.backbone}
        deployed = on_cpu(self._assembly.deployable(self.best_model))
        write_model(deployed, self.suite, folder, described, stored=bool(self._assembly.fronts))
        if context.plan.source == "pretrained":
            write_deltas(self.deltas(), on_cpu(self.best_model), folder)


def _autocast(precision: Precision, *, is_pretrained: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Return training settings that a precision stands for: weaker than those of the plan, and stronger."""
    if precision == "bf16-pretrained":
        return ({"autocast": "bfloat16"} if is_pretrained else {}), {}
    return {}, {"fp32": {"autocast": "none"}, "bf16": {"autocast": "bfloat16"}}.get(precision, {})
