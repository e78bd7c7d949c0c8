"""SeriesEncoder: series of numbers as arrays of one length, with a mask of what is known and, if wanted, the moments of the
steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.series_cells import fill_rows, moments_of, numbers_of, read_all
from graftwork.data.names import check_names, short_list

__all__ = ["SeriesEncoder"]

_LONGEST = 512
Rows = list[NDArray[np.float64]]


class SeriesEncoder(Encoder):
    """Standardises each channel by its mean and deviation in the training rows, in float64, then narrows to float32.

    Args:
        length: Steps ``T`` that are kept of each row: the last ones.
        center: Mean of each channel over the training rows, in the user's units; their number is ``C``.
        scale: Standard deviation of each channel, above 0.
        columns: Column(s) that hold the series when a table is given: one a channel, or a single one whose cells have all
            channels. Empty if rows come as lists or arrays.
        times: Column with the moments of the steps: seconds, or dates in ISO form. Empty if there is none.
        interval: Seconds between steps, for all rows, if there is no column of moments; 0 if unknown.

    Raises:
        DataError: If a size is out of range, or the numbers of channels disagree.
    """

    kind: ClassVar[str] = "series"

    def __init__(
        self,
        length: int,
        center: Sequence[float],
        scale: Sequence[float],
        *,
        columns: Sequence[str] = (),
        times: str = "",
        interval: float = 0.0,
    ) -> None:
        if length < 1 or not len(center) == len(scale) >= 1 or len(columns) not in (0, 1, len(center)) or interval < 0:
            raise DataError(
                "A series needs a length of at least 1, as many centers as scales, one column or one a channel, and an interval "
                f"of at least 0; got {length}, {len(center)} centers, {len(scale)} scales, {len(columns)} columns, {interval}."
            )
        self.length, self.columns, self.times, self.interval = int(length), tuple(columns), str(times), float(interval)
        self.center, self.scale = tuple(map(float, center)), tuple(map(float, scale))
        self.channels = len(self.center)

    @classmethod
    def fit(
        cls,
        source: Any,
        *,
        channels: int | None = None,
        length: int | None = None,
        columns: Sequence[str] = (),
        times: str = "",
        interval: float = 0.0,
    ) -> Self:
        """Take length, center and scale from training rows.

        Args:
            source: As :meth:`transform` takes it.
            channels: Number of channels; by default that of the array, of the columns, or 1.
            length: Steps that are kept; by default those of the longest row, at most 512.
            columns: See the class.
            times: See the class.
            interval: See the class.

        Raises:
            DataError: If the rows cannot be read, or hold no number at all.
        """
        if channels is None:
            channels = source.shape[2] if isinstance(source, np.ndarray) and source.ndim == 3 else max(len(columns), 1)
        # The reader knows columns and channels, not yet lengths and scales: those come from what it reads.
        reader = cls(length or 1, [0.0] * channels, [1.0] * channels, columns=columns, times=times, interval=interval)
        rows = reader._rows(source)
        steps = np.concatenate(rows) if rows else np.zeros((0, channels))
        known = ~np.isnan(steps)
        if not known.any():
            raise DataError("The series hold no number in the training rows. Name the right columns.")
        # A channel that is nowhere known is divided by 1, not by 0.
        count = np.maximum(known.sum(axis=0), 1)
        center = np.where(known, steps, 0.0).sum(axis=0) / count
        spread = np.sqrt(np.where(known, np.square(steps - center), 0.0).sum(axis=0) / count)
        # A constant channel keeps its unit.
        scale = np.where(spread > 1e-12 * np.maximum(np.abs(center), 1e-300), spread, 1.0)
        longest = min(max(map(len, rows)), _LONGEST)
        return cls(length or longest, center.tolist(), scale.tolist(), columns=columns, times=times, interval=interval)

    def transform(self, source: Any) -> dict[str, NDArray[Any]]:
        """Encode series.

        Args:
            source: A table with the encoder's columns; an array ``[N, steps]`` or ``[N, steps, C]``, NaN where unknown; or a
                list with one series a row: numbers, or lists of ``C`` numbers, one for each step.

        Raises:
            DataError: If columns are missing or cells cannot be read; the message counts them and quotes the first.
        """
        rows = self._rows(source)
        values = fill_rows(rows, self.length, self.channels)
        known = ~np.isnan(values)
        # In float64: values of 1e9 that vary by 1 are all equal in float32.
        scaled = (values - np.asarray(self.center)) / np.asarray(self.scale)
        arrays: dict[str, NDArray[Any]] = {
            "series": np.where(known, scaled, 0.0).astype(np.float32),
            "series_mask": known,
        }
        if self.times or self.interval:
            arrays["series_times"] = self._moments(source, [len(row) for row in rows])
        return arrays

    def places(self) -> dict[str, dict[str, list[int]]]:
        """Return where each column lies, if there is one a channel."""
        if len(self.columns) != self.channels or self.channels == 1:
            return {}
        return {name: {"series": [place], "series_mask": [place]} for place, name in enumerate(self.columns)}

    def _rows(self, source: Any) -> Rows:
        """Return each row as float64 ``[steps, C]``."""
        if isinstance(source, np.ndarray) and source.dtype != object and source.ndim in (2, 3):
            steps = source[..., None] if source.ndim == 2 else source
            if steps.shape[2] != self.channels or np.isinf(steps).any():
                raise DataError(
                    f"Series of {self.channels} channels are finite numbers [N, steps, {self.channels}]; got the shape "
                    f"{source.shape}" + (" with infinite numbers." if np.isinf(steps).any() else ".")
                )
            # A list of [steps, C], one a row, as the other sources give.
            return list(steps.astype(np.float64))
        if not hasattr(source, "columns"):
            if isinstance(source, str | Mapping) or not hasattr(source, "__len__"):
                raise DataError(f"Give a table, an array or a list of series; got {type(source).__name__}.")
            return read_all(source, "the list", lambda cell: numbers_of(cell, channels=self.channels))
        if not self.columns:
            raise DataError(
                "The series were given as lists or an array, so no column of the table "
                f"({short_list(source.columns)}) is known to hold them. Give a list or an array of series."
            )
        check_names(self.columns, map(str, source.columns), what="The series column", where="the table")
        # One column may hold all channels; of several, each holds one.
        width = self.channels if len(self.columns) == 1 else 1
        parts = [
            read_all(_cells(source, name), f"column {name!r}", lambda cell: numbers_of(cell, channels=width))
            for name in self.columns
        ]
        return parts[0] if len(parts) == 1 else self._beside(parts)

    def _beside(self, parts: Sequence[Rows]) -> Rows:
        """Return rows with the channels of several columns side by side."""
        sizes = np.array([[len(row) for row in part] for part in parts])
        uneven = np.flatnonzero((sizes != sizes[0]).any(axis=0))
        if len(uneven):
            row = int(uneven[0])
            raise DataError(
                f"The columns {', '.join(self.columns)} have different numbers of steps in {len(uneven)} rows; in row {row}: "
                f"{', '.join(map(str, sizes[:, row]))}. Write null for values that are not known."
            )
        return [np.concatenate(channels, axis=1) for channels in zip(*parts, strict=True)]

    def _moments(self, source: Any, steps: Sequence[int]) -> NDArray[np.float32]:
        """Return seconds since the first step that each row has, ``[N, T]``; 0 in front of it.

        Args:
            source: What is encoded.
            steps: Number of steps of each row.
        """
        if not self.times:
            kept = np.minimum(np.asarray(steps, dtype=np.int64), self.length)
            # Below 0 in front of the first step that the row has.
            place = np.arange(self.length) - (self.length - kept[:, None])
            return (np.maximum(place, 0) * self.interval).astype(np.float32)
        if not hasattr(source, "columns"):
            raise DataError(f"The moments of the steps are in the column {self.times!r}: give a table.")
        check_names([self.times], map(str, source.columns), what="The column of moments", where="the table")
        read = read_all(_cells(source, self.times), f"column {self.times!r}", moments_of)
        uneven = [row for row, (own, wanted) in enumerate(zip(read, steps, strict=True)) if len(own) != wanted]
        if uneven:
            raise DataError(
                f"The column {self.times!r} has another number of moments than there are steps in {len(uneven)} rows; in row "
                f"{uneven[0]}: {len(read[uneven[0]])} for {steps[uneven[0]]}."
            )
        moments = fill_rows([row[:, None] for row in read], self.length, 1)[..., 0]
        # Rows without any step have no first moment: infinity stands for it and is replaced.
        first = np.nan_to_num(moments, nan=np.inf).min(axis=1, initial=np.inf)
        # The difference in float64: seconds since 1970 have 10 digits before the point, float32 has 7 in all.
        since = np.nan_to_num(moments - np.where(np.isinf(first), 0.0, first)[:, None])
        # In front of a row all moments are 0, as is its first one, so filling never looks like a fall.
        falling = np.flatnonzero((np.diff(since, axis=1) < 0).any(axis=1))
        if len(falling):
            raise DataError(
                f"The moments in column {self.times!r} fall in {len(falling)} rows, the first is row {int(falling[0])}. "
                "Sort the steps of each row by time."
            )
        return since.astype(np.float32)

    def sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves."""
        return {
            "length": self.length,
            "channels": self.channels,
            "center": list(self.center),
            "scale": list(self.scale),
        }

    def state(self) -> dict[str, Any]:
        """Return the JSON state."""
        return {
            "kind": self.kind,
            "version": 1,
            "length": self.length,
            "center": list(self.center),
            "scale": list(self.scale),
            "columns": list(self.columns),
            "times": self.times,
            "interval": self.interval,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SeriesEncoder:
        """Restore from :meth:`state`."""
        return cls(
            state["length"],
            state["center"],
            state["scale"],
            columns=state.get("columns", ()),
            times=state.get("times", ""),
            interval=state.get("interval", 0.0),
        )


def _cells(table: Any, name: str) -> list[Any]:
    column = table[name]
    return list(getattr(column, "cells", column).tolist())  # of a table that is read lazily, or a DataFrame
