"""Requests run together and every answer goes back to its question."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError, GraftworkError
from graftwork.serving.batching import Batcher


def double(rows: Sequence[Any]) -> Mapping[str, Any]:
    return {"twice": np.array([2 * row for row in rows])}


def values(futures: Sequence[Future[Any]]) -> list[int]:
    return [int(value) for future in futures for value in future.result(20).values["twice"]]


class Gate:
    """A runner that waits until it is let through, and notes its batches."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, rows: Sequence[Any]) -> Mapping[str, Any]:
        self.batches.append(list(rows))
        self.entered.set()
        assert self.open.wait(20)
        if "bad" in rows:
            raise DataError("a bad row")
        return double(rows)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), limit=st.integers(1, 12))
def test_no_answer_is_lost_or_mixed_up(sizes: list[int], limit: int) -> None:
    batcher = Batcher(lambda key: double, max_batch=limit, max_wait=0.0005)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
    questions = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    asked = [batcher.submit("lane", rows) for rows in questions]
    assert [values(futures) for futures in asked] == [[2 * row for row in rows] for rows in questions]
    assert all(future.result().batch_rows <= limit for futures in asked for future in futures)
    batcher.close()


def test_what_waits_runs_together_up_to_the_limit(gate: Gate) -> None:
    batcher = Batcher(lambda key: gate, max_batch=4, max_wait=0.0)
    first = batcher.submit("lane", [0])
    assert gate.entered.wait(20)
    waiting = [batcher.submit("lane", rows) for rows in ([1], [2, 3], [4, 5], [6, 7, 8, 9, 10, 11])]
    assert batcher.num_waiting == 5  # the last one was cut into 4 + 2 rows
    gate.open.set()
    assert [values(futures) for futures in (first, *waiting)] == [[0], [2, 4, 6][:1], [4, 6], [8, 10], [12, 14, 16, 18, 20, 22]]
    assert gate.batches == [[0], [1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11]]
    batcher.close()


def test_a_request_waits_for_others(gate: Gate) -> None:
    gate.open.set()
    batcher = Batcher(lambda key: gate, max_batch=2, max_wait=10.0)
    first, second = batcher.submit("lane", [1]), batcher.submit("lane", [2])
    assert values([*first, *second]) == [2, 4], "a full batch does not wait"
    assert gate.batches == [[1, 2]]
    batcher.close()


def test_sets_of_tasks_do_not_share_a_batch() -> None:
    batcher = Batcher(lambda key: lambda rows: {"twice": np.array([key * row for row in rows])}, max_wait=0.001)
    asked = [batcher.submit(key, [key]) for key in (3, 5, 7)]
    assert [values(futures) for futures in asked] == [[9], [25], [49]]
    assert batcher.num_lanes == 3
    batcher.close()


def test_requests_for_different_things_run_together_and_get_their_own() -> None:
    def each(parts: Sequence[Sequence[Any]]) -> list[Mapping[str, Any]]:
        seen.append([list(part) for part in parts])
        return [{f"sum of {len(part)}": np.array([sum(part)] * len(part))} for part in parts]

    seen: list[list[list[Any]]] = []
    batcher = Batcher(lambda key: each, by_part=True, max_batch=4, max_wait=10.0)
    first, second = batcher.submit("lane", [1]), batcher.submit("lane", [2, 3, 4])
    assert [{name: value.tolist() for name, value in future.result(20).values.items()} for future in (*first, *second)] == [
        {"sum of 1": [1]},
        {"sum of 3": [9, 9, 9]},
    ]
    assert seen == [[[1], [2, 3, 4]]]
    assert first[0].result().batch_rows == 4
    batcher.close()


def test_one_bad_request_does_not_spoil_the_others(gate: Gate) -> None:
    batcher = Batcher(lambda key: gate, max_wait=0.0)
    batcher.submit("lane", [0])
    assert gate.entered.wait(20)
    good, bad, other = batcher.submit("lane", [1]), batcher.submit("lane", ["bad"]), batcher.submit("lane", [3, 4])
    gate.open.set()
    assert values(good) == [2]
    assert values(other) == [6, 8]
    with pytest.raises(DataError, match="a bad row"):
        bad[0].result(20)
    assert gate.batches[1:] == [[1, "bad", 3, 4], [1], ["bad"], [3, 4]]
    batcher.close()


def test_a_cancelled_request_is_not_computed(gate: Gate) -> None:
    batcher = Batcher(lambda key: gate, max_wait=0.0)
    batcher.submit("lane", [0])
    assert gate.entered.wait(20)
    gone, kept = batcher.submit("lane", [1]), batcher.submit("lane", [2])
    assert gone[0].cancel()
    gate.open.set()
    assert values(kept) == [4]
    assert gate.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        gone[0].result(1)
    batcher.close()


def test_closing_finishes_what_was_accepted(gate: Gate) -> None:
    batcher = Batcher(lambda key: gate, max_wait=0.0)
    asked = [batcher.submit("lane", [number]) for number in range(5)]
    assert gate.entered.wait(20)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while batcher.num_waiting and not batcher._closed:
        time.sleep(0.001)
    with pytest.raises(GraftworkError, match="is stopping"):
        while True:
            batcher.submit("lane", [9])
            time.sleep(0.001)
    gate.open.set()
    closing.join(20)
    assert [values(futures)[0] for futures in asked] == [0, 2, 4, 6, 8]


def test_lanes_beyond_the_limit_close_the_oldest_idle_one() -> None:
    opened: list[int] = []

    def open_runner(key: int) -> Any:
        opened.append(key)
        return double

    batcher = Batcher(open_runner, max_wait=0.0, max_lanes=2)
    for key in (1, 2, 1, 3, 1, 2):
        assert values(batcher.submit(key, [key])) == [2 * key]
        while not all(lane.is_idle for lane in batcher._lanes.values()):
            time.sleep(0.001)
    assert opened == [1, 2, 3, 2], "2 was asked least recently when 3 came"
    assert batcher.num_lanes == 2
    batcher.close()


def test_a_lane_that_cannot_open_says_so_and_tries_again() -> None:
    tries: list[int] = []

    def open_runner(key: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise DataError("damaged")
        return double

    batcher = Batcher(open_runner, max_wait=0.0)
    with pytest.raises(DataError, match="damaged"):
        batcher.submit("lane", [1])[0].result(20)
    assert values(batcher.submit("lane", [1])) == [2]
    batcher.close()


def test_a_model_that_answers_too_few_rows_is_an_error() -> None:
    batcher = Batcher(lambda key: lambda rows: {"twice": np.zeros(len(rows) + 1)}, max_wait=0.0)
    with pytest.raises(GraftworkError, match="answered 1 rows with"):
        batcher.submit("lane", [1])[0].result(20)
    batcher.close()


@pytest.mark.parametrize(("name", "value"), [("max_batch", 0), ("max_wait", -1.0), ("max_wait", 11.0), ("max_lanes", 0)])
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        Batcher(lambda key: double, **{name: value})  # type: ignore[arg-type]
