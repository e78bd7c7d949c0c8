"""Many features of few rows in as many coordinates as there are rows: linear models with squared penalties stay the same, and are
fitted in a fraction of the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_ROWS", "RowSpace"]

Floats = NDArray[np.float64]
MOST_ROWS = 2500
"""Finding the coordinates takes a time that grows with the cube of the rows: some seconds for these."""


@dataclass(frozen=True, slots=True, eq=False)
class RowSpace:
    """Coordinates of rows along the principal axes of their centred features.

    A linear model that is fitted to any of these rows with a penalty on its squared weights has its weights in the space that
    their features span, so nothing is lost.
    """

    coordinates: Floats
    """``[N, r]``: distances and angles between rows are those of their centred features."""
    _features: Any
    _means: Floats
    _dual: Floats

    @classmethod
    def of_rows(cls, features: Any) -> Self:
        """Find the coordinates.

        Args:
            features: Sparse ``[N, D]``.
        """
        means = np.asarray(features.mean(axis=0)).reshape(-1)
        products = (features @ features.T).toarray()
        # Centred without filling the zeros of the features.
        products = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
        values, vectors = np.linalg.eigh(products)
        kept = values > 1e-9 * max(float(values[-1]), 1e-30)
        values, vectors = values[kept], vectors[:, kept]
        return cls(vectors * np.sqrt(values), features, means, vectors / np.sqrt(values))

    def weights(self, slopes: Floats, intercepts: Floats) -> tuple[Floats, Floats]:
        """Return weights ``[D, K]`` and intercepts ``[K]`` of the features from those of the coordinates, ``[r, K]`` and
        ``[K]``."""
        found = np.asarray(self._features.T @ (self._dual @ slopes))
        return found, intercepts - self._means @ found
