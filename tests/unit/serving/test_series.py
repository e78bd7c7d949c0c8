"""Series of requests are checked entry by entry, and read as predicting reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.data.encoders.series import SeriesEncoder
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import Problem
from graftwork.serving.series import SeriesReader


def read(encoder: SeriesEncoder, content: dict[str, Any]) -> tuple[SeriesReader, list[Any], list[Problem]]:
    reader, problems = SeriesReader(encoder, ServeLimits()), []
    return reader, reader.read(content, problems), problems


def test_lists_give_what_the_encoder_gives() -> None:
    encoder = SeriesEncoder(3, [1.0], [2.0], interval=60.0)
    reader, rows, problems = read(encoder, {"series": [[1, None, 3], "4 5", []]})
    assert not problems
    for name, array in encoder.transform([[1, None, 3], [4, 5], []]).items():
        np.testing.assert_array_equal(reader.encode(rows)[name], array)
    assert reader.item_schemas()["series"]["type"] == ["array", "null"]
    assert reader.inputs() == [{"name": "series", "type": "series", "length": 3, "channels": 1}]
    assert not reader.encode(reader.blank())["series_mask"].any()


def test_rows_with_columns_give_what_the_encoder_gives() -> None:
    encoder = SeriesEncoder(2, [0.0, 0.0], [1.0, 1.0], columns=("a", "b"), times="at")
    content = {"rows": [{"a": [1, 2], "b": [3, None], "at": ["2020-01-01", "2020-01-02"], "more": 1}]}
    reader, rows, problems = read(encoder, content)
    assert not problems
    frame = pd.DataFrame([{key: content["rows"][0][key] for key in ("a", "b", "at")}])
    for name, array in encoder.transform(frame).items():
        np.testing.assert_array_equal(reader.encode(rows)[name], array)
    assert reader.item_schemas()["rows"]["required"] == ["a", "b", "at"]
    assert [column["type"] for column in reader.inputs()] == ["series", "series", "moments"]
    assert reader.encode(reader.blank())["series"].shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("encoder", "content", "place"),
    [
        (SeriesEncoder(2, [0.0], [1.0]), {"series": [[1], ["x"]]}, "series[1]"),
        (SeriesEncoder(2, [0.0], [1.0]), {"series": [[1e999]]}, "series[0]"),
        (SeriesEncoder(2, [0.0], [1.0]), {"series": [[[1, 2]]]}, "series[0]"),
        (SeriesEncoder(2, [0.0], [1.0]), {"series": [{"a": 1}]}, "series[0]"),
        (SeriesEncoder(2, [0.0], [1.0]), {"series": [[0] * 100_001]}, "series[0]"),
        (SeriesEncoder(2, [0.0], [1.0]), {"rows": [[1]]}, "series"),
        (SeriesEncoder(2, [0.0], [1.0], columns=("a",)), {"rows": [[1]]}, "rows[0]"),
        (SeriesEncoder(2, [0.0], [1.0], columns=("a",)), {"rows": [{"A": [1]}]}, "rows[0].a"),
        (SeriesEncoder(2, [0.0] * 2, [1.0] * 2, columns=("a", "b")), {"rows": [{"a": [1], "b": [1, 2]}]}, "rows[0]"),
        (SeriesEncoder(2, [0.0], [1.0], columns=("a",), times="t"), {"rows": [{"a": [1, 2], "t": [2, 1]}]}, "rows[0].t"),
        (SeriesEncoder(2, [0.0] * 2, [1.0] * 2, columns=("a", "b")), {"rows": [{"a": [1, "x"], "b": [1, 2]}]}, "rows[0].a"),
        (SeriesEncoder(2, [0.0] * 3, [1.0] * 3, columns=("a", "b", "c")), {"rows": [{"a": [1], "b": [1]}]}, "rows[0].c"),
        (SeriesEncoder(2, [0.0], [1.0], columns=("a",), times="t"), {"rows": [{"a": [2, 1]}]}, "rows[0].t"),
    ],
)
def test_faults_are_named_by_their_place(encoder: SeriesEncoder, content: dict[str, Any], place: str) -> None:
    problems = read(encoder, content)[2]
    assert [problem.field for problem in problems] == [place]
