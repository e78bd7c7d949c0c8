"""Where the columns of the raw rows lie in the arrays, and the exchange of one of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from graftwork.core.input_spec import InputSpec, table_input
from graftwork.data.encoders.series import SeriesEncoder
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.input_columns import exchange, input_columns


def _frame(rows: int = 40) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": np.where(np.arange(rows) % 7 == 0, np.nan, draw.normal(40, 10, rows)),
            "city": draw.choice(["Oslo", "Rome", "Lima"], rows),
            "since": pd.date_range("2020-01-01", periods=rows, freq="37D").strftime("%Y-%m-%d"),
            "v[0]": draw.normal(size=rows),
            "v[1]": draw.normal(size=rows),
        }
    )


def test_a_column_with_its_flag_a_date_and_a_vector_are_one_column_each() -> None:
    encoder = TableEncoder.fit(_frame(), list(_frame().columns))
    arrays = encoder.transform(_frame())
    columns = {column.name: column.places for column in input_columns({"table": encoder.spec()}, arrays)}
    assert list(columns) == ["age", "city", "since", "v"]
    names = encoder.numeric_names()
    assert [names[place] for place in columns["age"]["numeric"] or ()] == ["age", "age (missing)"]
    assert all(names[place].startswith("since (") for place in columns["since"]["numeric"] or ())
    assert columns["city"] == {"categorical": (0,)}
    assert [names[place] for place in columns["v"]["numeric"] or ()] == ["v[0]", "v[1]"]
    covered = sorted(place for places in columns.values() for place in places.get("numeric") or ())
    assert covered == list(range(arrays["numeric"].shape[1]))


def test_a_column_is_exchanged_as_the_encoder_would_have_read_it() -> None:
    frame = _frame()
    encoder = TableEncoder.fit(frame, list(frame.columns))
    arrays = encoder.transform(frame)
    columns = {column.name: column for column in input_columns({"table": encoder.spec()}, arrays)}
    others = np.random.default_rng(1).permutation(len(frame))
    for name, raw in (("age", ["age"]), ("city", ["city"]), ("since", ["since"]), ("v", ["v[0]", "v[1]"])):
        changed = {key: array.copy() for key, array in arrays.items()}
        exchange(changed, columns[name], slice(None), arrays, others)
        written = frame.copy()
        written[raw] = frame[raw].to_numpy()[others]
        for key, array in encoder.transform(written).items():
            np.testing.assert_array_equal(changed[key], array)


def test_histories_are_one_column_with_or_without_an_encoder() -> None:
    frame = pd.DataFrame({"item": ["a", "b", "c", "a"] * 10, "clicked": ["a b", "c", "b a c", ""] * 10})
    encoder = TableEncoder.fit(frame, ["item"], histories={"clicked": "item"})
    arrays = encoder.transform(frame)
    made = {column.name: column.places["categorical"] for column in input_columns({"table": encoder.spec()}, arrays)}
    assert list(made) == ["item", "clicked"]
    assert len(made["clicked"] or ()) == arrays["categorical"].shape[1] - 1
    bare = {"table": InputSpec(kind="table", sizes=encoder.sizes())}
    unnamed = {column.name: column.places["categorical"] for column in input_columns(bare, arrays)}
    assert unnamed == {"categorical[0]": (0,), "clicked": made["clicked"]}


def test_columns_of_arrays_are_called_after_their_places() -> None:
    arrays = {"numeric": np.zeros((3, 2), np.float32), "categorical": np.zeros((3, 1), np.int64)}
    assert [column.name for column in input_columns(table_input(2, [4]), arrays)] == [
        "numeric[0]",
        "numeric[1]",
        "categorical[0]",
    ]


def test_whole_inputs_are_one_column_under_the_name_of_the_raw_one() -> None:
    pytest.importorskip("tokenizers")
    from graftwork.data.encoders.text import TextEncoder

    encoder = TextEncoder.fit(["good day", "bad day"] * 4, columns=["title", "body"])
    specs = {
        "text": InputSpec(kind="text", encoder=encoder.state(), arrays={"tokens": "text.tokens"}),
        "picture": InputSpec(kind="image", sizes={"image_size": 4}, arrays={"image": "picture.image"}),
    }
    arrays = {"text.tokens": np.zeros((2, 64), np.int64), "picture.image": np.zeros((2, 4, 4, 3), np.uint8)}
    found = input_columns(specs, arrays)
    assert [(column.name, dict(column.places)) for column in found] == [
        ("title and body", {"text.tokens": None}),
        ("picture", {"picture.image": None}),
    ]


def test_channels_with_columns_of_their_own_are_columns() -> None:
    source = pd.DataFrame({"a": [[1.0, 2.0], [3.0, 4.0]], "b": [[0.0, 1.0], [1.0, 0.0]]})
    encoder = SeriesEncoder.fit(source, columns=["a", "b"])
    arrays = encoder.transform(source)
    found = {column.name: dict(column.places) for column in input_columns({"series": encoder.spec()}, arrays)}
    assert found == {"a": {"series": (0,), "series_mask": (0,)}, "b": {"series": (1,), "series_mask": (1,)}}
    changed = {key: array.copy() for key, array in arrays.items()}
    exchange(changed, input_columns({"series": encoder.spec()}, arrays)[1], slice(None), arrays, np.array([1, 0]))
    np.testing.assert_array_equal(changed["series"][..., 1], arrays["series"][[1, 0], :, 1])
    np.testing.assert_array_equal(changed["series"][..., 0], arrays["series"][..., 0])
