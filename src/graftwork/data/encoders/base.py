"""Encoder: raw rows in, the suite's named inputs out, without torch; its whole state is JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from graftwork.core.input_spec import InputSpec

__all__ = ["SEVERAL", "Encoder"]

SEVERAL = "several"
"""Key of a state that holds the states of several encoders of one input (:mod:`graftwork.data.encoders.several`)."""

Array = NDArray[Any]


class Encoder(ABC):
    """Turns tables, pictures or texts into arrays exactly as for training. ``encoder_from_state`` restores one from
    :meth:`state`."""

    kind: ClassVar[str]
    """Name of the input kind; the key ``kind`` of the state."""

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
    def sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves (see the kind's module in :mod:`graftwork.data.inputs`)."""

    @property
    def picture_columns(self) -> tuple[str, ...]:
        """Columns of a table whose cells name picture files."""
        return ()

    def places(self) -> dict[str, dict[str, list[int]]]:
        """Return where each column of the raw rows lies, ``{column: {array: positions in its last dimension}}``; empty if the input
        is one thing (a picture, a text)."""
        return {}

    def cells_read_as_missing(self, source: Any) -> dict[str, Counter[str]]:
        """Return cells of a table that are not empty but count as missing, with the rows of each, by column."""
        return {}

    def spec(self, **more_sizes: Any) -> InputSpec:
        """Return the record of an input that this encoder makes, with further sizes if there are any."""
        return InputSpec(kind=self.kind, sizes={**self.sizes(), **more_sizes}, encoder=self.state())
