"""Merger: several models tuned from one base become one, without training, tensor by tensor.

How the hardest systems fit:

- TIES trims over the whole flat vector: the first pass (``observe``) fills a histogram of magnitudes per model, ``finish_observing`` turns it
  into thresholds, the second pass merges; memory stays that of one tensor.
- Fisher merging needs a second file per model with the diagonal Fisher information: its constructor takes readers of those files and looks the
  tensor up by ``name``; experts and statistics stream together.
- OT fusion and concrete masks need activations or training and see the whole model: they are not this seam. They implement
  ``merge_models`` in their own module and hand back a model; what they share with this seam is the lineage of the written file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

__all__ = ["Merger"]

Array = NDArray[Any]


class Merger(ABC):
    """Works on NumPy views of mapped files, so that merging starts at once and checkpoints larger than memory stream.

    Methods that need a statistic over the whole model (a global threshold, a norm) say so by :attr:`num_passes` of 2: the driver
    shows every tensor to :meth:`observe` first, and :meth:`merge_tensor` after that.
    """

    num_passes: int = 1

    def observe(self, name: str, base: Array, experts: Iterable[Array]) -> None:
        """See one tensor in the first of two passes; ``experts`` yields one array at a time."""

    def finish_observing(self) -> None:
        """Turn what was seen into the statistics that merging needs."""

    @abstractmethod
    def merge_tensor(self, name: str, base: Array, experts: Iterable[Array]) -> Array:
        """Return the merged tensor, in the shape of ``base``, float32 or wider; inputs are never changed.

        Args:
            name: Name of the parameter.
            base: Pretrained values.
            experts: The tuned values, one array a model, in the order of the models.
        """

    def settings(self) -> Mapping[str, Any]:
        """Return the settings for the lineage of the merged file."""
        return {}
