"""The cost of a fit in one go is read off fits of growing parts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.runs import growing_fits
from graftwork.workflows.runs.growing_fits import GrownFit, expected_seconds, fit_on_growing_parts


def suite_of(rows: int) -> Suite:
    places = np.arange(rows + rows // 3)
    return Suite(
        name="rows",
        tasks=(TaskSpec(name="y", kind="regression", size=1),),
        inputs={"numeric": np.zeros((len(places), 1), np.float32)},
        targets={"y": places.astype(np.float32)},
        splits={"train": places[:rows], "val": places[rows:], "test": places[:0]},
        input_specs=table_input(1),
    )


def measure(
    monkeypatch: pytest.MonkeyPatch, rows: int, cost: Callable[[int], float], **settings: Any
) -> tuple[GrownFit, list[int]]:
    """Run with a clock that moves only while a learner is fitted, ``cost(rows)`` seconds each time."""
    clock, sizes = [0.0], []

    def build(suite: Suite) -> Any:
        number = len(suite.splits["train"])

        def train(until: int) -> None:
            sizes.append(number)
            clock[0] += cost(number)

        return SimpleNamespace(train=train)

    monkeypatch.setattr(growing_fits, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    return fit_on_growing_parts(build, suite_of(rows), **settings), sizes


def test_fixed_costs_are_not_counted_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.2 s on any number of rows: in proportion to the first 500 they would seem to take 141 s."""
    found, sizes = measure(monkeypatch, 32_000, lambda rows: 2.2, seconds=1.3)
    assert sizes == [500, 2000]
    assert 2.2 <= found.seconds < 6.0


def test_what_grows_with_the_rows_is_found_behind_fixed_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    found, sizes = measure(monkeypatch, 32_000, lambda rows: 0.5 + 0.0002 * rows, seconds=1.5)
    assert sizes == [500, 2000]
    assert found.seconds == pytest.approx(0.5 + 0.0002 * 32_000)
    assert len(found.suite.splits["train"]) == 2000


def test_a_fit_that_is_fast_is_measured_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    found, sizes = measure(monkeypatch, 32_000, lambda rows: 0.01 + 1e-6 * rows, seconds=2.0)
    assert sizes == [500, 2000, 8000, 32_000]
    assert found.seconds == pytest.approx(0.042)
    assert len(found.suite.splits["train"]) == 32_000


def test_few_rows_are_measured_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure(monkeypatch, 1000, lambda rows: 30.0, seconds=1.0)[1] == [1000]


def test_a_very_slow_first_part_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found, sizes = measure(monkeypatch, 32_000, lambda rows: 0.1 * rows, seconds=2.0)
    assert sizes == [500]
    assert found.seconds == pytest.approx(3200.0)


def test_no_further_part_after_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure(monkeypatch, 32_000, lambda rows: 0.01, seconds=2.0, is_stopped=lambda: True)[1] == [500]


@given(
    fixed=st.floats(0.0, 10.0),
    slope=st.floats(1e-6, 1e-2),
    sizes=st.tuples(st.integers(100, 1000), st.integers(1001, 5000), st.integers(5000, 10**6)),
)
def test_a_line_is_read_exactly_unless_it_is_nearly_flat(fixed: float, slope: float, sizes: tuple[int, int, int]) -> None:
    first, second, rows = sizes
    measured = [(number, fixed + slope * number) for number in (first, second)]
    truth = fixed + slope * rows
    found = expected_seconds(measured, rows)
    assert found >= truth * (1 - 1e-6)
    if slope * second >= 0.2 * (fixed + slope * second):
        assert found == pytest.approx(truth, rel=1e-6)


def test_an_earlier_fit_stands_for_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    found, sizes = measure(monkeypatch, 32_000, lambda rows: 0.5 + 0.0002 * rows, seconds=1.5, known=(5000, 1.5))
    assert sizes == [500]
    assert found.seconds == pytest.approx(0.5 + 0.0002 * 32_000)
    # One of no more rows than the first part says nothing of growth.
    assert measure(monkeypatch, 32_000, lambda rows: 2.2, seconds=1.3, known=(400, 0.1))[1] == [500, 2000]
