"""Quantities as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.workflows.quantities import (
    format_bytes,
    format_count,
    format_seconds,
    parse_bytes,
    parse_count,
    parse_milliseconds,
    parse_seconds,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("6m", 360), ("1h30m", 5400), ("1.5h", 5400), (45, 45), ("45", 45), ("2min", 120), ("500ms", 0.5)],
)
def test_times(text: str | int, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-3m", "6q", "0", 0, True, "1h30q", "inf", "1.2.3m 5s", ".m 5s", "1h2", 10**400])
def test_what_is_no_time_is_refused_with_examples(text: str | int) -> None:
    with pytest.raises(ConfigError, match=r"A time looks like '90s', '6m'.*got"):
        parse_seconds(text)


def test_counts_sizes_and_latencies() -> None:
    assert parse_count("5M") == 5_000_000
    assert parse_count("800k") == 800_000
    assert parse_bytes("2GB") == 2_000_000_000
    assert parse_bytes("1GiB") == 2**30
    assert parse_milliseconds("20ms") == pytest.approx(20)
    assert parse_milliseconds("0.5s") == pytest.approx(500)
    assert parse_milliseconds(20) == parse_milliseconds("20") == pytest.approx(20)


@given(st.integers(min_value=1, max_value=10**6))
def test_seconds_survive_as_text(seconds: int) -> None:
    assert parse_seconds(f"{seconds}s") == seconds


def test_seconds_as_words() -> None:
    assert [format_seconds(value) for value in (0.04, 9.96, 59.6, 3600)] == ["0.0 s", "10.0 s", "1 min 00 s", "1 h 00 min"]


def test_several_units_may_have_a_point() -> None:
    assert parse_seconds("1.5m .5s 1.s") == pytest.approx(91.5)


@pytest.mark.parametrize("value", [10**400, "1.2.3", "5 weeks", True])
def test_what_is_no_latency_is_refused(value: str | int) -> None:
    with pytest.raises(ConfigError, match="A latency looks like '20ms'"):
        parse_milliseconds(value)
    assert parse_milliseconds(2**60) == pytest.approx(2.0**60)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (999_499, "999 k"),
        (999_999, "1 M"),
        (999.6, "1 k"),
        (999_999_999, "1 B"),
        (123_456_000_000, "123 B"),
        (5e12, "5000 B"),
        (0, "0"),
        (-7, "-7"),
    ],
)
def test_counts_round_into_the_next_unit(number: float, text: str) -> None:
    assert format_count(number) == text


def test_bytes_round_into_the_next_unit() -> None:
    assert [format_bytes(value) for value in (5e5, 999.4e6, 999.9e6, 2e12)] == ["0.5 MB", "999 MB", "1 GB", "2000 GB"]


@given(st.floats(1.0, 1e15))
def test_nobody_reads_powers_of_ten(number: float) -> None:
    assert "e" not in format_count(number)
    assert float(format_bytes(number * 1e4).split()[0]) > 0
    assert "e" not in format_bytes(number * 1e4)
