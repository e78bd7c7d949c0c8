"""Splits by time: latest rows tested, ties whole, nothing dealt anew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import DataError
from graftwork.data.folds import can_fold
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.time_order import split_by_time
from graftwork.data.splits import resplit
from graftwork.data.store import load_suite, save_suite


def _frame(rows: int = 100, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.permutation(rows), unit="D")
    return pd.DataFrame(
        {"day": days.strftime("%Y-%m-%d"), "x": generator.normal(size=rows), "sales": generator.normal(size=rows)}
    )


def test_later_rows_are_tested_and_stay_where_they_are(tmp_path) -> None:
    frame = _frame()
    suite = open_suite(frame, targets="sales", time="day")
    days = frame["day"].to_numpy()
    train, val, test = (days[suite.splits[part]] for part in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (60, 20, 20)
    assert max(train) < min(val) <= max(val) < min(test)
    assert "train 2024-01-01 to 2024-02-29 (60 rows)" in suite.notes[0]
    save_suite(suite, tmp_path / "suite")
    for one in (suite, load_suite(tmp_path / "suite")):
        assert not can_fold(one, 3)
        again = resplit(one, 4)
        for part in suite.splits:
            np.testing.assert_array_equal(again.splits[part], suite.splits[part])
    other = resplit(open_suite(frame, targets="sales"), 4)
    assert not np.array_equal(other.splits["val"], open_suite(frame, targets="sales").splits["val"])


def test_numbers_and_machine_dates_are_times_too() -> None:
    frame = _frame()
    frame["day"] = pd.to_datetime(frame["day"])
    dated = open_suite(frame, targets="sales", time="day")
    frame["day"] = frame["day"].dt.dayofyear
    counted = open_suite(frame, targets="sales", time="day")
    for part in dated.splits:
        np.testing.assert_array_equal(dated.splits[part], counted.splits[part])


@given(st.lists(st.integers(0, 12), min_size=12, max_size=80), st.data())
def test_rows_of_one_time_stay_together_and_none_is_lost(times, data) -> None:
    labelled = np.array(data.draw(st.lists(st.booleans(), min_size=len(times), max_size=len(times))))
    moments = np.array(times, dtype=np.float64)
    try:
        splits, _ = split_by_time(moments, labelled, is_dates=False)
    except DataError:
        return  # too few labels or times, which another test looks at
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(times)))
    parts = [moments[splits[name]] for name in ("train", "val", "test")]
    assert all(labelled[rows].any() for rows in splits.values())
    assert parts[0].max() < parts[1].min()
    assert parts[1].max() < parts[2].min()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": "date"}, "--time: 'date' is not a column"),
        ({"time": "sales"}, "--targets and with --time"),
        ({"time": "name"}, "'name' is read as categorical"),
        ({"time": "gaps"}, "2 rows have no time in the column 'gaps', row 4 among them"),
        ({"time": "same"}, "1 different times, too few"),
        ({"time": "day", "group": "name"}, "not by both"),
    ],
)
def test_what_gives_no_order_is_refused(change, words) -> None:
    frame = _frame().assign(name=["a", "b", "c", "d"] * 25, gaps=np.arange(100.0), same=1)
    frame.loc[[3, 50], "gaps"] = np.nan
    with pytest.raises(DataError, match=words):
        open_suite(frame, targets="sales", **change)
