"""Series become arrays of one length; what is unknown is masked, and nothing that cannot be read passes in silence."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.series import SeriesEncoder
from graftwork.data.encoders.series_cells import fill_rows, moments_of, numbers_of
from graftwork.data.inputs.series import KIND

NUMBER = st.one_of(st.none(), st.floats(-1e6, 1e6))


@given(st.lists(st.lists(NUMBER, max_size=9), min_size=1, max_size=6), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_rows_end_at_the_last_step(rows: list[list[float | None]], length: int) -> None:
    arrays = SeriesEncoder(length, [1.0], [2.0]).transform(rows)
    assert arrays["series"].shape == arrays["series_mask"].shape == (len(rows), length, 1)
    for row, values in enumerate(rows):
        kept = values[-length:]
        wanted = [None] * (length - len(kept)) + kept
        assert arrays["series_mask"][row, :, 0].tolist() == [value is not None for value in wanted]
        scaled = [0.0 if value is None else (value - 1.0) / 2.0 for value in wanted]
        np.testing.assert_allclose(arrays["series"][row, :, 0], scaled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "cell",
    ["[1, null, 2.5]", "1;;2.5", "1, nan ,2.5", "1 NA 2.5", [1, None, 2.5], (1.0, float("nan"), 2.5), np.array([1, np.nan, 2.5])],
)
def test_cells_are_read_in_every_form(cell: object) -> None:
    np.testing.assert_array_equal(numbers_of(cell), [[1.0], [np.nan], [2.5]])


def test_cells_of_several_channels_and_of_nothing() -> None:
    np.testing.assert_array_equal(numbers_of("[[1, 2], [null, 4]]", channels=2), [[1, 2], [np.nan, 4]])
    assert (
        numbers_of(None, channels=3).shape
        == numbers_of("[]", channels=3).shape
        == numbers_of(float("nan"), channels=3).shape
        == (0, 3)
    )


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1 two 3", "no number"),
        ([1, [2, 3]], "no number"),
        ([[1, 2]], r"shape \(1, 2\), and one number a step"),
        (7, "no list"),
        ({"a": 1}, "no list"),
        ([1, float("inf")], "infinite"),
        ("[1, 1e999]", "infinite"),
    ],
)
def test_what_is_no_series_is_refused(cell: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        numbers_of(cell)
    with pytest.raises(DataError, match=r"1 cells of the list cannot be read as a series. The first is in row 1"):
        SeriesEncoder(3, [0.0], [1.0]).transform([[1, 2], cell])


def test_the_encoder_is_fitted_on_known_values_of_each_channel() -> None:
    values = np.array([[[1.0, 10.0], [3.0, np.nan]], [[5.0, 30.0], [np.nan, 20.0]]])
    encoder = SeriesEncoder.fit(values)
    assert (encoder.length, encoder.channels) == (2, 2)
    assert encoder.center == (3.0, 20.0)
    np.testing.assert_allclose(encoder.scale, [np.std([1, 3, 5]), np.std([10, 30, 20])])
    arrays = encoder.transform(values)
    known = arrays["series_mask"]
    back = arrays["series"] * np.array(encoder.scale) + np.array(encoder.center)
    np.testing.assert_allclose(back[known], values[known], rtol=1e-6)
    assert encoder.sizes() == {"length": 2, "channels": 2, "center": [3.0, 20.0], "scale": list(encoder.scale)}


def test_small_changes_of_large_values_survive() -> None:
    values = 5_000_000.0 + np.array([[[0.0], [0.1], [0.2], [0.3]]])
    encoder = SeriesEncoder.fit(values)
    series = encoder.transform(values)["series"][0, :, 0]
    np.testing.assert_allclose(series, (np.arange(4) - 1.5) / np.std(np.arange(4)), rtol=1e-4)
    constant = SeriesEncoder.fit(np.full((2, 3, 1), 7.0))
    assert constant.scale == (1.0,)


def test_tables_have_a_column_a_channel_or_all_in_one() -> None:
    two = pd.DataFrame(
        {"a": [[1, 2, 3], None], "b": ["4 5 6", None], "at": [["2020-01-01T00:00", "2020-01-01T01:00", "2020-01-01T03:00"], None]}
    )
    encoder = SeriesEncoder(4, [0.0, 0.0], [1.0, 1.0], columns=("a", "b"), times="at")
    arrays = encoder.transform(two)
    assert arrays["series"][0].tolist() == [[0, 0], [1, 4], [2, 5], [3, 6]]
    assert not arrays["series_mask"][1].any()
    assert arrays["series_times"].tolist() == [[0, 0, 3600, 10800], [0, 0, 0, 0]]
    one = pd.DataFrame({"both": [[[1, 4], [2, 5], [3, 6]], None]})
    joined = SeriesEncoder(4, [0.0, 0.0], [1.0, 1.0], columns=("both",)).transform(one)
    np.testing.assert_array_equal(joined["series"], arrays["series"])
    assert "series_times" not in joined
    with pytest.raises(DataError, match="'c' is not a column"):
        SeriesEncoder(4, [0.0], [1.0], columns=("c",)).transform(two)


def test_columns_must_agree_and_moments_must_rise() -> None:
    encoder = SeriesEncoder(3, [0.0, 0.0], [1.0, 1.0], columns=("a", "b"), times="at")
    with pytest.raises(DataError, match="different numbers of steps in 1 rows; in row 0: 2, 1"):
        encoder.transform(pd.DataFrame({"a": [[1, 2]], "b": [[1]], "at": [[0, 1]]}))
    with pytest.raises(DataError, match="fall in 1 rows, the first is row 0"):
        encoder.transform(pd.DataFrame({"a": [[1, 2]], "b": [[1, 2]], "at": [[5, 1]]}))
    with pytest.raises(DataError, match="a moment is missing"):
        encoder.transform(pd.DataFrame({"a": [[1, 2]], "b": [[1, 2]], "at": [[5, None]]}))
    with pytest.raises(DataError, match="another number of moments than there are steps in 1 rows; in row 0: 1 for 2"):
        encoder.transform(pd.DataFrame({"a": [[1, 2]], "b": [[1, 2]], "at": [[5]]}))
    assert moments_of([3, 5]).tolist() == [3.0, 5.0]


def test_an_interval_gives_equal_moments() -> None:
    arrays = SeriesEncoder(4, [0.0], [1.0], interval=60.0).transform([[1, 2], [1, 2, 3, 4, 5]])
    assert arrays["series_times"].tolist() == [[0, 0, 0, 60], [0, 60, 120, 180]]


def test_the_state_restores_the_encoder() -> None:
    encoder = SeriesEncoder.fit([[1, 2, None], [4]], interval=3600.0)
    assert encoder.length == 3
    state = json.loads(json.dumps(encoder.state()))
    restored = encoder_from_state(state)
    for name, array in encoder.transform([[5, 6]]).items():
        np.testing.assert_array_equal(restored.transform([[5, 6]])[name], array)
    assert encoder.spec(horizon=2).sizes["horizon"] == 2
    assert encoder.kind == KIND.name


def test_settings_that_cannot_be_used_are_refused() -> None:
    for wrong in ({"length": 0}, {"scale": [1.0, 2.0]}, {"columns": ("a", "b")}, {"interval": -1.0}):
        with pytest.raises(DataError, match="A series needs a length of at least 1"):
            SeriesEncoder(**{"length": 2, "center": [0.0], "scale": [1.0], **wrong})
    with pytest.raises(DataError, match="hold no number"):
        SeriesEncoder.fit([[None], []])
    with pytest.raises(DataError, match="finite numbers"):
        SeriesEncoder(2, [0.0], [1.0]).transform(np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match="Give a table, an array or a list"):
        SeriesEncoder(2, [0.0], [1.0]).transform("1 2")


def test_no_rows_give_no_rows() -> None:
    assert SeriesEncoder(2, [0.0], [1.0]).transform([])["series"].shape == (0, 2, 1)
    assert fill_rows([], 3, 2).shape == (0, 3, 2)


def test_a_table_needs_columns_to_read() -> None:
    table = pd.DataFrame({"load": [[1, 2]]})
    fitted = SeriesEncoder.fit(np.array([[1.0, 2.0], [3.0, 4.0]]))
    for use in (fitted.transform, SeriesEncoder.fit):
        with pytest.raises(DataError, match=r"no column of the table \(load\) is known to hold them.*list or an array"):
            use(table)


DATES = [1_767_225_600.0, 1_767_229_200.0]


@pytest.mark.parametrize(
    "cell",
    [
        ["2026-01-01T00:00:00", "2026-01-01T01:00:00"],
        '["2026-01-01T00:00:00", "2026-01-01T01:00:00"]',
        "['2026-01-01 00:00:00', '2026-01-01 01:00:00']",
        "2026-01-01 00:00:00; 2026-01-01 01:00:00",
        "2026-01-01T00:00:00 2026-01-01T01:00:00",
        "2026-01-01,2026-01-01T01:00",
        np.array(["2026-01-01T00", "2026-01-01T01"], dtype="datetime64[ns]"),
    ],
)
def test_moments_are_dates_in_lists_and_in_texts(cell: object) -> None:
    assert moments_of(cell).tolist() == DATES


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ('["2026-01-01", null]', "a moment is missing"),
        ([None, "2026-01-01"], "a moment is missing"),
        ("2026-01-01;;2026-01-02", "a moment is missing"),
        ("yesterday today", "no date such as 2026-01-31"),
    ],
)
def test_what_is_no_moment_is_refused(cell: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        moments_of(cell)
    assert moments_of("1 2,5").tolist() == moments_of('["1", "2", 5]').tolist() == [1.0, 2.0, 5.0]
