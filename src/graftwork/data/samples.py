"""Smaller versions of a suite: fewer training rows for races on large tables, a handful of rows to measure what a row costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.data.row_names import RowNames
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["MOST_VALIDATION", "nested_sample", "only_split_rows", "sampled_suite", "take_rows"]

MOST_VALIDATION = 10_000
"""Most validation rows of a sample: samples of any size are then compared on the same rows."""
LEAST_LABELS = 200
"""Labelled training rows of each task that a sample keeps, if there are so many."""

Rows = NDArray[np.int64]


def sampled_suite(suite: Suite, rows: int, seed: int) -> Suite:
    """Return the suite with at most ``rows`` training rows and a third as many validation rows (10,000 at most), drawn at random;
    test rows stay.

    Tasks with few labels keep :data:`LEAST_LABELS` of them, so the sample may be a little larger.

    Args:
        suite: The suite.
        rows: Most training rows, at least 1.
        seed: Equal seeds give equal samples.
    """
    limits = {"train": rows, "val": min(MOST_VALIDATION, max(1, rows // 3))}
    splits = {name: _sample(suite, suite.splits[name], limit, seed) for name, limit in limits.items() if name in suite.splits}
    return suite.with_splits({**suite.splits, **splits})


def _sample(suite: Suite, rows: Rows, limit: int, seed: int) -> Rows:
    rows = np.asarray(rows, dtype=np.int64)
    if len(rows) <= limit:
        return rows
    order = Seeds(seed).numpy("sample").permutation(rows)
    chosen = order[:limit]
    for task in suite.tasks:
        known = labelled_rows(np.asarray(suite.targets[task.name][order]))
        missing = LEAST_LABELS - int(known[:limit].sum())
        if missing > 0:
            chosen = np.concatenate([chosen, order[limit:][known[limit:]][:missing]])
    return np.unique(chosen)


def nested_sample(suite: Suite, share: float, seed: int) -> Suite:
    """Return the suite with a part of its training and validation rows, drawn at random; groups stay whole, test rows stay.

    With equal seeds the rows of a smaller part are among those of a larger one.

    Args:
        suite: The suite.
        share: Share of the rows (of the groups), in (0, 1].
        seed: Seed of the order.
    """
    kept = {}
    for name in ("train", "val"):
        rows = np.asarray(suite.splits[name], dtype=np.int64)
        units = rows if suite.groups is None else suite.groups[rows]
        order = Seeds(seed).numpy(f"nested {name}").permutation(np.unique(units))
        chosen = order[: max(1, round(share * len(order)))] if len(order) else order
        kept[name] = rows[np.isin(units, chosen)]
    return suite.with_splits({**suite.splits, **kept})


def take_rows(suite: Suite, number: int) -> Suite:
    """Return a suite of about ``number`` rows of ``suite``, three quarters of them training rows, the others validation rows; the
    arrays hold these rows only. They are spread over the whole suite, since tables are often sorted.

    What a pretrained backbone does to a row can be measured with it, whatever the number of rows.

    Args:
        suite: The suite.
        number: Rows, at least 4.
    """
    train, val = (np.asarray(suite.splits[name], dtype=np.int64) for name in ("train", "val"))
    kept_val = _spread(val, max(1, number // 4))
    # Labelled rows first: a training without any label is refused.
    known = np.zeros(len(train), dtype=bool)
    for task in suite.tasks:
        known |= labelled_rows(np.asarray(suite.targets[task.name][train]))
    wanted = max(1, number - len(kept_val))
    kept = _spread(train[known], wanted)
    kept = np.concatenate([kept, _spread(train[~known], wanted - len(kept))])
    rows = np.concatenate([kept, kept_val])
    places = np.arange(len(rows))
    empty = places[:0]
    splits = {**dict.fromkeys(suite.splits, empty), "train": places[: len(kept)], "val": places[len(kept) :]}
    return _suite_of(suite, rows, splits)


def only_split_rows(suite: Suite) -> Suite:
    """Return the suite without the rows that are in no split, in the order of ``suite``: they would be encoded and stored for
    nothing."""
    rows = np.unique(np.concatenate([np.asarray(part, dtype=np.int64) for part in suite.splits.values()]))
    if len(rows) == len(suite):
        return suite
    return _suite_of(suite, rows, {name: np.searchsorted(rows, part) for name, part in suite.splits.items()})


def _suite_of(suite: Suite, rows: Rows, splits: Mapping[str, Rows]) -> Suite:
    """Return a suite of some rows."""
    return replace(
        suite,
        inputs={name: array[rows] for name, array in suite.inputs.items()},
        targets={name: array[rows] for name, array in suite.targets.items()},
        splits=dict(splits),
        groups=None if suite.groups is None else suite.groups[rows],
        domain=None if suite.domain is None else suite.domain[rows],
        raw=_taken(suite.raw, rows, len(suite)),
    )


def _spread(rows: Rows, number: int) -> Rows:
    """Return so many of the rows at equal distances, or all if there are not more."""
    return rows if len(rows) <= number else rows[np.arange(number) * len(rows) // max(number, 1)]


def _taken(raw: Mapping[str, Any], rows: Rows, size: int) -> dict[str, Any]:
    """Return the extras of some rows; what has no entry for each row stays as it is."""
    found: dict[str, Any] = {}
    for name, value in raw.items():
        if isinstance(value, Mapping):
            found[name] = _taken(value, rows, size)
        elif isinstance(value, list | tuple | RowNames) and len(value) == size:
            found[name] = [value[row] for row in rows]
        elif isinstance(value, np.ndarray) and len(value) == size:
            found[name] = value[rows]
        else:
            found[name] = value
    return found
