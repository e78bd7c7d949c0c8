from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.evaluation.domain_distance import proxy_a_distance


def test_equal_domains_are_near_and_distant_ones_are_two_apart() -> None:
    random = np.random.default_rng(0)
    left, right = random.normal(size=(600, 3)), random.normal(size=(500, 3))
    assert proxy_a_distance(left, right) < 0.3
    assert proxy_a_distance(left, right + 20.0) == 2.0


def test_it_grows_with_the_shift() -> None:
    random = np.random.default_rng(1)
    left, right = random.normal(size=(800, 2)), random.normal(size=(800, 2))
    near, middle, far = (proxy_a_distance(left, right + shift) for shift in (0.0, 1.0, 3.0))
    assert near < middle < far <= 2.0
    # two unit Gaussians whose means lie sqrt(2) apart: the best linear classifier errs in Phi(-sqrt(2) / 2) = 24 % of the rows
    assert middle == pytest.approx(2 * (1 - 2 * 0.24), abs=0.15)


def test_a_trace_in_a_feature_that_hardly_varies_counts_only_where_features_are_scaled_one_by_one() -> None:
    random = np.random.default_rng(2)
    left, right = random.normal(size=(4000, 2)), random.normal(size=(4000, 2))
    left[:, 1], right[:, 1] = 1e-4 * left[:, 1], 1e-4 * right[:, 1] + 1e-3
    assert proxy_a_distance(left, right) == 2.0
    assert proxy_a_distance(left, right, scale_columns=False) < 0.3
    assert proxy_a_distance(1e3 * left, 1e3 * right, scale_columns=False) == proxy_a_distance(left, right, scale_columns=False)
    assert proxy_a_distance(left, left + np.array([20.0, 0.0]), scale_columns=False) == 2.0


def test_constant_columns_and_unequal_sizes_are_fine_and_nonsense_is_not() -> None:
    flat = np.ones((10, 2))
    assert proxy_a_distance(flat, np.ones((7, 2))) == 0.0
    assert proxy_a_distance(flat, np.ones((7, 2)), scale_columns=False) == 0.0
    for wrong in (np.ones((3, 2)), np.ones((10, 3)), np.full((10, 2), np.nan)):
        with pytest.raises(ConfigError):
            proxy_a_distance(flat, wrong)
