"""Learner: anything that can enter the race. The race knows nothing else of a plan.

How the hardest systems fit:

- Tree ensembles (LightGBM, R-MTGB) have rounds where networks have steps: a step is a round of LightGBM and several of R-MTGB,
  and training may end before the horizon where more rounds do not help. Overrides of the training loop do not apply to them.
- Frozen backbones with a feature store never run the trunk again: the learner swaps the suite's inputs for cached features and
  puts the trunk back for ``export``, so that deployment takes the suite's inputs like every other plan.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import CheckpointError
from graftwork.core.records import Ledger, Plan
from graftwork.data.suite import Suite

if TYPE_CHECKING:  # what only builds learners starts without torch
    from torch import Tensor

    from graftwork.interfaces.callback import Callback

__all__ = ["Learner", "LearnerContext", "Precision"]

Array = NDArray[Any]
Precision = Literal["plan", "fp32", "bf16", "bf16-pretrained"]
"""Precision of the forward passes of a training: as the plan says; one for all plans; bfloat16 for plans with a pretrained backbone
that say nothing else."""


@dataclass(frozen=True, slots=True)
class LearnerContext:
    """What a learner is given by the workflow that runs it."""

    suite: Suite
    plan: Plan
    seed: int
    max_steps: int
    """Horizon of schedules: the most steps that :meth:`Learner.train` will ever be asked for."""
    cache: Path
    """Folder for things that runs share (feature stores), addressed by content."""
    backbone: str = ""
    """Name of the pretrained backbone for plans with source ``"pretrained"`` (see ``nn.backbones.catalog``)."""
    threads: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Training settings of the user, stronger than the plan's."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Training settings of the workflow, weaker than the plan's."""
    callbacks: Sequence[Callback] = ()
    """Called after every step of learners that train by the loop; others leave them alone."""
    start: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights by name that the model begins with, in place of those that it would draw: a stage that trains several models from
    one start hands them in. Learners without such weights leave them alone."""
    device: str = "cpu"
    """Where networks are trained: ``cpu``, ``cuda`` or ``mps``. Learners without networks compute on the CPU."""
    precision: Precision = "plan"
    """Precision of the forward passes of training; predictions are made in float32."""

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must agree in, as JSON values: plan, seed, suite, horizon, backbone, overrides, device,
        precision."""
        # Absent without any, so that older checkpoints keep their identity.
        weaker: dict[str, Any] = {"defaults": dict(self.defaults)} if self.defaults else {}
        if (self.device, self.precision) != ("cpu", "plan"):
            weaker |= {"device": self.device, "precision": self.precision}
        return {
            "plan": self.plan.to_json(),
            "seed": self.seed,
            "suite": self.suite.fingerprint(),
            "max_steps": self.max_steps,
            "backbone": self.backbone,
            "overrides": dict(self.overrides),
            **weaker,
        }

    def check_identity(self, saved: Mapping[str, Any], folder: Path, *, any_horizon: bool = False) -> None:
        """Refuse a checkpoint that was written with another :meth:`identity`.

        Args:
            saved: What the checkpoint says.
            folder: Of the checkpoint, for the message.
            any_horizon: Whether the horizon may differ.

        Raises:
            CheckpointError: If one differs; the message names it.
        """
        found = {**_USUAL, **saved}
        if isinstance(found.get("plan"), Mapping):
            found["plan"] = Plan.from_json(found["plan"]).to_json()  # an older version wrote it in another form
        for key, value in _as_json({**_USUAL, **self.identity()}).items():
            if any_horizon and key == "max_steps":
                continue
            if _as_json(found.get(key)) != value:
                shown = "" if key in ("plan", "suite") else f" ({found.get(key)!r}, not {value!r})"
                raise CheckpointError(
                    f"The checkpoint in {folder} was written for another {key}{shown}. Run without --resume, "
                    f"or into another folder."
                )


_USUAL = {"device": "cpu", "precision": "plan"}
"""What an identity holds that does not say it."""


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from a file: tuples are lists there."""
    return json.loads(json.dumps(value))


class Learner(ABC):
    """Trains in slices, can stop and go on at any step, and predicts.

    Two learners built from equal contexts give the same numbers, whether trained in one slice or in several, with a
    save and load between them or not.
    """

    def __init__(self, context: LearnerContext) -> None:
        self.context = context

    @property
    @abstractmethod
    def step(self) -> int:
        """Number of finished steps; what a step of trees is, the learner says."""

    @property
    def ignores_horizon(self) -> bool:
        """Whether steps are the same for every horizon, so that a training with another one may go on from the checkpoint."""
        return False

    @property
    def slow_to_load(self) -> bool:
        """Whether going on from a checkpoint takes about as long as the training so far, so that the process that trained keeps the
        learner for the job that goes on with it."""
        return False

    @property
    def still_improving(self) -> bool:
        """Whether its last steps still made it better on validation rows, so that more steps would probably help; False as well
        if the learner cannot say."""
        return False

    @abstractmethod
    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Train until ``step == until`` or the learner finds that more does not help.

        Args:
            until: Step to stop at.
            on_progress: Called now and then with the step; it may raise to stop, and the learner is then still whole.

        Raises:
            TrainingDivergedError: If a loss became NaN or infinite.
        """

    @abstractmethod
    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return predictions in the user's units for rows of the suite (or of ``inputs`` in place of the suite's).

        Probabilities for classes (binary: ``[N]`` of class 1; multiclass and ordinal: ``[N, size]``; multilabel: ``[N, size]``),
        values for regression ``[N, size]``.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write a checkpoint with all state, atomically: safetensors and JSON, never pickle."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Restore :meth:`save`'s checkpoint.

        Raises:
            CheckpointError: If it is damaged, or belongs to another :meth:`LearnerContext.identity`.
        """

    @abstractmethod
    def ledger(self) -> Ledger:
        """Return the costs so far: parameters, steps, samples, seconds, memory."""

    def own_costs(self) -> dict[str, Ledger]:
        """Return what of :meth:`ledger` each task has for itself: a model that need not answer the task does without, since its graph
        leaves it out.

        Stored numbers, and operations where they are counted; tasks that have nothing for themselves, or of which it is not known, are
        missing, so that a model of some tasks counts as the whole.
        """
        return {}

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the deployable model into ``folder``: ``model.safetensors`` + ``config.json`` (or the trees' own text format)
        and ``model.onnx`` whose inputs are the suite's inputs and whose outputs are named after the tasks, in the user's units as
        :meth:`predict` returns them."""
