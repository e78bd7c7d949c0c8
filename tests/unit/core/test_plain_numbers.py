"""Numbers in text are written as people write them, and say the same number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.plain_numbers import plain_number
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12345.6, 4, "12,346"),
        (23000.0, 4, "23,000"),
        (2019.0, 4, "2019"),
        (0.5, 4, "0.5"),
        (9.9999, 3, "10"),
        (120.4, 2, "120"),
        (-1234567.0, 3, "-1,234,567"),
        (0.00012, 4, "0.00012"),
        (2.5e-7, 4, "2.5e-07"),
        (0.0, 4, "0"),
        (float("nan"), 4, "nan"),
    ],
)
def test_numbers_as_people_write_them(value: float, digits: int, text: str) -> None:
    assert plain_number(value, digits) == text


@given(st.floats(min_value=-1e14, max_value=1e14), st.integers(1, 6))
def test_the_text_says_the_number(value: float, digits: int) -> None:
    text = plain_number(value, digits)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.6 * 10.0 ** (1 - digits), abs=1e-300)
    assert ("e" in text) == (0 < abs(value) < 1e-4)


def test_targets_and_predictions_of_thousands_have_no_exponent() -> None:
    task = TaskSpec(name="price", kind="regression", size=1)
    assert task_kind(task).describe(task, np.array([23456.7]), is_prediction=True) == "23,457"
