from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.coefficients import coefficient_points, search_coefficients


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 100), st.floats(0.05, 5.0))
def test_points_lie_on_the_simplex_and_begin_with_the_target(models: int, trials: int, seed: int, concentration: float) -> None:
    points = coefficient_points(models, trials, seed=seed, concentration=concentration)
    assert points.shape == ((1 if models == 1 else trials), models)
    assert (points >= 0.0).all()
    np.testing.assert_allclose(points.sum(axis=1), 1.0)
    np.testing.assert_array_equal(points[0], np.eye(models)[0])
    np.testing.assert_array_equal(points, coefficient_points(models, trials, seed=seed, concentration=concentration))


def test_two_models_are_tried_on_an_even_grid_with_both_ends() -> None:
    np.testing.assert_allclose(coefficient_points(2, 5)[:, 0], [1.0, 0.75, 0.5, 0.25, 0.0])


def test_seeds_draw_different_points() -> None:
    assert not np.array_equal(coefficient_points(3, 4, seed=0)[1:], coefficient_points(3, 4, seed=1)[1:])


def test_the_best_point_wins_and_the_first_of_equals() -> None:
    points = coefficient_points(2, 11)
    found = search_coefficients(points, lambda weights: -((weights[0] - 0.3) ** 2))
    assert found.weights == pytest.approx((0.3, 0.7))
    assert found.score == max(found.scores)
    assert len(found.scores) == 11
    assert search_coefficients(points, lambda weights: 1.0).weights == (1.0, 0.0), "no better than the target: the target"


def test_scores_that_are_no_numbers_never_win() -> None:
    points = coefficient_points(2, 3)
    found = search_coefficients(points, lambda weights: float("nan") if weights[0] > 0.4 else 0.1)
    assert found.weights == (0.0, 1.0)
    with pytest.raises(ConfigError, match="None of the 3 coefficients"):
        search_coefficients(points, lambda weights: float("nan"))


@pytest.mark.parametrize("call", [(0, 1, 1.0), (2, 0, 1.0), (3, 5, 0.0), (3, 5, float("inf"))])
def test_wrong_numbers_are_refused(call: tuple[int, int, float]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1, and `concentration` above 0"):
        coefficient_points(call[0], call[1], concentration=call[2])
