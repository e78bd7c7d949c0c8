"""ContinualMethod: what learns from a stream of experiences. It says what a step of each experience computes; the runner
(``training.continual``) trains it with the loop of all trainings, with an optimiser that is new for each experience.

How the hardest systems fit:

- Prompts and lanes of their own for each experience (MULTI-LANE, DualPrompt): :meth:`ContinualMethod.begin` adds new parameters,
  and freezes those of older experiences. The optimiser is made after it, over what learns then. Keys of a prompt pool are drawn
  to the queries by the model's auxiliary loss.
- Weights held to their older values by importance (EWC): :meth:`ContinualMethod.end` sees the experience once more, before it
  goes, and may run over its rows; the penalty is part of the next step's ``backward``. Distillation from the model as it was
  (LwF) copies the model in ``begin``; a teacher that never changes is a plain attribute of the step.
- Rehearsal: :meth:`ContinualMethod.source` puts stored rows beside the experience's own in every batch; labels of classes that a
  row was not shown with are missing in its targets, as in every batch.
- A bottleneck without boundaries (discrete key-value bottleneck) has nothing to do in ``begin`` but to return its step.

Not there: checkpoints in the middle of a stream. A stopped stream starts again from its first experience.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from graftwork.core.batch import Batch
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.stream import Experience
from graftwork.interfaces.train_step import BatchSource, TrainStep

__all__ = ["ContinualMethod"]


class ContinualMethod(ABC):
    """Learns experience by experience."""

    model: SharedModel
    """Set by the constructor: answers at any time, in evaluation mode, for all classes shown so far, without being told which
    experience a row is like. Outputs are as wide as the task is in the end; classes that were never shown get no probability."""

    @abstractmethod
    def begin(self, experience: Experience) -> TrainStep[Batch]:
        """Prepare the model for an experience, and return what a step of it computes.

        Called once for each experience, in order. Torch's global generator is seeded for new parameters.

        Raises:
            ConfigError: If the method cannot learn from it.
        """

    def source(self, experience: Experience, own: BatchSource[Batch]) -> BatchSource[Batch]:
        """Return where the batches of an experience come from.

        Args:
            experience: The experience, after :meth:`begin`.
            own: Batches of its training rows.
        """
        return own

    def end(self, experience: Experience) -> None:
        """Called when an experience was learned, with the model as it is then: time to store rows, importances, statistics."""
