"""Delta: anything that tuning adds to a base model.

A delta is kept apart from its base and says which one it belongs to. :class:`WeightDelta` (``nn.weight_delta``) is a difference
of weights, in one of five forms for each tensor: dense, low rank, sparse, CP, or decomposed into direction and magnitude.
:class:`ModuleDelta` (``nn.module_delta``) puts modules into the base (adapters, prompts, a side network), and may change weights
besides. Several deltas of one model at once are a :class:`DeltaSet` (``nn.delta_set``).

How the hardest systems fit:

- aTLAS and concrete masks learn coefficients over whole deltas: they need ``names``, ``tensor`` and a functional call with
  substituted weights; the delta never learns about coefficients.
- Weight-decomposed differences (DoRA) depend on the base: ``change`` takes its tensor, ``tensor`` refuses.
- Adapters, prompts and side networks are no difference of weights: they save, load, count and attach, but have no dense
  ``tensor``. Their ``names`` are empty, so that mergers, which work on weights, can refuse them; :meth:`Delta.scale` scales what
  adapters add and refuses prompts, whose effect is not linear; :meth:`Delta.fold` refuses all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from graftwork.core.errors import ConfigError

__all__ = ["Delta"]


class Delta(ABC):
    """A difference to a base whose fingerprint it carries. Read tensor by tensor, so that large ones stream."""

    base_fingerprint: str
    """SHA-256 of the base that this delta belongs to (:func:`graftwork.math.fingerprint.state_fingerprint`); empty if unknown."""
    base_prints: Mapping[str, str]
    """Short print of each tensor of the base (:func:`graftwork.math.fingerprint.tensor_prints`), so that a mismatch can be named;
    empty if unknown."""
    lineage: Mapping[str, Any]
    """What it was made by, from what, with which data; JSON values."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the names of the base tensors that differ."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Return the dense difference of one tensor, in the base tensor's shape."""

    def change(self, name: str, base: Tensor) -> Tensor:
        """Return by how much one tensor of a base changes, in its shape.

        The same as :meth:`tensor`, but for differences that depend on the base (weight-decomposed ones), which have no other.

        Args:
            name: A name of :meth:`names`.
            base: The tensor of the base.
        """
        return self.tensor(name)

    @abstractmethod
    def count(self) -> int:
        """Return how many numbers have to be stored."""

    @abstractmethod
    def scale(self, factor: float) -> Delta:
        """Return a delta whose effect is ``factor`` times that of this one.

        Raises:
            ConfigError: If its effect cannot be scaled.
        """

    def __neg__(self) -> Delta:
        """Return the delta that takes away what this one adds."""
        return self.scale(-1.0)

    @abstractmethod
    def compose(self, other: Delta) -> Delta:
        """Return one delta that does what attaching this one and then ``other`` does.

        Raises:
            ConfigError: If they belong to different bases, or shapes differ.
        """

    def after(self, earlier: Delta) -> Delta:
        """Return one delta that does what ``earlier`` and then this one does; asked by :meth:`compose` of another kind.

        Raises:
            ConfigError: If this kind cannot follow that one.
        """
        raise ConfigError(
            f"A {type(self).__name__} cannot be composed with a {type(earlier).__name__}. Attach one after the other."
        )

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
        """Make the change of :meth:`attach` permanent: the old weights are forgotten, and the delta can be attached elsewhere.

        Raises:
            ConfigError: If it puts modules into the model: they cannot be written into weights.
        """

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
