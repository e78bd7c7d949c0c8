"""Encoder: raw rows in, the suite's named inputs out, without torch; its whole state is JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

__all__ = ["Encoder"]

Array = NDArray[Any]


class Encoder(ABC):
    """Turns tables, pictures or texts into arrays exactly as for training. ``encoder_from_state`` restores one from
    :meth:`state`."""

    kind: ClassVar[str]
    """``table``, ``image`` or ``text``; the key ``kind`` of the state."""

    @abstractmethod
    def transform(self, source: Any) -> dict[str, Array]:
        """Return ``{input: array}`` with one row per row, picture or text of ``source``.

        Raises:
            DataError: If columns are missing or values cannot be read; the message names all of them.
        """

    def transform_batches(self, batches: Iterable[Any]) -> Iterator[dict[str, Array]]:
        """Yield :meth:`transform` of each batch. Encoders that can name the faults of all batches at once do so.

        Raises:
            DataError: As :meth:`transform` does.
        """
        for batch in batches:
            yield self.transform(batch)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return JSON values from which the same encoder can be built."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any]) -> Encoder:
        """Build an encoder from :meth:`state`'s values."""

    @abstractmethod
    def input_sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves (see ``Suite.input_sizes``)."""
