from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from graftwork.core.errors import DataError, FileFormatError, GraftworkError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.columns import CategoricalColumn, DateColumn, NumericColumn
from graftwork.data.encoders.table import TableEncoder, column_type


def restored(encoder: TableEncoder) -> TableEncoder:
    other = encoder_from_state(json.loads(json.dumps(encoder.state(), allow_nan=False)))
    assert isinstance(other, TableEncoder)
    return other


def test_values_by_hand() -> None:
    frame = pd.DataFrame({"x": [1.0, 3.0, np.nan, np.inf], "c": ["b", "b", "a", None], "f": [True, False, True, True]})
    encoder = TableEncoder.fit(frame, ["x", "c", "f"])
    inputs = encoder.transform(frame)
    assert inputs["numeric"].dtype == np.float32
    assert inputs["categorical"].dtype == np.int64
    np.testing.assert_allclose(inputs["numeric"][:, 0], [-1.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(inputs["numeric"][:, 1], [0, 0, 1, 1])  # missing or infinite
    np.testing.assert_allclose(inputs["numeric"][:, 2], (np.array([1, 0, 1, 1]) - 0.75) / np.sqrt(0.1875), rtol=1e-6)
    assert inputs["categorical"].ravel().tolist() == [1, 1, 2, 0]
    assert encoder.sizes() == {"num_numeric": 3, "cardinalities": [3]}
    assert encoder.numeric_names() == ["x", "x (missing)", "f"]


def test_statistics_come_from_training_rows_only() -> None:
    frame = pd.DataFrame({"x": [0.0, 2.0, 1000.0], "c": ["a", "b", "z"]})
    inputs = TableEncoder.fit(frame, ["x", "c"], rows=np.array([0, 1])).transform(frame)
    assert inputs["numeric"][:2, 0].tolist() == [-1.0, 1.0]
    assert inputs["numeric"][2, 0] == 10.0, "far values are clipped"
    assert inputs["categorical"][2, 0] == 0, "levels that training has not seen are 0"


def test_unseen_and_extra_columns_and_order() -> None:
    frame = pd.DataFrame({"x": [0.0, 2.0], "c": ["a", "b"]})
    encoder = restored(TableEncoder.fit(frame, ["x", "c"]))
    other = pd.DataFrame({"extra": [1], "c": ["q"], "x": ["2"]})
    inputs = encoder.transform(other)
    assert inputs["numeric"].tolist() == [[1.0]]
    assert inputs["categorical"].tolist() == [[0]]


def test_errors_when_predicting() -> None:
    encoder = TableEncoder.fit(
        pd.DataFrame({"age": [1.0, 2.0], "when": ["2020-01-01", "2021-05-06"], "city": ["a", "b"]}), ["age", "when", "city"]
    )
    with pytest.raises(DataError, match=r"lacks 2 of the 3 columns.*'age' Did you mean 'Age'\?, 'when'.*Add them"):
        encoder.transform(pd.DataFrame({"Age": [1.0], "city": ["a"]}))
    with pytest.raises(DataError, match="'age' held numbers in training but now has 'old'"):
        encoder.transform(pd.DataFrame({"age": ["old"], "when": ["2020-01-01"], "city": ["a"]}))
    with pytest.raises(DataError, match="'when' held dates in training but now has 'yesterday'"):
        encoder.transform(pd.DataFrame({"age": [1], "when": ["yesterday"], "city": ["a"]}))
    with pytest.raises(FileFormatError, match="kind 'sound'; allowed are image, series, table, text"):
        encoder_from_state({"kind": "sound"})
    with pytest.raises(FileFormatError, match="lacks 'columns'"):
        encoder_from_state({"kind": "table"})


def test_column_types() -> None:
    days = [f"2020-01-{day:02d}" for day in range(1, 31)]
    long = [f"this is a long remark of a person, number {index}" for index in range(30)]
    cases = {
        "numeric": [[1, 2], [1.5, None], [True, False], ["1", "2.5", None], [None, None]],
        "date": [pd.date_range("2020", periods=3), days, [day + "T10:00:00" for day in days], [*days, None]],
        "categorical": [["a", "b"], pd.Categorical([1, 2, 1]), ["1", "b"], ["2020 was a year"] * 3, long[:3]],
        "text": [long],
    }
    for kind, columns in cases.items():
        for values in columns:
            assert column_type(pd.Series(values)) == kind, values


def test_heavy_tails_become_normal_scores() -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 2.5, 4000))
    column = NumericColumn.fit("x", pd.Series(values))
    assert len(column.knots) > 50
    encoded = column.encode(pd.Series([*values, 1e12, -1.0, np.nan]))[0]
    inside = encoded[:4000]
    assert inside.mean() == pytest.approx(0.0, abs=0.05)
    assert inside.std() == pytest.approx(1.0, abs=0.08)
    assert (np.diff(inside[np.argsort(values)]) >= 0).all()
    assert encoded[4000] == inside.max(), "beyond the training range the end value holds"
    assert encoded[4001] == inside.min()
    assert encoded[4002] == 0.0
    assert not NumericColumn.fit("x", pd.Series(np.random.default_rng(0).normal(size=4000))).knots


