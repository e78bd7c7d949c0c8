"""Explanations of single rows, by models that are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_builder import table_encoder, write_table_run, write_text_run

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.store import save_suite
from graftwork.data.suite import Suite
from graftwork.serving.explain import background_inputs, explain
from graftwork.serving.predict import Predictor


def _frame(rows: int = 60, seed: int = 5) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": draw.normal(40, 10, rows).round(1),
            "city": draw.choice(["Oslo", "Rome", "Lima"], rows),
            "since": pd.date_range("2020-01-01", periods=rows, freq="37D").strftime("%Y-%m-%d"),
            "id": np.arange(float(rows)),
        }
    )


def _with_suite(folder: Path) -> Path:
    """Add the training rows that a run keeps."""
    encoder = table_encoder()
    arrays = encoder.transform(_frame())
    suite = Suite(
        name="rows",
        tasks=(TaskSpec(name="number", kind="regression", size=1),),
        inputs=arrays,
        targets={"number": np.zeros((60, 1), np.float32)},
        splits={"train": np.arange(50), "val": np.arange(50, 55), "test": np.arange(55, 60)},
        input_specs={"table": InputSpec(kind="table", sizes=encoder.sizes(), encoder=encoder.state())},
    )
    save_suite(suite, folder / "suite")
    return folder


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(_with_suite(write_table_run(tmp_path_factory.mktemp("runs") / "table")))


def _effect(frame: Any, row: int, task: str, column: str) -> float:
    own = frame.loc[[row]]
    return float(own[(own["task"] == task) & (own["column"] == column)]["effect"].item())


def test_a_number_moves_by_the_column_that_it_is_made_of(predictor: Predictor) -> None:
    rows = _frame(4, seed=9)
    found = explain(predictor, rows, ["number", "third"], background=20)
    assert list(found.columns) == ["task", "prediction", "column", "cell", "effect"]
    assert len(found) == 4 * 2 * 4
    # `number` is the standardised age: its effect is the prediction minus the mean of the background's.
    background = background_inputs(predictor, 20)["numeric"][:, 0]
    own = predictor.predict(rows)["number"].to_numpy()
    for row in range(4):
        assert _effect(found, row, "number", "age") == pytest.approx(own[row] - background.mean(), abs=1e-5)
        assert _effect(found, row, "number", "city") == 0.0
    first = found.loc[[0]]
    assert first[first["task"] == "number"]["column"].iloc[0] == "age"
    assert first["cell"].iloc[0] == str(rows["age"][0])
    # `third` adds up all numbers, so here the effects do add up to the difference from the background.
    total = sum(_effect(found, 0, "third", column) for column in rows.columns)
    everything = background_inputs(predictor, 20)["numeric"].sum(axis=1).mean() / 3
    assert total == pytest.approx(predictor.predict(rows)["third"].iloc[0] - everything, abs=1e-4)


def test_a_class_is_explained_by_the_probability_of_what_is_predicted(predictor: Predictor) -> None:
    rows = _frame(6, seed=2)
    found = explain(predictor, rows, ["city class"], background=30)
    codes = background_inputs(predictor, 30)["categorical"][:, 0]
    own = predictor.encoder.transform(rows)["categorical"][:, 0]
    for row in range(6):
        assert _effect(found, row, "city class", "city") == pytest.approx(1 - (codes == own[row]).mean(), abs=1e-6)
        assert found.loc[[row]]["prediction"].iloc[0] == rows["city"][row]


def test_the_largest_effects_come_first_and_can_be_the_only_ones(predictor: Predictor) -> None:
    rows = _frame(5)
    rows.index = pd.Index(["a", "b", "c", "d", "e"], name="task")
    found, some = (explain(predictor, rows, most=most) for most in (None, 2))
    assert len(some) == 5 * 3 * 2
    assert found.index.name != "task"
    for (_, task), lines in found.groupby([found.index, "task"]):
        sizes = lines["effect"].abs().tolist()
        assert sizes == sorted(sizes, reverse=True)
        kept = some[(some.index == lines.index[0]) & (some["task"] == task)]
        assert kept["column"].tolist() == lines["column"].tolist()[:2]


def test_blocks_and_batches_change_nothing(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _frame(7)
    whole = explain(predictor, rows)
    monkeypatch.setattr("graftwork.serving.explain._BLOCK_BYTES", 1)
    monkeypatch.setattr(predictor, "batch_size", 3)
    pd.testing.assert_frame_equal(explain(predictor, rows), whole)


def test_a_text_is_one_column(tmp_path: Path) -> None:
    folder = write_text_run(tmp_path / "run")
    predictor = Predictor(folder)
    texts = ["good day to you", "bad day"] * 5
    suite = Suite(
        name="texts",
        tasks=predictor.tasks,
        inputs=predictor.encoder.transform(texts),
        targets={"length": np.zeros((10, 1), np.float32), "long": np.zeros(10, np.int64)},
        splits={"train": np.arange(10), "val": np.arange(0), "test": np.arange(0)},
        input_specs=predictor.inputs,
        raw={"text": texts},
    )
    save_suite(suite, folder / "suite")
    found = explain(predictor, pd.DataFrame({"body": ["a day and a night"]}), ["length"])
    lengths = (background_inputs(predictor, 30)["tokens"] > 0).sum(axis=1)
    assert found[["column", "cell"]].to_numpy().tolist() == [["body", "a day and a night"]]
    assert found["effect"].item() == pytest.approx(found["prediction"].item() - lengths.mean(), abs=1e-5)
    # A pretrained backbone reads the raw text with another encoder than the suite's.
    other = {**predictor.inputs["text"].encoder, "max_length": predictor.inputs["text"].encoder["max_length"] - 1}
    predictor.inputs = {"text": InputSpec(kind="text", encoder=other)}
    assert background_inputs(predictor, 4)["tokens"].shape == (4, other["max_length"])


def test_what_cannot_be_explained_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1; got 0 and 30"):
        explain(predictor, _frame(2), most=0)
    with pytest.raises(ConfigError, match="There is no task 'numbre'"):
        explain(predictor, _frame(2), ["numbre"])
    shutil.copytree(predictor.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "suite")
    with pytest.raises(FileFormatError, match="holds no training rows"):
        explain(Predictor(tmp_path / "run"), _frame(2))


def test_the_command_line_writes_effects(predictor: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from graftwork.cli.main import main

    _frame(3).to_csv(tmp_path / "rows.csv", index=False)
    words = ["predict", str(predictor.folder), str(tmp_path / "rows.csv"), "--tasks", "number"]
    assert main([*words, "--explain", "2", "--out", str(tmp_path / "why.csv")]) == 0
    found = pd.read_csv(tmp_path / "why.csv")
    assert list(found.columns) == ["row", "task", "prediction", "column", "cell", "effect"]
    assert len(found) == 3 * 2
    # Of tasks with numbers and with classes the predictions are of two types, which one column of Parquet cannot hold.
    both = ["predict", str(predictor.folder), str(tmp_path / "rows.csv"), "--explain", "1"]
    for _ in range(2):
        assert main([*both, "--out", str(tmp_path / "why.parquet")]) == 0
    read = pd.read_parquet(tmp_path / "why.parquet")
    assert {"number", "city class"} <= {*read["task"]}
    assert all(isinstance(value, str) for value in read["prediction"])
    capsys.readouterr()
    assert main([*words, "--explain"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 * 4
    assert main([*words, "--explain", "0"]) == 2
    assert "--explain takes the number of columns to show, as in 5; got '0'" in capsys.readouterr().err
    assert main([*words, "--explain", "--interval", "90"]) == 2
    assert "without --interval" in capsys.readouterr().err
