"""What a server tells about the columns of a table, however many levels they have."""

from __future__ import annotations

import json

import pandas as pd

from graftwork.data.encoders.columns import CategoricalColumn, NumericColumn
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.encoders.words import WordsColumn
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import Problem
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


def test_levels_and_words_of_a_column_are_one_cell() -> None:
    columns = [
        CategoricalColumn("car", ("red ford", "old opel")),
        WordsColumn("car", ("ford", "opel")),
        WordsColumn("note", ("new",)),
    ]
    reader = TableReader(TableEncoder(columns), ServeLimits(max_rows=8))
    assert [(item["name"], item["type"]) for item in reader.inputs()] == [("car", "categorical"), ("note", "text")]
    assert list(reader.item_schemas()["rows"]["properties"]) == ["car", "note"]
    problems: list[Problem] = []
    rows = [
        reader.read_one("rows", f"rows.{place}", item, problems)
        for place, item in enumerate(
            [{"car": "old opel", "note": None}, {"car": "a Ford", "note": "New!"}, {"car": 7, "note": ""}]
        )
    ]
    assert not problems
    encoded = reader.encode(rows)
    assert encoded["categorical"].ravel().tolist() == [2, 0, 0]
    assert encoded["numeric"].tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert len(reader.encode(reader.blank())["numeric"]) == 1
