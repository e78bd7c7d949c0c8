"""A numeric column of a table over its mean, read back from the encoded inputs: row weights of mean 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.nearest import did_you_mean
from graftwork.data.encoders.columns import NumericColumn
from graftwork.data.encoders.table import TableEncoder

__all__ = ["RelativeColumn"]


@dataclass(frozen=True, slots=True)
class RelativeColumn:
    """Where a column is among a suite's arrays, and how its encoding is undone."""

    array: str
    """Name of the array of numbers."""
    index: int
    """Place of the column in it."""
    column: NumericColumn

    @classmethod
    def find(cls, inputs: InputSpecs, name: str) -> Self:
        """Return the numeric column called ``name`` of the suite's tables.

        Raises:
            ConfigError: If there is none, or its mean over the training rows is not above 0.
        """
        known: list[str] = []
        for spec in inputs.values():
            if spec.kind != "table" or not spec.encoder:
                continue
            encoder = TableEncoder.from_state(spec.encoder)
            columns = {column.name: column for column in encoder.columns if isinstance(column, NumericColumn)}
            known += columns
            if name in columns:
                if columns[name].mean <= 0:
                    raise ConfigError(
                        f"Rows cannot be weighted by column {name!r}: its mean over the training rows is {columns[name].mean:g}, "
                        "and must be above 0. Name a rate or a count."
                    )
                return cls(spec.arrays.get("numeric", "numeric"), encoder.numeric_names().index(name), columns[name])
        raise ConfigError(
            f"There is no numeric column {name!r} to weight rows by.{did_you_mean(name, known)} "
            f"The numeric columns are: {', '.join(known) or 'none'}. Name one of them, or leave the setting empty."
        )

    def relative(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the column over its mean, ``[B]``, at least 0; 1 for missing cells that the encoding cannot tell from the mean.

        Columns with a heavy tail were encoded by quantiles: values beyond those of the training rows count as the last one.
        """
        encoded, column = inputs[self.array][:, self.index], self.column
        if not column.knots:
            # encoded = (x - mean) / std, so x / mean = 1 + encoded * std / mean.
            return (1.0 + encoded * (column.std / column.mean)).clamp(min=0.0)
        knots = encoded.new_tensor(column.knots)
        normal = NormalDist()
        # The encoding maps quantiles to those of a normal distribution; this is the same table, read the other way.
        scores = encoded.new_tensor([normal.inv_cdf((place + 0.5) / len(knots)) for place in range(len(knots))])
        # Clamped to a segment that has two ends; `share` below then keeps values beyond the ends on them.
        right = torch.searchsorted(scores, encoded.contiguous()).clamp(1, len(knots) - 1)
        share = ((encoded - scores[right - 1]) / (scores[right] - scores[right - 1])).clamp(0.0, 1.0)
        return ((knots[right - 1] + share * (knots[right] - knots[right - 1])) / column.mean).clamp(min=0.0)
