from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.math.dual_cone import dual_cone_weights


def best_by_trying_all(gramian: NDArray[np.float64], start: NDArray[np.float64]) -> float:
    """Smallest value of the quadratic form over weights that are at least ``start``: every set of fixed entries, solved
    exactly."""
    size, best = len(start), np.inf
    for fixed in itertools.product([False, True], repeat=size):
        held = np.array(fixed)
        weights = start.copy()
        free = ~held
        if free.any():
            weights[free] = np.linalg.lstsq(gramian[np.ix_(free, free)], -gramian[np.ix_(free, held)] @ start[held], rcond=None)[
                0
            ]
        if (weights >= start - 1e-9).all():
            best = min(best, float(weights @ gramian @ weights))
    return best


def test_value_by_hand() -> None:
    weights = dual_cone_weights(np.array([[1.0, -0.5], [-0.5, 1.0]]), np.array([1.0, 0.0]))
    assert weights == pytest.approx([1.0, 0.5])  # e1 projected onto the plane orthogonal to the second row


def test_vectors_inside_the_cone_stay() -> None:
    assert dual_cone_weights(np.eye(3), np.eye(3)) == pytest.approx(np.eye(3))


def test_opposite_gradients_leave_nothing() -> None:
    gramian = np.array([[1.0, -1.0], [-1.0, 1.0]])
    weights = dual_cone_weights(gramian, np.array([0.5, 0.5]))
    assert weights @ gramian @ weights == pytest.approx(0.0, abs=1e-12)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000))
def test_is_the_projection(rows: int, columns: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    jacobian = generator.normal(size=(rows, columns)) * 10.0 ** generator.uniform(-2, 2, size=(rows, 1))
    gramian, start = jacobian @ jacobian.T, generator.uniform(0, 1, size=rows)
    weights = dual_cone_weights(gramian, start)
    assert (weights >= start).all()
    progress = gramian @ weights
    norms = np.linalg.norm(jacobian, axis=1)
    assert (progress >= -1e-7 * norms * (1 + np.linalg.norm(start @ jacobian))).all()  # in the dual cone
    value, scale = float(weights @ gramian @ weights), float(start @ gramian @ start)
    assert value <= best_by_trying_all(gramian, start) + 1e-7 * (1 + scale)
