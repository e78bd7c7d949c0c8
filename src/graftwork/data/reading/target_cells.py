"""What a task kind is given to become a target: the user's request, and the cells of its columns read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.encoders.columns import as_text, text_codes, to_numbers

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["InferredTask", "TargetCells", "TargetRequest"]


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """One target that the user asked for."""

    name: str
    columns: tuple[str, ...]
    kind: str = ""
    """Name of a task kind; empty lets the values decide."""
    classes: tuple[str, ...] = ()
    """Class order given by the user."""
    metric: str = ""


@dataclass(frozen=True, slots=True)
class InferredTask:
    """A task, its target array, and why it was read this way."""

    spec: TaskSpec
    reason: str
    target: NDArray[Any]
    """Laid out as :class:`~graftwork.core.records.TaskSpec` says."""


@dataclass(frozen=True, slots=True)
class TargetCells:
    """One target column, read once."""

    values: pd.Series
    codes: NDArray[np.int64]
    """Level of each row, ``[N]``, -1 where the cell is missing."""
    levels: Sequence[str]
    """Different cells as text, in order of appearance."""
    order: Sequence[str] | None
    """Order of a categorical column; None for other columns."""
    numbers: NDArray[np.float64]
    """The cells as numbers, ``[N]``, NaN where missing or no number; empty if the column is categorical or true and false."""
    words: Sequence[str]
    """Examples of cells that are no numbers; empty if all are."""

    @classmethod
    def of(cls, values: pd.Series) -> TargetCells:
        """Read a column whose cells are no lists."""
        order = _category_order(values)
        codes, levels = text_codes(values)
        is_flag = set(levels) <= {"True", "False"}
        numbers, words = to_numbers(values) if order is None and not is_flag else (np.zeros(0), ["x"])
        return cls(values, codes, levels, order, numbers, words)

    @classmethod
    def of_lists(cls, values: pd.Series) -> TargetCells:
        """Take a column of lists; only ``values`` can be asked then."""
        return cls(values, np.full(len(values), -1, dtype=np.int64), (), None, np.zeros(0), ("a list",))

    @property
    def distinct(self) -> list[str]:
        """The different cells, sorted as text."""
        return sorted(self.levels)

    @property
    def num_known(self) -> int:
        """Rows whose cell is not missing."""
        return int((self.codes >= 0).sum())

    @property
    def counts(self) -> list[int]:
        """Rows of each level."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.levels)).tolist()

    @property
    def are_numbers(self) -> bool:
        """Whether every known cell is a number."""
        return not self.words and bool(len(self.numbers))


def _category_order(values: pd.Series) -> list[str] | None:
    """Return the levels of a categorical column that occur, in its order; None for other columns."""
    if str(values.dtype) != "category":
        return None
    present = {as_text(value) for value in values.tolist()}
    return [text for text in map(as_text, values.cat.categories.tolist()) if text is not None and text in present]
