"""What the simulated recommendation logs share: popularity, grouped latent vectors, event rates, and the suite around the
columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.encoders.columns import CategoricalColumn, NumericColumn
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.suite import Suite

__all__ = ["event_suite", "grouped_vectors", "happens", "popularity", "with_rate"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


def popularity(number: int, exponent: float, generator: np.random.Generator) -> Floats:
    """Return shares ``[number]`` that fall with a random rank as ``rank^-exponent``; exponent 0 makes all equal."""
    shares = np.arange(1, number + 1, dtype=np.float64) ** -exponent
    return generator.permutation(shares / shares.sum())


def grouped_vectors(
    group: NDArray[np.int64], num_groups: int, width: int, generator: np.random.Generator, *, group_share: float = 0.6
) -> Floats:
    """Return vectors ``[N, width]`` of unit variance, of which ``group_share`` comes from the group and the rest is each one's
    own."""
    centres = generator.normal(size=(num_groups, width))
    own = generator.normal(size=(len(group), width))
    return np.asarray(np.sqrt(group_share) * centres[group] + np.sqrt(1.0 - group_share) * own)


def with_rate(logits: Floats, rate: float, weights: Floats | None = None) -> Floats:
    """Return ``logits`` shifted by a constant so that the (weighted) mean probability is ``rate``."""
    # Bounds at which every sigmoid is 0 or 1, so that the rate lies between.
    low, high = -40.0 - float(logits.max()), 40.0 - float(logits.min())
    # Sixty halvings reach the last bit of a float64.
    for _ in range(60):
        middle = (low + high) / 2.0
        share = np.average(_sigmoid(logits + middle), weights=weights)
        low, high = (middle, high) if share < rate else (low, middle)
    return logits + (low + high) / 2.0


def happens(logits: Floats, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw 0 or 1 for each logit."""
    return (generator.random(len(logits)) < _sigmoid(logits)).astype(np.int64)


def event_suite(
    name: str,
    *,
    tasks: Sequence[str],
    targets: Mapping[str, Array],
    numeric: Mapping[str, Array],
    categorical: Mapping[str, tuple[Array, int]],
    splits: Mapping[str, NDArray[np.int64]],
    factors: Mapping[str, Array],
    layout: Mapping[str, Any] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Suite:
    """Return a table suite of binary tasks.

    Args:
        name: Name of the suite.
        tasks: Names of the tasks.
        targets: Their labels.
        numeric: Columns ``[N]``, about standardised.
        categorical: ``{column: (codes, number of levels)}``, codes from 1 to the number of levels, 0 where missing.
        splits: Row numbers.
        factors: Hidden columns, kept in ``raw["factors"]``; a guarded arm never sees them.
        layout: Further input sizes (see :mod:`graftwork.nn.fields`).
        groups: Group of each row.
    """
    columns = [NumericColumn(column, 0.0, 1.0, False) for column in numeric]
    levels = [
        CategoricalColumn(column, tuple(str(level) for level in range(1, size + 1))) for column, (_, size) in categorical.items()
    ]
    encoder = TableEncoder([*columns, *levels])
    return Suite.of_arrays(
        name=name,
        input_specs={"table": encoder.spec(**(layout or {}))},
        tasks=[TaskSpec(name=task, kind="binary", size=1, classes=("no", "yes"), columns=(task,)) for task in tasks],
        inputs={
            "numeric": np.stack(list(numeric.values()), axis=1).astype(np.float32),
            "categorical": np.stack([codes for codes, _ in categorical.values()], axis=1).astype(np.int64),
        },
        targets=dict(targets),
        splits=dict(splits),
        groups=groups,
        raw={"factors": dict(factors)},
        notes=("Generated data: the right answer is known.",),
    )


def _sigmoid(logits: Floats) -> Floats:
    # By tanh, which does not overflow as exp does.
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
