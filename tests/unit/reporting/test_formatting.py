from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.reporting.formatting import (
    MISSING,
    count,
    duration,
    file_size,
    interval,
    number,
    percent,
    percent_interval,
    spans_zero,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8124, "0.812"),
        (12.345, "12.3"),
        (1234567.0, "1,234,567"),
        (-0.5, "−0.500"),
        (0, "0"),
        (2.5e-7, "2.50e−07"),
        (None, MISSING),
    ],
)
def test_number(value, text) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.14159, "+3.1\xa0%"), (-12.0, "−12.0\xa0%"), (0.04, "0.0\xa0%"), (-0.04, "0.0\xa0%"), (12345.6, "+12,346\xa0%")],
)
def test_percent(value, text) -> None:
    assert percent(value) == text


@pytest.mark.parametrize("function", [number, percent, duration, count, file_size])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, "text", True])
def test_what_is_no_number_is_not_available(function, value) -> None:
    assert function(value) == MISSING


def test_intervals() -> None:
    assert interval({"value": 0.8, "low": 0.75, "high": 0.84}) == "0.800 [0.750, 0.840]"
    assert interval({"value": 152.31, "low": 9.0, "high": 160.0}) == "152 [9, 160]"
    assert interval({"value": 0.8, "low": None, "high": None}) == "0.800"
    assert interval({"value": 1.357e9, "low": 672502421.0, "high": 2.12e9}) == "1.36e+09 [6.73e+08, 2.12e+09]"
    assert interval({"value": 9.1e-5, "low": 0.0, "high": 1.2e-4}) == "9.10e−05 [0, 1.20e−04]"
    assert interval({"value": None}) == interval(None) == MISSING
    assert percent_interval({"value": -1.0, "low": -2.0, "high": 0.01}) == "−1.0\xa0% [−2.0, 0.0]"
    assert interval({"value": 0.0, "low": 0.0, "high": 0.0}) == "0.000 [0.000, 0.000]"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.031, "31 ms"),
        (0.0005, "under 1 ms"),
        (0, "0 s"),
        (59.6, "1 min 0 s"),
        (3599.7, "1 h 0 min"),
        (90, "1 min 30 s"),
        (86400, "24 h 0 min"),
    ],
)
def test_duration(seconds, text) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(600, "600"), (9999, "9,999"), (28_600, "28.6 k"), (3_371_234, "3.37 M"), (0, MISSING)]
)
def test_count(value, text) -> None:
    assert count(value) == text


def test_file_size() -> None:
    assert [file_size(value) for value in (0, 512, 2048, 4.1e8, 2e9)] == [MISSING, "512 B", "2.05 kB", "410 MB", "2.00 GB"]


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_any_float_formats_in_few_signs(value: float) -> None:
    assert len(number(value)) <= 14
    assert float(number(value).replace("−", "-").replace(",", "")) == pytest.approx(value, rel=6e-3, abs=1e-300)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1, 1, True), (0, 1, True), (0.1, 1, False), (-2, -1, False), (None, 1, True), (1, math.nan, True)],
)
def test_spans_zero(low, high, expected) -> None:
    assert spans_zero(low, high) is expected
