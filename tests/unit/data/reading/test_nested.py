from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.nested import find_cell, flatten_records, vectors_of
from graftwork.data.reading.readers import read_table
from graftwork.data.reading.table import as_table
from graftwork.serving.limits import ServeLimits
from graftwork.serving.reading import TableReader


def records(rows: int = 80) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    found: list[dict[str, Any]] = []
    for index in range(rows):
        lat, lon = draw.normal(size=2).round(3).tolist()
        found.append(
            {
                "place": {"lat": lat, "lon": lon, "land": {"code": "NA" if index % 3 else "DE"}} if index % 11 else None,
                "vector": draw.normal(size=4).round(3).tolist() if index % 13 else None,
                "words": ["a", "b"][: index % 3],
                "y": lat * 2 + index / 100,
            }
        )
    return found


def written(folder: Path, ending: str) -> Path:
    path = folder / f"t.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, records())))
    else:
        pd.DataFrame(records()).to_parquet(path)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_fields_and_entries_become_columns(tmp_path: Path, ending: str) -> None:
    suite = open_suite(written(tmp_path, ending), targets="y")
    types = {column["name"]: column["type"] for column in suite.only_input.encoder["columns"]}
    assert types == {
        "place.lat": "numeric",
        "place.lon": "numeric",
        "place.land.code": "categorical",
        **{f"vector[{index}]": "numeric" for index in range(4)},
    }
    notes = "\n".join(suite.notes)
    assert "Column 'place' holds records; their fields are read as columns: place.lat, place.lon, place.land.code." in notes
    assert "Column 'vector' holds vectors of 4 numbers" in notes
    assert "Dropped columns that hold lists or records of no one form: words." in notes


def test_prediction_and_server_read_the_record_that_was_trained_on(tmp_path: Path) -> None:
    suite = open_suite(written(tmp_path, "jsonl"), targets="y")
    encoder = encoder_from_state(suite.only_input.encoder)
    assert isinstance(encoder, TableEncoder)
    rows = records()
    from_file = encoder.transform(read_table(tmp_path / "t.jsonl"))
    from_frame = encoder.transform(flatten_records(pd.DataFrame(rows)))
    problems: list[Any] = []
    reader = TableReader(encoder, ServeLimits(max_rows=100))
    served = reader.encode(reader.read({"rows": rows}, problems))
    assert not problems
    for name in ("numeric", "categorical"):
        np.testing.assert_array_equal(suite.inputs[name], from_file[name])
        np.testing.assert_array_equal(suite.inputs[name], from_frame[name])
        np.testing.assert_array_equal(suite.inputs[name], served[name])
    flat = {"place.lat": 1, "place.lon": 2, "place.land.code": "DE", **{f"vector[{index}]": index for index in range(4)}}
    nested = {"place": {"lat": 1, "lon": 2, "land": {"code": "DE"}}, "vector": [0, 1, 2, 3]}
    assert reader.read({"rows": [flat, nested]}, problems)[0] == reader.read({"rows": [flat, nested]}, problems)[1]
    reader.read({"rows": [{**nested, "vector": [1, 2, 3, 4, 5]}, {**nested, "place": {"lat": 1}}]}, problems)
    assert [problem.field for problem in problems] == ["rows[0].vector", "rows[1].place.lon", "rows[1].place.land.code"]


def test_vectors_of_another_length_are_refused() -> None:
    table = pd.DataFrame({"v": [[1.0, 2.0], [3.0, 4.0], None], "y": [1, 2, 3]})
    encoder = TableEncoder.fit(as_table(table), ["v[0]", "v[1]"])
    assert encoder.transform(table)["numeric"].shape == (3, 4)
    with pytest.raises(DataError, match="'v' held lists of 2 numbers in training"):
        encoder.transform(pd.DataFrame({"v": [[1.0, 2.0, 3.0]]}))
    with pytest.raises(DataError, match="'v' held lists of 2 numbers"):
        encoder.transform(pd.DataFrame({"v": [[1.0, 2.0], [1.0]]}))


def test_what_are_vectors() -> None:
    found = vectors_of([[1, 2], (3, None), None, np.array([5.0, 6.0])])
    np.testing.assert_array_equal(found, [[1, 2], [3, np.nan], [np.nan, np.nan], [5, 6]])
    for cells in ([["a", "b"]], [[1], [2]], [[1, 2], [1, 2, 3]], [[[1], [2]]], [None]):
        assert vectors_of(cells) is None


def test_names_that_are_taken_and_too_many_fields() -> None:
    with pytest.raises(DataError, match=r"'p' would be called p\.x"):
        flatten_records(pd.DataFrame({"p": [{"x": 1}], "p.x": [2]}))
    many = pd.DataFrame(
        {
            "counts": [{f"user{index}": 1} for index in range(600)],
            "x": [index % 5 for index in range(600)],
            "y": [index * 3 % 7 for index in range(600)],
        }
    )
    assert list(flatten_records(many).columns) == ["counts", "x", "y"]
    suite = open_suite(many, targets="y")
    assert any("no one form: counts" in note for note in suite.notes)
    assert find_cell({"a": {"b.c": 1}}, "a.b.c") == (True, 1)
    assert find_cell({"a": 3}, "a.b") == (False, None)
