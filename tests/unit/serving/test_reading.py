"""What a server tells about the columns of a table, however many levels they have."""

from __future__ import annotations

import json

import pandas as pd

from graftwork.data.encoders.columns import CategoricalColumn, NumericColumn
from graftwork.data.encoders.table import TableEncoder
from graftwork.serving.limits import ServeLimits
from graftwork.serving.reading import TableReader


def reader_of(levels: int) -> TableReader:
    cells = [f"user {index}" for index in range(levels) for _ in range(4)]
    columns = [CategoricalColumn.fit("user", pd.Series(cells)), NumericColumn("x", 0.0, 1.0, False)]
    return TableReader(TableEncoder(columns), ServeLimits(max_rows=8))


def test_few_levels_are_all_listed() -> None:
    user = reader_of(256).inputs()[0]
    assert len(user["levels"]) == user["num_levels"] == 256


def test_of_many_levels_the_most_frequent_are_listed() -> None:
    reader = reader_of(20_000)
    user = reader.inputs()[0]
    assert user["num_levels"] == 20_000
    assert user["levels"] == list(reader.encoder.columns[0].levels[:256])  # type: ignore[attr-defined]
    assert len(json.dumps(reader.inputs())) < 10_000
    assert len(json.dumps(reader.item_schemas())) < 1000, "a schema that listed the levels would refuse new ones"


def test_levels_that_are_not_listed_are_told_apart() -> None:
    reader = reader_of(20_000)
    last = reader.encoder.columns[0].levels[-1]  # type: ignore[attr-defined]
    encoded = reader.encode([(last, 0.0), ("nobody", 0.0), (None, 0.0)])
    assert encoded["categorical"].ravel().tolist() == [20_000, 0, 0]
