"""Averaging and task arithmetic: exact where nothing needs rounding, and settings that make no sense are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger

TYPES = [np.float16, np.float32, np.float64]


def model(seed: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(seed).normal(size=(50, 7)).astype(dtype)}


@given(st.integers(1, 6), st.sampled_from(TYPES), st.booleans())
def test_the_mean_of_equal_models_is_that_model_bit_for_bit(count: int, dtype: type, weighted: bool) -> None:
    weights = [float(number + 1) for number in range(count)] if weighted else None
    merged = merge_arrays(model(0, dtype), [model(1, dtype)] * count, AveragingMerger(weights=weights))
    np.testing.assert_array_equal(merged["w"], model(1, dtype)["w"])


def test_a_model_in_float64_is_not_rounded() -> None:
    merged = merge_arrays(model(0), [model(1, np.float64)], AveragingMerger())
    assert merged["w"].dtype == np.float64
    np.testing.assert_array_equal(merged["w"], model(1, np.float64)["w"])


def test_the_mean_is_the_mean() -> None:
    tuned = [model(seed, np.float64) for seed in (1, 2, 3)]
    merged = merge_arrays(model(0, np.float64), tuned, AveragingMerger(weights=[1, 0, 3]))
    np.testing.assert_allclose(merged["w"], 0.25 * tuned[0]["w"] + 0.75 * tuned[2]["w"], rtol=1e-14, atol=1e-14)
    only = merge_arrays(model(0), [model(1), model(2)], AveragingMerger(weights=[0, 1]))
    np.testing.assert_array_equal(only["w"], model(2)["w"])


@pytest.mark.parametrize("dtype", TYPES)
def test_weights_that_no_model_changed_stay_bit_for_bit_under_task_arithmetic(dtype: type) -> None:
    tuned = [{"w": model(0, dtype)["w"].copy()} for _ in range(3)]
    for number, changed in enumerate(tuned):
        changed["w"][number] += 1
    merged = merge_arrays(model(0, dtype), tuned, TaskArithmeticMerger(scaling=0.3))
    np.testing.assert_array_equal(merged["w"][3:], model(0, dtype)["w"][3:])
    np.testing.assert_allclose(merged["w"][:3], model(0, dtype)["w"][:3] + 0.3, rtol=2e-3, atol=2e-3)


def test_statistics_of_equal_models_stay_bit_for_bit() -> None:
    statistics = {"w": np.ones(1), "norm.running_mean": np.random.default_rng(0).normal(size=100)}
    base = {name: np.zeros_like(value) for name, value in statistics.items()}
    merged = merge_arrays(base, [statistics] * 3, AveragingMerger())
    np.testing.assert_array_equal(merged["norm.running_mean"], statistics["norm.running_mean"])


@pytest.mark.parametrize("kind", [AveragingMerger, TaskArithmeticMerger])
def test_one_finite_weight_a_model(kind: type[AveragingMerger] | type[TaskArithmeticMerger]) -> None:
    for weights in ([1.0], [1.0, 1.0], [0.5, 0.5, 0.5, 0.5], []):
        with pytest.raises(ConfigError, match=rf"(has {len(weights)} numbers for 3 models)|(not all 0)"):
            merge_arrays(model(0), [model(1), model(2), model(4)], kind(weights=weights))
    for wrong in (math.inf, -math.inf, math.nan):
        with pytest.raises(ConfigError, match="`weights` must be finite"):
            kind(weights=[1.0, wrong, 1.0])
    with pytest.raises(ConfigError, match="`scaling` must be a finite number; got inf"):
        TaskArithmeticMerger(scaling=math.inf)
    with pytest.raises(ConfigError, match="at least 0"):
        AveragingMerger(weights=[1.0, -1.0, 1.0])
