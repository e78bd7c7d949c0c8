"""Other finalists of a run: found by name, read like the run itself, refused with the names that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import run_builder
from onnx import numpy_helper

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError
from graftwork.serving.describing import describe
from graftwork.serving.engine import Engine
from graftwork.serving.kept_plans import chosen_plan, folder_of_plan, kept_plans, model_date
from graftwork.serving.predict import Predictor

ROWS = pd.DataFrame({"age": [33.0, 50.0], "city": ["Rome", "Oslo"], "since": [None, "2021-05-01"], "id": [3, 4]})


def named(folder: Path, plan: str, factor: float) -> Path:
    """Give a run's model the name of a plan, and let it answer ``factor`` times as much for ``number``."""
    config = folder / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "plan": {"name": plan}}))
    model = onnx.load(folder / "model.onnx")
    for weight in model.graph.initializer:
        if weight.name == "first":
            weight.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(weight), "first"))
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = named(run_builder.write_table_run(tmp_path / "run"), "ensemble", 1.0)
    # The folder of a plan need not be called like the plan.
    for plan, name, factor in (("my trees/2", "my_trees_2", 10.0), ("separate", "separate", 100.0)):
        named(run_builder.write_table_run(folder / "plans" / name), plan, factor)
    result = {
        "plans": {"ensemble": {}, "separate": {}, "my trees/2": {}, "giant": {}, "older": {}},
        "race": [{"plan": "loser", "rung": 0}],
        "kept_plans": {"kept": {}, "not_kept": {"giant": "its 900 MB are too many"}},
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_each_plan_answers_with_its_own_model(run: Path) -> None:
    chosen = Predictor(run, threads=1).predict(ROWS)["number"]
    for plan, factor in (("ensemble", 1), ("my trees/2", 10), ("separate", 100)):
        predictor = Predictor(run, plan=plan, threads=1)
        assert predictor.plan == plan
        np.testing.assert_allclose(predictor.predict(ROWS)["number"], factor * chosen, rtol=1e-5)
    assert Predictor(run, threads=1).plan == "ensemble"
    assert chosen.ne(0).all()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("seperate", "no model of a plan 'seperate'. Did you mean 'separate'?"),
        ("giant", "'giant' was not kept: its 900 MB are too many"),
        ("older", "'older' was not kept: the run is of a version that kept the chosen plan only"),
        ("loser", "'loser' was not kept: it did not reach the finals"),
        ("../run", "no model of a plan '../run'"),
        ("", "no model of a plan ''"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(run: Path, plan: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        Predictor(run, plan=plan)
    assert "are: ensemble (the chosen one), my trees/2, separate." in str(error.value)


def test_half_a_folder_is_no_plan(run: Path) -> None:
    (run / "plans" / "separate" / "model.onnx").unlink()
    (run / "plans" / "damaged" / "model").mkdir(parents=True)
    (run / "plans" / "damaged" / "model" / "config.json").write_text("{")
    assert list(kept_plans(run)) == ["my trees/2"]
    assert chosen_plan(run) == "ensemble"
    assert folder_of_plan(run, None) == run


def test_a_run_without_other_plans_says_so(tmp_path: Path) -> None:
    folder = named(run_builder.write_table_run(tmp_path / "run"), "alone", 1.0)
    (folder / "result.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"'separate'. The models of .* are: alone \(the chosen one\)\."):
        Predictor(folder, plan="separate")
    (folder / "result.json").unlink()
    with pytest.raises(ConfigError, match="no model of a plan 'separate'"):
        Predictor(folder, plan="separate")


def test_predict_and_serve_take_the_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.csv"
    ROWS.to_csv(rows, index=False)
    printed = []
    for more in ([], ["--plan", "separate"]):
        assert main(["predict", str(run), str(rows), "--tasks", "number", "--threads", "1", *more]) == 0
        printed.append([float(line.split(",")[1]) for line in capsys.readouterr().out.splitlines()[1:]])
    np.testing.assert_allclose(printed[1], 100 * np.array(printed[0]), rtol=1e-4)
    for verb in (["predict", str(run), str(rows)], ["serve", str(run), "--port", "0"]):
        assert main([*verb, "--plan", "separat"]) == 2
        assert "Did you mean 'separate'?" in capsys.readouterr().err


def test_a_server_says_which_plan_answers_and_when_it_was_made(run: Path) -> None:
    dates = {"ensemble": "2026-01-02T03:04:05+00:00", "separate": "2026-01-02T03:05:06+00:00"}
    for name, folder in (("ensemble", run), ("separate", run / "plans" / "separate")):
        (folder / "model" / "lineage.json").write_text(json.dumps({"created": dates[name]}))
    for plan, name in ((None, "ensemble"), ("separate", "separate")):
        engine = Engine(run, threads=1, plan=plan)
        try:
            assert (describe(engine)["plan"], describe(engine)["created"]) == (name, dates[name])
            assert engine.predictor.model.path.parent == (run if plan is None else run / "plans" / "separate")
        finally:
            engine.close()
    # Without a lineage, or with one that is damaged, nothing is said.
    assert model_date(run, "my trees/2") == ""
    (run / "model" / "lineage.json").write_text("[1]")
    assert model_date(run, "") == ""


def test_predictions_are_not_written_over_a_kept_plan(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    out = run / "plans" / "new.csv"
    assert main(["predict", str(run), str(tmp_path / "rows.csv"), "--out", str(out)]) == 2
    assert "lies among the files of the run" in capsys.readouterr().err
