"""The Fisher-weighted mean: the joint optimum of quadratics, and what every weighted mean does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graftwork.core.errors import DataError
from graftwork.methods.merging import fisher_mean as module
from graftwork.methods.merging.fisher_mean import fisher_mean, information_scale

VALUES = hnp.arrays(np.float64, (3, 4), elements=st.floats(-100, 100, allow_subnormal=False))
INFORMATION = hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 100, allow_subnormal=False))
COEFFICIENTS = st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3)


def test_quadratics_merge_to_their_joint_optimum() -> None:
    """Losses ``0.5 (x - m_i)^T diag(h_i) (x - m_i)``: the sum is least where its gradient is zero."""
    random = np.random.default_rng(0)
    peaks, curvature = random.normal(size=(3, 50)), random.exponential(size=(3, 50))
    merged = fisher_mean(list(peaks), list(curvature), (1.0, 1.0, 1.0))
    np.testing.assert_allclose((curvature * (merged - peaks)).sum(axis=0), 0.0, atol=1e-12)
    best = np.linalg.solve(np.diag(curvature.sum(axis=0)), (curvature * peaks).sum(axis=0))
    np.testing.assert_allclose(merged, best)


@settings(deadline=None)
@given(VALUES, INFORMATION, COEFFICIENTS)
def test_it_stays_between_the_models(values: np.ndarray, information: np.ndarray, coefficients: list[float]) -> None:
    merged = fisher_mean(list(values), list(information), coefficients)
    slack = 1e-9 * (1.0 + np.abs(values).max(axis=0))
    assert (merged >= values.min(axis=0) - slack).all()
    assert (merged <= values.max(axis=0) + slack).all()


@settings(deadline=None)
@given(VALUES, INFORMATION, COEFFICIENTS)
def test_it_is_the_written_out_rule(values: np.ndarray, information: np.ndarray, coefficients: list[float]) -> None:
    merged = fisher_mean(list(values), list(information), coefficients, floors=(1e-6, 0.0, 0.0))
    floored = information.copy()
    floored[0] = np.maximum(floored[0], 1e-6)
    weights = np.array(coefficients)[:, None] * floored
    np.testing.assert_allclose(merged, (weights * values).sum(axis=0) / weights.sum(axis=0), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(VALUES, COEFFICIENTS)
def test_equal_information_is_isotropic(values: np.ndarray, coefficients: list[float]) -> None:
    alike = fisher_mean(list(values), [np.full(4, 0.3)] * 3, coefficients)
    np.testing.assert_allclose(alike, fisher_mean(list(values), None, coefficients), rtol=1e-9, atol=1e-9)


def test_equal_models_are_themselves_bit_for_bit() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(7, 3)).astype(np.float32)
    merged = fisher_mean([values] * 3, [random.exponential(size=(7, 3)) for _ in range(3)], (0.2, 0.3, 0.5))
    np.testing.assert_array_equal(merged, values)
    assert merged.dtype == np.float32


def test_entries_that_no_model_needs_keep_the_target_or_fall_to_the_middle() -> None:
    values, nothing = [np.array([1.0]), np.array([3.0])], [np.zeros(1), np.zeros(1)]
    assert fisher_mean(values, nothing, (0.5, 0.5)) == 1.0
    assert fisher_mean(values, nothing, (0.5, 0.5), floors=(1e-6, 0.0)) == 1.0
    assert fisher_mean(values, nothing, (0.5, 0.5), floors=(1e-6, 1e-6)) == 2.0, "a floor for all drags to the middle"
    assert fisher_mean(values, [np.zeros(1), np.ones(1)], (0.5, 0.5)) == 3.0
    assert fisher_mean(values, [np.zeros(1), np.ones(1)], (1.0, 0.0)) == 1.0, "a coefficient of 0 leaves a model out"


def test_large_tensors_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    values, information = random.normal(size=(2, 10, 10)), random.exponential(size=(2, 10, 10))
    whole = fisher_mean(list(values), list(information), (0.4, 0.6))
    monkeypatch.setattr(module, "_CHUNK", 7)
    np.testing.assert_array_equal(fisher_mean(list(values), list(information), (0.4, 0.6)), whole)
    names = {"a": information[0], "b": information[1]}
    assert information_scale(names, names) == pytest.approx(1.0 / np.linalg.norm(information))


def test_scaling_makes_models_with_large_gradients_count_alike() -> None:
    random = np.random.default_rng(3)
    information = random.exponential(size=(2, 20))
    loud = [information[0], 1000.0 * information[1]]
    scales = [information_scale({"a": part}, ["a"]) for part in loud]
    values = list(random.normal(size=(2, 20)))
    plain = [information_scale({"a": part}, ["a"]) for part in information]
    np.testing.assert_allclose(
        fisher_mean(values, loud, (0.5, 0.5), scales=scales),
        fisher_mean(values, list(information), (0.5, 0.5), scales=plain),
    )


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_information_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="of m1 at 'a' holds negative numbers, NaN or infinity"):
        information_scale({"a": np.array([1.0, bad])}, ["a"], "m1")
    with pytest.raises(DataError, match="zero everywhere"):
        information_scale({"a": np.zeros(3)}, ["a"])
