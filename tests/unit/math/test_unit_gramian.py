"""Weights from lengths and cosines: what defines each of them holds for rows of any size, in number and in length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.math.unit_gramian import UnitGramian, aligned_weights, equal_angle_weights, equal_projection_weights

Floats = NDArray[np.float64]
FLOAT32 = 2.0**-23


@st.composite
def independent_rows(draw: st.DrawFn) -> Floats:
    """Up to five rows at clear angles; lengths over six orders of magnitude."""
    tasks, seed = draw(st.integers(1, 5)), draw(st.integers(0, 10_000))
    lengths = draw(st.lists(st.floats(-3.0, 3.0), min_size=tasks, max_size=tasks))
    rows = np.random.default_rng(seed).normal(size=(tasks, tasks + 2))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assume(np.linalg.cond(rows) < 30)
    return rows * 10.0 ** np.array(lengths)[:, None]


def test_lengths_and_cosines() -> None:
    unit = UnitGramian.of(np.array([[4.0, 0.0, 3.0], [0.0, 0.0, 0.0], [3.0, 0.0, 9.0]]))
    assert unit.kept.tolist() == [True, False, True]
    assert unit.lengths.tolist() == [2.0, 3.0]
    assert unit.cosines.tolist() == [[1.0, 0.5], [0.5, 1.0]]
    assert unit.spread(np.array([5.0, 6.0])).tolist() == [5.0, 0.0, 6.0]


@given(independent_rows())
def test_projections_onto_all_rows_are_equal_and_weights_sum_to_one(rows: Floats) -> None:
    weights = equal_projection_weights(rows @ rows.T, FLOAT32)
    if not weights.any():  # the weights of the unit direction cancel out; this happens on a set of measure zero
        return
    assert weights.sum() == pytest.approx(1.0, abs=1e-9 * np.abs(weights).sum())
    projections = rows @ (weights @ rows) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-6)


@given(independent_rows())
def test_angles_to_all_rows_are_equal_and_the_length_is_the_sum_of_projections(rows: Floats) -> None:
    direction = equal_angle_weights(rows @ rows.T, None, FLOAT32) @ rows
    lengths, length = np.linalg.norm(rows, axis=1), np.linalg.norm(direction)
    cosines = rows @ direction / lengths / length
    np.testing.assert_allclose(cosines, cosines[0], rtol=1e-7)
    assert length == pytest.approx((lengths * cosines).sum(), rel=1e-7)


def test_preferred_cosines() -> None:
    rows = np.array([[2.0, 0.0, 0.0], [3.0, 1.0, 0.0]])
    direction = equal_angle_weights(rows @ rows.T, np.array([1.0, 2.0])) @ rows
    cosines = rows @ direction / np.linalg.norm(rows, axis=1)
    assert cosines[1] == pytest.approx(2.0 * cosines[0])


@given(independent_rows(), st.sampled_from(["min", "median", "rmse"]))
def test_aligned_rows_are_orthogonal_in_sum_and_of_one_size(rows: Floats, mode: str) -> None:
    """By the singular value decomposition of the rows themselves: ``s U V^T`` and the mean of its rows."""
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    scale = {"min": values[-1], "median": np.sort(values)[(len(values) - 1) // 2], "rmse": np.sqrt((values**2).mean())}[mode]
    expected = scale * (left @ right).mean(axis=0)
    found = aligned_weights(rows @ rows.T, None, mode, FLOAT32) @ rows  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.linalg.norm(expected))


def test_a_row_ten_thousand_times_shorter_is_a_direction_of_its_own() -> None:
    rows = np.array([[1e4, 0.0, 0.0], [0.0, 1.0, 0.0]])
    gram = rows @ rows.T
    np.testing.assert_allclose(aligned_weights(gram, None, "min", FLOAT32) @ rows, [0.5, 0.5, 0.0], rtol=1e-12)
    shares = equal_projection_weights(gram, FLOAT32)
    np.testing.assert_allclose(shares @ rows, [1e4 / 10_001, 1e4 / 10_001, 0.0], rtol=1e-12)


def test_rows_that_differ_by_rounding_errors_are_one_direction() -> None:
    """Otherwise the smallest component would be that difference, and Aligned-MTL would hardly move."""
    rows = np.array([[1.0, 2.0, 0.5], [1.0, 2.0, 0.5], [0.0, 1.0, -1.0]])
    rows[1] *= 1.0 + FLOAT32 * np.array([0.4, -0.3, 0.2])
    exact = rows.copy()
    exact[1] = exact[0]
    for solve in (aligned_weights, equal_projection_weights, equal_angle_weights):
        found, expected = (solve(each @ each.T, resolution=FLOAT32) @ each for each in (rows, exact))  # type: ignore[operator]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert np.linalg.norm(found) > 0.1


@pytest.mark.parametrize("ratio", [1.0, 2.0, 1e3])
def test_parallel_rows_are_the_limit_of_nearly_parallel_ones(ratio: float) -> None:
    for angle in (1e-3, 0.0):
        rows = np.array([[1.0, 0.0], [ratio * np.cos(angle), ratio * np.sin(angle)]])
        weights = equal_projection_weights(rows @ rows.T)
        assert np.linalg.norm(weights @ rows) == pytest.approx(2.0 * ratio / (1.0 + ratio), rel=1e-5)


@pytest.mark.parametrize("resolution", [2.0**-52, FLOAT32])
def test_opposite_rows_have_no_common_direction(resolution: float) -> None:
    rows = np.array([[1.0, -2.0], [-3.0, 6.0]]) * (1.0 + resolution * np.array([[0.3, 0.0], [0.0, -0.2]]))
    for solve in (equal_projection_weights, equal_angle_weights):
        assert not solve(rows @ rows.T, resolution=resolution).any()  # type: ignore[operator]


def test_zero_rows_weigh_nothing_and_nothing_but_zeros_is_no_error() -> None:
    gram = np.diag([4.0, 0.0, 1.0])
    for solve in (equal_projection_weights, equal_angle_weights):
        assert solve(gram)[1] == 0.0
        assert not solve(np.zeros((3, 3))).any()
    rows = np.diag([2.0, 0.0, 1.0])
    np.testing.assert_allclose(aligned_weights(gram) @ rows, [1 / 3, 0.0, 1 / 3])
    assert np.isfinite(aligned_weights(np.zeros((3, 3)))).all()


@pytest.mark.parametrize("solve", [aligned_weights, equal_angle_weights, equal_projection_weights])
def test_numbers_that_are_not_finite_are_refused(solve: object) -> None:
    for number in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            solve(np.array([[number, 0.0], [0.0, 1.0]]))  # type: ignore[operator]
