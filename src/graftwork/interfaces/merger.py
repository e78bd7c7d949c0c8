"""Merger: several models tuned from one base become one, without training, tensor by tensor.

How the hardest systems fit:

- TIES trims over the whole flat vector: a first pass samples magnitudes, a second one finds the exact threshold of each model, then tensors
  are merged; its rule for exactly tied signs needs a vote over all parameters, so tied entries are corrected at the end.
- Fisher merging needs a second file per model with the diagonal Fisher information: its constructor takes readers of those files and looks the
  tensor up by ``name``; experts and statistics stream together.
- OT fusion and concrete masks need activations or training and see the whole model: they are not this seam. They implement
  ``merge_models`` in their own module and hand back a model; what they share with this seam is the lineage of the written file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

__all__ = ["Merger"]

Array = NDArray[Any]


class Merger(ABC):
    """Works on NumPy views of mapped files, so that merging starts at once and checkpoints larger than memory stream.

    Methods that need a statistic over the whole model (a global threshold, a norm) ask for passes: while :meth:`needs_pass` is true, the
    driver shows every tensor to :meth:`observe` and then calls :meth:`finish_pass`; merging comes last.
    """

    def needs_pass(self) -> bool:
        """Whether the driver has to show all tensors (once more) before merging."""
        return False

    def observe(self, name: str, base: Array, experts: Sequence[Array]) -> None:
        """See one tensor during a pass."""

    def finish_pass(self) -> None:
        """Turn what was seen into statistics."""

    @abstractmethod
    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the merged tensor, in the shape of ``base``, float32 or wider; inputs are never changed.

        Args:
            name: Name of the parameter.
            base: Pretrained values.
            experts: The tuned values, one array a model, in the order of the models.
        """

    def corrections(self) -> Iterator[tuple[str, Array, Array]]:
        """Yield ``(name, flat indices, values)`` that only became known after the last tensor was merged."""
        return iter(())

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for the lineage of the merged file."""
        return {}
