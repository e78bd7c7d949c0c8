"""What partial pooling sees of a table: its centred columns; of more columns than every unit can have slopes for, the directions in
which ridge regression of all units together points, and the principal ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.domains.tabular.linear_fits import RidgePath
from graftwork.domains.tabular.pooled_fits import Labels

__all__ = ["PooledFeatures"]

Floats = NDArray[np.float64]
PENALTIES = (0.01, 0.1, 1.0)
"""Penalties, for each row, of the regressions whose directions are taken: which of them serves is left to the shared map."""
_ROWS = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class PooledFeatures:
    """Features ``[n, P]`` of columns ``[n, D]``, the first of them 1."""

    mean: Floats
    directions: Floats | None
    """``[D, P - 1]``; None for the columns themselves."""

    @classmethod
    def of(cls, x: Floats, labels: Sequence[Labels], width: int, most: int) -> Self:
        """Return the features of columns.

        Args:
            x: Columns of all rows, ``[n, D]``.
            labels: Targets of each task, which give the shared directions.
            width: Columns of each target: there is a shared map for each.
            most: Most features, at least 2.
        """
        mean = x.mean(axis=0)
        if x.shape[1] < most:
            return cls(mean, None)
        centred = x - mean
        values, vectors = np.linalg.eigh(centred.T @ centred / max(len(x), 1))
        shared = _shared(x, labels, width, most // 2)
        deviation = (centred @ shared).std(axis=0)
        shared = shared * np.sqrt(max(values[-1], 0.0)) / np.where(deviation > 1e-9, deviation, 1.0)
        return cls(mean, np.concatenate([shared, vectors[:, ::-1][:, : most - 1 - shared.shape[1]]], axis=1))

    def matrix(self, x: Floats) -> Floats:
        """Return the features of rows ``[n, D]``."""
        centred = x - self.mean
        found = centred if self.directions is None else centred @ self.directions
        return np.concatenate([np.ones((len(x), 1)), found], axis=1)

    def weights(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Return weights of the columns ``[D, K]`` and intercepts ``[K]`` for coefficients ``[K, P]``."""
        slopes: Any = coefficients[:, 1:].T
        if self.directions is not None:
            slopes = self.directions @ slopes
        return np.asarray(slopes), coefficients[:, 0] - self.mean @ slopes


def _shared(x: Floats, labels: Sequence[Labels], width: int, most: int) -> Floats:
    """Return ``[D, k]``: ridge regression of all units together, every one from its own means."""
    total = sum(len(one.places) for one in labels)
    gap = max(1, -(-total // _ROWS))
    parts, values = [np.zeros((0, x.shape[1]))], [np.zeros((0, width))]
    for one in labels:
        if len(one.places) > 1:
            parts.append((x[one.places] - x[one.places].mean(axis=0))[::gap])
            values.append((one.values - one.values.mean(axis=0))[::gap])
    rows, targets = np.concatenate(parts), np.concatenate(values)
    if not len(rows):
        return np.zeros((x.shape[1], 0))
    path = RidgePath.of(rows)
    coefficients = path.coefficients(rows, targets)
    found = [path.vectors @ path.shrunk(coefficients, penalty) for penalty in PENALTIES]
    return np.concatenate(found if width * len(PENALTIES) <= most else found[1:2], axis=1)[:, :most]
