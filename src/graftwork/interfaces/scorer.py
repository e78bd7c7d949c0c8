"""Scorer: how promising is a source for a target, judged without training on it.

A scorer sees one source block by block: the features, or the class probabilities, that the source gives for rows of the target,
and the target itself. Nothing but the scorer's own statistics is kept between blocks, so that data larger than memory works.

How the hardest systems fit:

- LEEP needs the joint distribution of all rows before it can judge one: it asks for two passes.
- PED moves whole classes as fine-tuning would, in steps that depend on class means and radii, after rescaling by the mean and
  deviation of generic rows: it wraps another scorer, takes these moments from :meth:`Scorer.bind`, learns the moves in a first
  pass and hands moved rows on in a second one.
- OSBORN compares rows of the source's own training data with rows of the target, and models with one another: the first comes
  through :meth:`Scorer.bind`, the second is a :class:`graftwork.interfaces.set_selector.SetScorer`.
- TransRate needs a covariance of every class: it takes as many classes a pass as fit into bounded memory, and so says how many
  passes it needs only once it has counted the rows of the classes.
- PARC and nearest neighbours compare rows with rows: they keep a sample of bounded size.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["ScoredRows", "Scorer", "SourceFacts"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRows:
    """A block of ``n`` rows of the target, as one source sees them. Arrays may be mapped from files and are never changed."""

    target: Array
    """Class indices, integers ``[n]``, -1 where missing; or values, floats ``[n]`` or ``[n, K]``, NaN where missing."""
    features: Array | None = None
    """Features of any float type, ``[n, D]``."""
    probabilities: Array | None = None
    """Class probabilities of the source's own classifier, ``[n, Z]``."""
    rows: NDArray[np.int64] | None = None
    """Numbers of the rows among all rows of the target, ``[n]``; None counts on. Scorers that keep a sample draw by it, so that
    the sample depends neither on the order of the rows nor on the blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What is known of a source besides its view of the target."""

    name: str = ""
    features: Array | None = None
    """Its own features of rows that it was trained on, ``[M, D]``."""
    labels: Array | None = None
    """Classes of these rows, ``[M]``."""
    mean: Array | None = None
    """Mean of its features over generic rows, ``[D]``."""
    deviation: Array | None = None
    """Standard deviation likewise, ``[D]``."""


class Scorer(ABC):
    """Higher is better; scores of one scorer compare across sources on the same rows, scores of two scorers do not.

    An object is used for one source: :meth:`bind` if there are facts, then :meth:`update` for every block, with
    :meth:`finish_pass` between two passes over all blocks, then :meth:`finish`. Rows whose target is missing are passed over.
    """

    reads: ClassVar[Literal["features", "probabilities"]] = "features"
    """Which array of the blocks it needs."""
    kinds: ClassVar[frozenset[str]] = frozenset({"classes"})
    """Targets that it can judge: ``"classes"``, ``"values"`` or both."""
    passes: int = 1
    """How often it has to see all blocks. An object may raise its own number when a pass is finished: a score of many classes takes
    as many as its bounded memory needs."""
    bounds: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    """Lowest and highest score that there can be; intervals stay inside."""

    def bind(self, facts: SourceFacts) -> None:
        """Learn what is known of the source; called at most once, before the first block."""

    @abstractmethod
    def update(self, rows: ScoredRows) -> None:
        """See one block.

        Raises:
            DataError: If the block lacks what the scorer reads, its shape does not fit earlier ones, or a number is not finite.
        """

    def finish_pass(self) -> None:
        """Turn the statistics of a pass into what the next one needs."""

    @abstractmethod
    def finish(self) -> float:
        """Return the score of all rows seen; may be called again.

        Raises:
            DataError: If the rows cannot tell anything: none with a label, or a single class.
        """

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw, as if this scorer had seen its blocks; ``other`` stays as it is. Only of scorers with one pass.

        Raises:
            NotImplementedError: If the scorer needs several passes.
        """
        raise NotImplementedError(f"{type(self).__name__} needs {self.passes} passes over all rows and cannot be merged.")

    def run(self, blocks: Callable[[], Iterable[ScoredRows]]) -> float:
        """Return the score of all rows; this object must not have seen any.

        Args:
            blocks: Returns an iterator over all blocks; called once for each pass.

        Raises:
            DataError: See :meth:`update` and :meth:`finish`.
        """
        number = 0
        while number < self.passes:
            if number:
                self.finish_pass()
            for block in blocks():
                self.update(block)
            number += 1
        return self.finish()

    def score(self, inputs: Array, target: Array) -> float:
        """Return the score of rows that are all in memory; this object is left as it is.

        Args:
            inputs: What the scorer :attr:`reads`, ``[N, D]``.
            target: See :class:`ScoredRows`.

        Raises:
            ConfigError: If an array is no NumPy array.
            DataError: See :meth:`update` and :meth:`finish`.
        """
        if not isinstance(inputs, np.ndarray) or not isinstance(target, np.ndarray):
            raise ConfigError(
                f"Scorers read NumPy arrays; got {type(inputs).__name__} and {type(target).__name__}. Call .numpy() on tensors."
            )
        block = ScoredRows(
            target=target,
            features=inputs if self.reads == "features" else None,
            probabilities=inputs if self.reads == "probabilities" else None,
        )
        return copy.deepcopy(self).run(lambda: [block])
