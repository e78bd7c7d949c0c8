"""Names of output columns never collide, whichever tasks are asked; targets far from zero come back whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from onnx import helper
from run_builder import FLOAT, describe, graph

from graftwork.core.records import TaskSpec
from graftwork.data.encoders.columns import NumericColumn
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.output_columns import column_notes, output_name, row_name
from graftwork.serving.answers import prediction_rows
from graftwork.serving.predict import Predictor

TASKS = (
    TaskSpec(name="spam", kind="binary", size=1, classes=("no", "yes")),
    TaskSpec(name="spam_probability", kind="regression", size=1),
    TaskSpec(name="tags", kind="multilabel", size=2, classes=("red", "blue")),
    TaskSpec(name="tags[red]", kind="regression", size=1),
    TaskSpec(name="row", kind="regression", size=1),
    TaskSpec(name="far", kind="regression", size=1, details={"origin": [5_000_000.0]}),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Every task answers with the input, or with two copies of it."""
    nodes = [helper.make_node("Identity", ["numeric"], [task.name]) for task in TASKS if task.name not in ("spam", "tags")]
    nodes += [
        helper.make_node("Squeeze", ["numeric", "axis"], ["spam"]),
        helper.make_node("Concat", ["numeric", "numeric"], ["tags"], axis=1),
    ]
    outputs = {task.name: (FLOAT, ["batch", task.size]) for task in TASKS} | {"spam": (FLOAT, ["batch"])}
    graph(tmp_path / "model.onnx", nodes, {"numeric": (FLOAT, ["batch", 1])}, outputs, {"axis": np.array([1])})
    encoder = TableEncoder([NumericColumn("x", 0.0, 1.0, False)])
    return describe(tmp_path, encoder.state(), TASKS)


def test_names_are_unique_and_do_not_depend_on_what_is_asked(run: Path, tmp_path: Path) -> None:
    predictor = Predictor(run)
    pd.DataFrame({"x": [0.25, 0.75]}).to_csv(tmp_path / "t.csv", index=False)
    found = predictor.predict(tmp_path / "t.csv", probabilities=True)
    assert list(found.columns) == [
        *("spam", "spam_probability_2", "spam[no]", "spam[yes]", "spam_probability"),
        *("tags[red]_2", "tags[blue]", "tags[red]", "row", "far"),
    ]  # fmt: skip
    assert found.index.name == "row_2"
    assert found["spam"].tolist() == ["no", "yes"]
    assert found["spam_probability_2"].tolist() == [0.75, 0.75]
    assert found["spam_probability"].tolist() == [0.25, 0.75]
    assert list(predictor.predict(tmp_path / "t.csv", ["spam"]).columns) == ["spam", "spam_probability_2"]
    assert len(set(found.reset_index().columns)) == len(found.columns) + 1


def test_values_far_from_zero_are_whole_in_tables_arrays_and_answers(run: Path) -> None:
    rows = pd.DataFrame({"x": [0.125, 3.25]})
    predictor = Predictor(run)
    assert predictor.predict(rows)["far"].tolist() == [5_000_000.125, 5_000_003.25]
    arrays = predictor.predict_arrays(rows)
    assert arrays["far"].ravel().tolist() == [5_000_000.125, 5_000_003.25]
    raw = predictor.run_arrays(predictor.encoder.transform(rows))
    assert prediction_rows(TASKS[-1:], raw)[0]["far"]["value"] == 5_000_000.125


def test_the_same_names_are_said_at_training() -> None:
    targets = {task.name: np.zeros((3, task.size), np.float32) for task in TASKS} | {"spam": np.zeros(3, np.int64)}
    assert [note.split("it is called ")[-1] for note in column_notes(TASKS, targets)] == [
        "A target is called 'row', so predictions name their rows in the column 'row_2'.",
        "'spam_probability_2'.",
        "'tags[red]_2'.",
    ]
    assert column_notes(TASKS[:1], targets) == []
    assert output_name("spam", "spam", ["spam"]) == "spam"
    assert (row_name("file", ["file", "file_2"]), row_name(None, ["file"]), row_name("row", ["y"])) == ("file_3", None, "row")
