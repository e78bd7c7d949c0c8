"""Targets that are one quantity measured several times (``sales_1`` to ``sales_12``, ``q1`` to ``q20``): their kind is decided
from the values of all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.data.reading.table import Table
from graftwork.data.reading.target_cells import TargetRequest

__all__ = ["looks_like_amount_name", "name_stem", "shared_values"]

Floats = NDArray[np.float64]

_MOST_LEVELS = 20
"""Columns with more values are numbers anyway: only those with few may need their siblings."""
_COMMON = 0.5
_LARGEST_CODE = 20
"""Values beyond it number no classes: amounts of any two targets can be of one kind, whatever the names are."""
_AMOUNT_WORDS = frozenset(
    ["count", "counts", "amount", "amounts", "qty", "quantity", "total", "sales", "price", "cost", "costs", "income", "revenue"]
) | {"visits", "views", "clicks", "age", "years", "months", "weeks", "days", "hours", "minutes", "seconds"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def looks_like_amount_name(name: str) -> bool:
    """Return whether a name says that whole numbers are amounts: how many, how much, how long.

    Example:
        >>> looks_like_amount_name("visit_count"), looks_like_amount_name("country")
        (True, False)
    """
    return any(word.lower() in _AMOUNT_WORDS for word in _WORD.findall(name))


def name_stem(name: str) -> str:
    """Return what the names of siblings have in common: the name without its numbers.

    Example:
        >>> name_stem("sales_2024_01"), name_stem("Q12"), name_stem("price")
        ('sales', 'q', 'price')
    """
    return re.sub(r"[\W_]*\d+[\W_]*", " ", name).strip().lower()


def shared_values(table: Table, requests: Sequence[TargetRequest]) -> Mapping[str, Floats]:
    """Return the different values of all siblings, sorted, for each target of few whole numbers that has any.

    Siblings hold whole numbers; half of the values of one occur in the others. Their names differ in numbers only, or the
    target has values beyond 20 (23000 beside other sales).

    Args:
        table: The table.
        requests: All targets; those whose kind the user gives, and those of several columns, are left out.
    """
    asked = [request for request in requests if not request.kind and len(request.columns) == 1]
    if len(asked) < 2:
        return {}
    values = {request.name: _whole_values(table, request.columns[0]) for request in asked}
    stems: dict[str, list[str]] = {}
    for name in values:
        # A name without a number is no sibling by name.
        stems.setdefault(name_stem(name) if name_stem(name) != name.lower() else f"= {name}", []).append(name)
    found: dict[str, Floats] = {}
    for name, own in values.items():
        if not 0 < len(own) <= _MOST_LEVELS:
            continue
        by_name = next(members for members in stems.values() if name in members)
        by_value = list(values) if own[-1] > _LARGEST_CODE else []
        for others in (by_name, by_value):
            rest = np.unique(np.concatenate([np.zeros(0), *(values[other] for other in others if other != name)]))
            if np.isin(own, rest).mean() >= _COMMON:
                found[name] = np.union1d(own, rest)
                break
    return found


def _whole_values(table: Table, name: str) -> Floats:
    """Return the different values of a column, sorted; empty if they are not all whole numbers."""
    column = table[name]
    if column.is_nested or column.is_category or column.number_rule is None or column.number_rule.tolerant:
        return np.zeros(0)
    values = np.unique(column.numbers().values)
    values = values[~np.isnan(values)]
    is_whole = np.isfinite(values).all() and (values == np.round(values)).all()
    return values if is_whole else np.zeros(0)
