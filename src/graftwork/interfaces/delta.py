"""Delta: anything that tuning adds to a base model.

A delta is kept apart from its base and says which one it belongs to. :class:`WeightDelta` (``nn.weight_delta``) is a difference
of weights, in
one of three forms for each tensor: dense, low rank, or sparse.

How the hardest systems fit:

- aTLAS and concrete masks learn coefficients over whole deltas: they need ``names``, ``tensor`` and a functional call with
  substituted weights; the delta never learns about coefficients.
- CP-LoRA's factors are one tensor for several layers: a subclass expands the slice of one layer in ``tensor``.
- Adapters, prompts and side networks are no difference of weights: they save, load, count and attach, but have no dense
  ``tensor``. Their ``names`` are empty, so that mergers, which work on weights, can refuse them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

__all__ = ["Delta"]


class Delta(ABC):
    """A difference to a base whose fingerprint it carries. Read tensor by tensor, so that large ones stream."""

    base_fingerprint: str
    """SHA-256 of the base that this delta belongs to (:func:`graftwork.math.fingerprint.state_fingerprint`); empty if unknown."""
    lineage: Mapping[str, Any]
    """What it was made by, from what, with which data; JSON values."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the names of the base tensors that differ."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Return the dense difference of one tensor, in the base tensor's shape."""

    @abstractmethod
    def count(self) -> int:
        """Return how many numbers have to be stored."""

    @abstractmethod
    def attach(self, model: nn.Module, *, check: bool = True) -> None:
        """Change ``model`` in place so that it computes what the tuned model did; :meth:`detach` undoes it bit for bit.

        Args:
            model: The base.
            check: Whether to compare its fingerprint with :attr:`base_fingerprint`, where that is known.

        Raises:
            ConfigError: If the model is another base, lacks a tensor or has it in another shape, or this delta is attached
                already.
        """

    @abstractmethod
    def detach(self) -> None:
        """Give the model that this delta is attached to its old weights back."""

    @abstractmethod
    def fold(self) -> None:
        """Make the change of :meth:`attach` permanent: the old weights are forgotten, and the delta can be attached elsewhere."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write safetensors with metadata (kinds, base fingerprint, lineage), atomically."""

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileFormatError: If the file is damaged or of another format.
        """
