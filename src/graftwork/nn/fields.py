"""Fields of a table as vectors, with shared vocabularies and padded behaviour sequences: what recommenders read.

A table suite with sequences keeps them as categorical columns, one column a position, and declares the layout in the sizes of its
:class:`~graftwork.core.input_spec.InputSpec`. All keys are optional, and models that do not know them read the same columns as
they are:

- ``vocabularies``: number of the vocabulary of each categorical column, ``C`` numbers. Columns of one vocabulary (the item
  shown, the items of a history) share the rows of one embedding table.
- ``sequences``: ``{name: [start, stop]}``, the categorical columns that hold the sequence. Code 0 is padding, as it is "missing"
  elsewhere.
- ``query``: the categorical column that attention over the sequences asks with (the item shown).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs, input_of_kind
from graftwork.nn.tokenizer import FeatureTokenizer

__all__ = ["FieldLayout", "Fields", "masked_mean"]


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """Which columns are plain fields and which are positions of sequences."""

    num_numeric: int
    cardinalities: tuple[int, ...]
    vocabularies: tuple[int, ...]
    sequences: Mapping[str, tuple[int, int]]
    """``{name: (start, stop)}`` in categorical columns."""
    query: int | None
    """Categorical column of the query; None without sequences."""

    @classmethod
    def from_inputs(cls, inputs: InputSpecs, *, needed_by: str) -> Self:
        """Read the layout of a suite that is one table.

        Args:
            inputs: The suite's inputs.
            needed_by: What reads it, for messages.

        Raises:
            ConfigError: If the suite is something else, or see :meth:`from_sizes`.
        """
        return cls.from_sizes(input_of_kind(inputs, "table", needed_by=needed_by).sizes)

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any]) -> Self:
        """Read the sizes of a table.

        Raises:
            ConfigError: If they are not those of a table, or the declared layout does not fit the columns; all problems at once.
        """
        if "num_numeric" not in sizes:
            raise ConfigError(
                f"Fields are columns of tables: their sizes are `num_numeric` and `cardinalities`; got "
                f"{', '.join(sizes) or 'none'}."
            )
        cardinalities = tuple(int(size) for size in sizes.get("cardinalities", ()))
        columns = len(cardinalities)
        vocabularies = tuple(int(number) for number in sizes.get("vocabularies", range(columns)))
        sequences = {str(name): (int(part[0]), int(part[1])) for name, part in sizes.get("sequences", {}).items()}
        query = sizes.get("query")
        # All sequences lie in one tensor [B, S, L, d].
        lengths = {stop - start for start, stop in sequences.values()}
        problems = [
            f"the sequence {name!r} is [{start}, {stop}] of {columns} categorical columns"
            for name, (start, stop) in sequences.items()
            if not 0 <= start < stop <= columns
        ]
        if len(vocabularies) != columns:
            problems.append(f"there are {len(vocabularies)} vocabularies for {columns} categorical columns")
        if len(lengths) > 1:
            problems.append(
                f"all sequences need the same number of positions; got {sorted(lengths)}: pad the shorter ones with 0"
            )
        taken = {column for start, stop in sequences.values() for column in range(start, stop)}
        if sequences and (query is None or int(query) not in set(range(columns)) - taken):
            problems.append(f"sequences need `query`, one of the {columns} categorical columns outside of them; got {query!r}")
        if int(sizes["num_numeric"]) + columns == 0:
            problems.append("there is no column besides the targets")
        if problems:
            raise ConfigError("The layout of the table's fields is not consistent.", problems)
        return cls(
            int(sizes["num_numeric"]),
            cardinalities,
            vocabularies,
            sequences,
            int(query) if sequences and query is not None else None,
        )

    @property
    def plain(self) -> tuple[int, ...]:
        """Categorical columns that belong to no sequence."""
        taken = {column for start, stop in self.sequences.values() for column in range(start, stop)}
        return tuple(column for column in range(len(self.cardinalities)) if column not in taken)

    @property
    def num_fields(self) -> int:
        """Number of plain fields: numeric columns, then plain categorical ones."""
        return self.num_numeric + len(self.plain)


class Fields(nn.Module):
    """Every cell as a vector, sorted into plain fields and sequences.

    Args:
        layout: The table's columns.
        width: Width ``d`` of a field's vector.
        std: Standard deviation of the initial weights.
    """

    plain: Tensor

    def __init__(self, layout: FieldLayout, width: int, *, std: float = 0.1) -> None:
        super().__init__()
        self.layout, self.width = layout, width
        self.tokenizer = FeatureTokenizer(
            layout.num_numeric, layout.cardinalities, width, std=std, vocabularies=layout.vocabularies
        )
        # Among all tokens: numbers, then the categories outside of the sequences.
        positions = [*range(layout.num_numeric), *(layout.num_numeric + column for column in layout.plain)]
        self.register_buffer("plain", torch.tensor(positions, dtype=torch.int64), persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return plain fields ``[B, F, d]``, sequences ``[B, S, L, d]`` and which of their positions are filled, bool ``[B, S,
        L]``.

        The latter two are None for tables without sequences.
        """
        codes = inputs["categorical"]
        tokens = self.tokenizer(inputs["numeric"], codes)
        if not self.layout.sequences:
            return tokens, None, None
        # Tokens begin with the numeric columns, so categorical column c is token `shift + c`.
        shift, parts = self.layout.num_numeric, self.layout.sequences.values()
        states = torch.stack([tokens[:, shift + start : shift + stop] for start, stop in parts], dim=1)
        # Code 0 is padding.
        filled = torch.stack([codes[:, start:stop] > 0 for start, stop in parts], dim=1)
        return tokens.index_select(1, self.plain), states, filled

    def query(self, plain: Tensor) -> Tensor:
        """Return the vector of the query field, ``[B, d]``, from the plain fields."""
        assert self.layout.query is not None
        return plain[:, self.layout.num_numeric + self.layout.plain.index(self.layout.query)]


def masked_mean(states: Tensor, filled: Tensor) -> Tensor:
    """Return the mean over filled positions, ``[..., d]`` from ``[..., L, d]`` and bool ``[..., L]``; 0 where none is filled."""
    weights = filled.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=-2) / weights.sum(dim=-2).clamp(min=1.0)
