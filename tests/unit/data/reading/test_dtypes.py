"""Columns of nullable, Arrow, NumPy and Python types, from frames and from Parquet."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.data.reading.column import Column
from graftwork.data.reading.ingest import open_suite
from graftwork.data.suite import Suite

ROWS = 200


def draw() -> np.random.Generator:
    return np.random.default_rng(7)


def column(cells: Any, **more: Any) -> Column:
    return Column("c", cells if isinstance(cells, pd.Series) else pd.Series(cells), **more)


def types(suite: Suite) -> dict[str, str]:
    return {column["name"]: column["type"] for column in suite.only_input.encoder["columns"]}


def odd_frame() -> pd.DataFrame:
    random = draw()
    frame = pd.DataFrame({"y": random.normal(size=ROWS)})
    frame["flag"] = pd.Series(random.random(ROWS) < 0.5, dtype="boolean").mask(random.random(ROWS) < 0.1)
    frame["bytes"] = [str(word).encode() for word in random.choice(["ab", "cd"], ROWS)]
    frame["half"] = random.integers(0, 9, ROWS).astype(np.float16)
    frame["whole"] = pd.Series(random.integers(0, 9, ROWS), dtype="Int16").mask(random.random(ROWS) < 0.1)
    frame["lasts"] = pd.to_timedelta(random.integers(1, 9000, ROWS), unit="s")
    frame["day"] = [
        datetime.date(2024, 1, 1) + datetime.timedelta(days=int(days)) if days % 7 else None
        for days in random.integers(0, 400, ROWS)
    ]
    frame["small"] = pd.Categorical(random.choice(["s", "m"], ROWS))
    return frame


EXPECTED = {
    "flag": "numeric",
    "bytes": "categorical",
    "half": "numeric",
    "whole": "numeric",
    "lasts": "numeric",
    "day": "date",
    "small": "categorical",
}


def test_nullable_and_other_types_from_a_frame_and_parquet(tmp_path: Path) -> None:
    frame = odd_frame()
    frame.drop(columns="half").to_parquet(tmp_path / "t.parquet")
    for source, expected in ((frame, EXPECTED), (tmp_path / "t.parquet", {k: v for k, v in EXPECTED.items() if k != "half"})):
        suite = open_suite(source, targets="y")
        assert types(suite) == expected
        position = [name for name in expected if expected[name] == "numeric"]
        assert position
        lasts = next(column for column in suite.only_input.encoder["columns"] if column["name"] == "lasts")
        assert 2000 < lasts["mean"] < 7000, "seconds"


@pytest.mark.parametrize(
    "dtype",
    [
        "bool[pyarrow]",
        "int64[pyarrow]",
        "double[pyarrow]",
        "float[pyarrow]",
        "string[pyarrow]",
        "date32[day][pyarrow]",
        "duration[s][pyarrow]",
    ],
)
def test_arrow_columns_with_missing_cells(dtype: str) -> None:
    raw = {
        "bool[pyarrow]": [True, False, None],
        "int64[pyarrow]": [1234567890123456789, 2, None],
        "double[pyarrow]": [1.5, -2.0, None],
        "float[pyarrow]": [1.5, -2.0, None],
        "string[pyarrow]": ["NA", "b", None],
        "date32[day][pyarrow]": [datetime.date(2024, 1, 2), datetime.date(2024, 2, 3), None],
        "duration[s][pyarrow]": [pd.Timedelta(minutes=1), pd.Timedelta(hours=1), None],
    }[dtype]
    read = column(pd.Series(raw, dtype=dtype))
    assert read.kind == {"string[pyarrow]": "categorical", "date32[day][pyarrow]": "date"}.get(dtype, "numeric")
    assert read.codes[-1] == -1
    if dtype == "int64[pyarrow]":
        assert read.levels == ["1234567890123456789", "2"]
    if read.kind == "numeric":
        values = read.numbers().values
        assert np.isnan(values[-1])
        assert not np.isnan(values[:2]).any()
    if dtype.startswith("duration"):
        assert read.numbers().values[:2].tolist() == [60, 3600]
    if dtype.startswith("date32"):
        assert read.dates().values[:2].tolist() == [pd.Timestamp(day).timestamp() for day in raw[:2]]


def test_half_precision_categories_and_nullable_targets() -> None:
    frame = odd_frame()
    suite = open_suite(frame, targets="y,flag,whole", categories="half")
    assert {task.name: task.kind for task in suite.tasks} == {"y": "regression", "flag": "binary", "whole": "multiclass"}
    assert types(suite)["half"] == "categorical"
    assert (suite.targets["flag"] < 0).sum() == frame["flag"].isna().sum()


def test_bytes_that_are_no_text_are_left_out() -> None:
    frame = pd.DataFrame(
        {
            "blob": [bytes([200 + index % 50, 255]) for index in range(60)],
            "x": range(60),
            "y": [index * 7 % 11 for index in range(60)],
        }
    )
    suite = open_suite(frame.assign(x=draw().normal(size=60)), targets="y")
    assert types(suite) == {"x": "numeric"}
    assert any("bytes which are no UTF-8 text: blob" in note for note in suite.notes)


def test_a_target_that_lasts_is_a_number_of_seconds() -> None:
    frame = pd.DataFrame({"x": draw().normal(size=60), "wait": pd.to_timedelta([f"{minutes} min" for minutes in range(60)])})
    suite = open_suite(frame, targets="wait")
    assert suite.tasks[0].kind == "regression"
    assert suite.targets["wait"][:3, 0].tolist() == [0, 60, 120]
