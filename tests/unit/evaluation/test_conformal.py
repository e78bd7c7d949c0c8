"""Intervals from errors on kept-back rows: they hold what is asked, whatever is thinned out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.evaluation.conformal import MOST_KEPT, half_width, kept_errors, read_errors, widths

TASK = TaskSpec(name="y", kind="regression", size=1)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=900), st.floats(0.01, 0.99))
def test_the_width_is_that_of_the_definition_or_a_little_wider(values, level) -> None:
    errors = kept_errors(TASK, np.zeros((len(values), 1)), np.array(values)[:, None])[0]
    width = half_width(errors, level)
    rank = math.ceil((len(values) + 1) * level - 1e-9)  # the definition, on all errors
    if rank > len(values):
        assert math.isnan(width)
        return
    exact = float(f"{sorted(values)[rank - 1]:.6g}")
    if len(values) <= MOST_KEPT:
        assert width == exact
    else:
        assert math.isnan(width) or width >= exact


@pytest.mark.parametrize("rows", [30, 1500])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_new_rows_lie_in_their_intervals_as_often_as_asked(rows, level) -> None:
    generator = np.random.default_rng(rows)
    held = []
    for _ in range(400):
        errors = kept_errors(TASK, generator.standard_t(3, size=(rows, 1)), np.zeros((rows, 1)))[0]
        held.append(np.mean(np.abs(generator.standard_t(3, size=200)) <= half_width(errors, level)))
    # The mean over draws is (at least) the level; with 30 rows it may be above by 1 in 31.
    assert level - 0.01 <= np.mean(held) <= level + 1 / (rows + 1) + 0.01


def test_values_have_widths_of_their_own_and_missing_labels_do_not_count() -> None:
    task = TaskSpec(name="y", kind="regression", size=2)
    target = np.array([[0.0, 0.0], [np.nan, 10.0], [2.0, 20.0], [3.0, 30.0]])
    errors = kept_errors(task, target, np.zeros((4, 2)))
    assert errors == [[0.0, 2.0, 3.0], [0.0, 10.0, 20.0, 30.0]]
    np.testing.assert_array_equal(widths(task, errors, 0.5), [2.0, 20.0])


def test_a_level_that_the_rows_cannot_give_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no interval for 0.9 of the rows: 3 rows were kept back, which suffice for up to 75%"):
        widths(TASK, [[1.0, 2.0, 3.0]], 0.9)
    with pytest.raises(ConfigError, match="without errors on kept-back rows"):
        widths(TASK, [[]], 0.9)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        widths(TASK, [[1.0, 2.0]], 1.5)


@pytest.mark.parametrize("stored", [None, [], {"y": 3}, {"y": [[1.0], [2.0]]}, {"y": ["a"]}, {"y": [[None]]}])
def test_what_a_stranger_stored_is_no_error(stored) -> None:
    assert read_errors({"kept_errors": stored}, TASK) == [[]]