def test_levels_by_frequency_rare_ones_dropped() -> None:
    column = CategoricalColumn.fit("c", pd.Series(["b"] * 120 + ["a"] * 120 + ["z"] * 2 + ["once"]))
    assert column.levels == ("a", "b", "z")
    assert CategoricalColumn.fit("c", pd.Series(["once", "b", "b"])).levels == ("b", "once")
    assert len(CategoricalColumn.fit("c", pd.Series([str(index // 2) for index in range(2000)])).levels) == 256
    assert CategoricalColumn.fit("c", pd.Series([1.0, 2.0, np.nan])).encode(pd.Series([1, 2, 3])).tolist() == [1, 2, 0]


def levels_with_a_fixed_limit(values: pd.Series) -> tuple[str, ...]:
    """The rule of encoders before logs were thought of: evidence depends on its codes."""
    counts = values.dropna().value_counts()
    least = 2 if counts.sum() >= 200 else 1
    kept = [(-count, level) for level, count in counts.items() if count >= least]
    return tuple(level for _, level in sorted(kept)[:256])


def skewed(rows: int, levels: int, seed: int = 0) -> pd.Series:
    codes = (levels * np.random.default_rng(seed).random(rows) ** 3).astype(np.int64)
    return pd.Series([f"user {code}" for code in codes])


@pytest.mark.parametrize(
    ("rows", "levels"), [(5, 4), (199, 150), (200, 150), (900, 260), (1000, 900), (3000, 250), (20_000, 256)]
)
def test_levels_of_small_tables_never_change(rows: int, levels: int) -> None:
    values = skewed(rows, levels)
    values.iloc[::7] = None
    assert CategoricalColumn.fit("c", values).levels == levels_with_a_fixed_limit(values)


def test_levels_beyond_256_need_four_rows() -> None:
    cells = [f"{index:04d}" for index in range(1000) for _ in range(1 + index % 6)]
    column = CategoricalColumn.fit("c", pd.Series(cells))
    assert column.levels[:256] == levels_with_a_fixed_limit(pd.Series(cells))
    assert sorted(column.levels) == [f"{index:04d}" for index in range(1000) if index % 6 >= 3]
    assert column.cardinality == 1 + 499 <= len(cells) // 4
    assert CategoricalColumn.fit("c", pd.Series(cells), max_levels=300).levels == column.levels[:300]
    codes = column.encode(pd.Series(["0005", "0003", "0002", "unseen", None]))
    assert codes.tolist() == [1, column.levels.index("0003") + 1, 0, 0, 0]


def test_there_are_at_most_fifty_thousand_levels() -> None:
    column = CategoricalColumn.fit("c", pd.Series(np.arange(51_000).repeat(4).astype(str)))
    assert len(column.levels) == 50_000


def test_fingerprints_of_suites_with_few_levels_never_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.data.reading.assemble import RawSuite, assemble_suite
    from graftwork.data.reading.infer import TargetRequest

    draw = np.random.default_rng(1)
    frame = pd.DataFrame({"x": draw.normal(size=2000), "user": skewed(2000, 240), "y": draw.normal(size=2000)})
    wide = frame.assign(user=skewed(2000, 420))

    def fingerprint(table: pd.DataFrame) -> str:
        return assemble_suite(RawSuite(name="log", frame=table, requests=[TargetRequest("y", ("y",))])).fingerprint()

    now, now_wide = fingerprint(frame), fingerprint(wide)
    monkeypatch.setattr(
        CategoricalColumn, "fit", classmethod(lambda cls, name, column: cls(name, levels_with_a_fixed_limit(column.cells)))
    )
    assert fingerprint(frame) == now
    assert fingerprint(wide) == now_wide, "420 users in 1200 rows: none beyond the 256th has four"
    busy = pd.DataFrame(
        {"x": draw.normal(size=5000), "user": [f"u{row % 280}" for row in range(5000)], "y": draw.normal(size=5000)}
    )
    before = fingerprint(busy)
    monkeypatch.undo()
    assert fingerprint(busy) != before, "the test must see a change where there is one"


def test_columns_are_values() -> None:
    one, two = CategoricalColumn("c", ("a", "b")), CategoricalColumn.from_state(CategoricalColumn("c", ("a", "b")).state())
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)).encode(pd.Series(["b", "z"])).tolist() == [2, 0]


def test_dates_by_hand() -> None:
    values = pd.Series(["2020-01-06", "2021-03-07", None, "2022-12-25T13:00:00"])  # Monday, Sunday, Sunday
    column = DateColumn.fit("when", values)
    assert [part for part, _, _ in column.parts] == ["year", "month", "day", "weekday", "hour", "elapsed"]
    means = {part: mean for part, mean, _ in column.parts}
    assert means == pytest.approx(
        {
            "year": 2021,
            "month": 16 / 3,
            "day": 38 / 3,
            "weekday": 4.0,
            "hour": 13 / 3,
            "elapsed": (18267 + 18693 + 19351 + 13 / 24) / 3,
        }
    )
    assert column.encode(values)[-1].tolist() == [0, 0, 1, 0]
    zoned = pd.Series(pd.to_datetime(["2020-01-06T02:00:00+02:00", "2021-03-07T00:00:00+00:00"], utc=True))
    plain = pd.Series(["2020-01-06", "2021-03-07"])
    for one, two in zip(column.encode(zoned), column.encode(plain), strict=True):
        np.testing.assert_allclose(one, two)
    constant = DateColumn.fit("when", pd.Series(["2020-01-06", "2020-01-07"]))
    assert [part for part, _, _ in constant.parts] == ["elapsed"]


@pytest.mark.parametrize(
    ("hours", "parts"),
    [
        (20, ["elapsed"]),
        (23, ["hour", "elapsed"]),
        (24 * 7, ["weekday", "hour", "elapsed"]),
        (24 * 40, ["day", "weekday", "hour", "elapsed"]),
        (24 * 340, ["month", "day", "weekday", "hour", "elapsed"]),
        (24 * 400, ["year", "month", "day", "weekday", "hour", "elapsed"]),
    ],
)
def test_parts_that_come_again_need_a_whole_round(hours: int, parts: list[str]) -> None:
    dates = pd.Series(pd.date_range("2023-01-02", periods=hours + 1, freq="h"))
    assert [part for part, _, _ in DateColumn.fit("when", dates).parts] == parts


def test_a_trend_goes_on_over_the_end_of_a_year() -> None:
    dates = pd.Series(pd.date_range("2023-07-01", "2024-01-31", freq="D"))
    column, seen = DateColumn.fit("when", dates[:184]), 184
    values, encoded = np.arange(len(dates), dtype=float), np.stack(column.encode(dates), axis=1)
    model = Ridge(alpha=1e-3).fit(encoded[:seen], values[:seen])
    assert np.abs(model.predict(encoded[seen:]) - values[seen:]).max() < 1.0


@settings(max_examples=40)
@given(
    st.lists(st.one_of(st.none(), st.floats(-1e30, 1e30), st.just(float("inf"))), min_size=3, max_size=40),
    st.lists(st.sampled_from(["a", "b", "ü", "", None]), min_size=3, max_size=40),
)
def test_restored_encoders_give_the_same_bits(numbers: list[float | None], words: list[str | None]) -> None:
    length = min(len(numbers), len(words))
    frame = pd.DataFrame({"x": pd.Series(numbers[:length], dtype=float), "c": pd.Series(words[:length], dtype=object)})
    encoder = TableEncoder.fit(frame, ["x", "c"])
    one, two = encoder.transform(frame), restored(encoder).transform(frame)
    for name in ("numeric", "categorical"):
        np.testing.assert_array_equal(one[name], two[name])
    assert np.isfinite(one["numeric"]).all()
    assert (np.abs(one["numeric"]) <= 10).all()


def test_tables_without_one_kind_of_column() -> None:
    frame = pd.DataFrame({"c": ["a", "b"]})
    assert TableEncoder.fit(frame, ["c"]).transform(frame)["numeric"].shape == (2, 0)


@given(st.integers(-30, 30), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_unit_of_a_column_does_not_matter(exponent: int, is_heavy: bool) -> None:
    values = np.random.default_rng(0).normal(size=60)
    values = np.where(np.arange(60) == 7, 1e3, values) if is_heavy else values
    unit = 2.0**exponent if exponent > -30 else 1e-13
    plain, scaled = NumericColumn.fit("x", pd.Series(values)), NumericColumn.fit("x", pd.Series(values * unit))
    assert bool(plain.knots) == bool(scaled.knots) == is_heavy
    np.testing.assert_allclose(
        scaled.encode(pd.Series(values * unit))[0], plain.encode(pd.Series(values))[0], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("value", [0.0, 1e-13, 0.1, 1e9 + 0.1])
def test_a_constant_column_keeps_its_unit(value: float) -> None:
    assert NumericColumn.fit("x", pd.Series([value] * 1001)).std == 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"mean": "x"},
        {"mean": 10**400},
        {"knots": ["a"]},
        {"parts": [["year"]]},
        {"parts": [["year", "x", 1.0]]},
        {"parts": [["century", 0.0, 1.0]]},
        {"levels": 3},
        {"type": []},
        {"rule": 7},
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, object]) -> None:
    frame = pd.DataFrame({"n": np.arange(40.0), "d": pd.date_range("2020-01-01", periods=40, freq="40D"), "c": ["x", "y"] * 20})
    state = json.loads(json.dumps(TableEncoder.fit(frame, list(frame.columns)).state()))
    encoder_from_state(state)
    for column in state["columns"]:
        column |= {key: value for key, value in change.items() if key in column}
    with pytest.raises(GraftworkError):
        encoder_from_state(state)
