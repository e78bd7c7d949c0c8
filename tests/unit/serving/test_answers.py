"""Predictions of every kind as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from graftwork.core.records import TaskSpec
from graftwork.serving.answers import prediction_rows
from graftwork.serving.asking import parse_json
from graftwork.serving.problems import Problem, RequestError, shown


def one(spec: TaskSpec, values: object, **options: bool) -> dict[str, object]:
    (row,) = prediction_rows([spec], {spec.name: np.asarray(values, dtype=np.float64)}, **options)
    json.dumps(row, allow_nan=False)
    return row[spec.name]


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        (TaskSpec(name="t", kind="binary", size=1, classes=("no", "yes")), [0.25], {"value": "no", "probability": 0.75}),
        (TaskSpec(name="t", kind="multiclass", size=2), [[0.5, 0.75]], {"value": "1", "probability": 0.75}),
        (
            TaskSpec(name="t", kind="ordinal", size=2, classes=("low", "high")),
            [[0.75, 0.25]],
            {"value": "low", "probability": 0.75},
        ),
        (
            TaskSpec(name="t", kind="multilabel", size=3, classes=("a", "b", "c")),
            [[0.75, 0.5, 1.0]],
            {"value": ["a", "c"], "probabilities": {"a": 0.75, "b": 0.5, "c": 1.0}},
        ),
        (TaskSpec(name="t", kind="regression", size=1), [[2.5]], {"value": 2.5}),
        (TaskSpec(name="t", kind="regression", size=1), [[np.nan]], {"value": None}),
        (TaskSpec(name="t", kind="regression", size=2, columns=("x", "y")), [[1.5, np.inf]], {"values": {"x": 1.5, "y": None}}),
        (TaskSpec(name="t", kind="dense_regression", size=1), [[[[1.0, np.nan]]]], {"map": [[1.0, None]]}),
        (TaskSpec(name="t", kind="dense_binary", size=1), [[[[0.25]]]], {"map": [[0.25]]}),
        (TaskSpec(name="t", kind="dense_multiclass", size=2), [[[[0.9]], [[0.1]]]], {"map": [[0]], "classes": ["0", "1"]}),
        (TaskSpec(name="t", kind="dense_offsets", size=2), [[[[1.0]], [[2.0]]]], {"maps": [[[1.0]], [[2.0]]]}),
    ],
)
def test_every_kind(spec: TaskSpec, values: object, expected: dict[str, object]) -> None:
    assert one(spec, values) == expected


def test_probabilities_on_request_and_names_that_look_like_others() -> None:
    spec = TaskSpec(name="a", kind="binary", size=1, classes=("no", "yes"))
    found = one(spec, [0.75], probabilities=True)
    assert found == {"value": "yes", "probability": 0.75, "probabilities": {"no": 0.25, "yes": 0.75}}
    twins = [TaskSpec(name="a", kind="binary", size=1), TaskSpec(name="a_probability", kind="regression", size=1)]
    rows = prediction_rows(twins, {"a": np.array([1.0, 0.0]), "a_probability": np.array([[3.0], [4.0]])})
    assert [row["a_probability"]["value"] for row in rows] == [3.0, 4.0]
    assert [row["a"]["value"] for row in rows] == ["1", "0"]


@pytest.mark.parametrize(
    "value",
    ["\ud800", 10**5000, [[]] * 50, {"a": float("nan")}, float("inf"), b"x" * 900, None, True],
    ids=lambda value: type(value).__name__,
)
def test_whatever_was_given_can_be_repeated_as_json(value: object) -> None:
    text = json.dumps(RequestError(422, "No.", Problem("f", value, "something else")).json(), allow_nan=False)
    text.encode("ascii")
    assert len(text) < 500
    assert json.loads(text)["problems"][0]["value"] == shown(value)


def test_json_is_read_strictly() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1e3}') == {"a": 1000.0}
    for content in (b'{"a": Infinity}', b"{'a': 1}", b"[" * 200_000):
        with pytest.raises(RequestError) as caught:
            parse_json(content)
        assert caught.value.status == 400
