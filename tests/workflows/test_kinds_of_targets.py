"""Times until an event, rankings, token sequences and ids: from a table to a model that predicts and is served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graftwork
from graftwork.data.reading.ingest import open_suite
from graftwork.serving.answers import prediction_rows
from graftwork.serving.describing import answer_schema, describe
from graftwork.serving.engine import Engine
from graftwork.serving.predict import Predictor

ROWS = 300
KINDS = {"stay": "survival", "fit": "ranking", "steps": "sequence", "item": "embedding"}


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    event_time, leave = rng.exponential(30 * np.exp(-x[:, 0])), rng.exponential(60, ROWS)
    item = np.arange(ROWS) // 5
    frame = pd.DataFrame(
        {
            "a": x[:, 0],
            "b": x[:, 1],
            "c": x[:, 2] + (item % 7),
            "days": np.minimum(event_time, leave).round(2),
            "died": np.where(event_time <= leave, "yes", "no"),
            "grade": np.clip(np.round(1.5 + x[:, 1]), 0, 4),
            "query": [f"q{index}" for index in item],
            "steps": ["up go" if value > 0 else "down" for value in x[:, 0]],
            "item": [f"i{index}" for index in item],
        }
    )
    frame.loc[:9, "days"] = None
    frame.loc[20:29, "steps"] = None
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kinds") / "run"
    targets = ["stay=days+died", "fit=grade+query", "steps", "item"]
    graftwork.fit(table(), targets=targets, task_kinds=KINDS, out=out, steps=20, seeds=1, workers=0, plans="shared-trunk")
    return out


def test_the_race_is_run_and_reported(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    scores = result["plans"]["shared-trunk"]["test"]
    assert list(scores) == ["stay", "fit", "steps", "item"]
    assert {"concordance", "integrated_brier"} <= set(scores["stay"])
    assert {"ndcg", "pair_accuracy"} <= set(scores["fit"])
    report = (run / "report.html").read_text()
    assert "time until an event" in report
    assert "order within a query" in report


def test_rows_are_predicted_and_answers_fit_the_servers_schema(run: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema_rs")
    frame = Predictor(run).predict(table()[["a", "b", "c"]].head(3), probabilities=True)
    assert {"stay", "stay_median", "fit", "steps", "steps_probability", "item[0]"} <= set(frame.columns)
    assert (frame["stay"] > 0).all()
    with_engine = Engine(run, threads=1)
    try:
        schema = answer_schema(with_engine)["properties"]["predictions"]
        facts = {task["name"]: task for task in describe(with_engine)["tasks"]}
    finally:
        with_engine.close()
    assert (facts["stay"]["kind"], facts["stay"]["positions"]) == ("survival", "")
    predictor = Predictor(run)
    arrays = predictor.predict_arrays(table()[["a", "b", "c"]].head(3))
    rows = prediction_rows(predictor.tasks, arrays, probabilities=True)
    assert [error.message for error in jsonschema.validator_for(schema).iter_errors(rows)] == []
    assert list(rows[0]["stay"]) == ["value", "median", "horizon", "probabilities"]
    curve = list(rows[0]["stay"]["probabilities"].values())
    assert curve == sorted(curve, reverse=True)


def test_a_suite_file_names_the_same_kinds(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "stays.csv", index=False)
    (tmp_path / "suite.yaml").write_text(
        "datasets:\n  - source: stays.csv\n    ignore: [query, item]\n    targets:\n"
        "      stay: {kind: survival, columns: [days, died]}\n      steps: {kind: sequence}\n      grade: {kind: ranking}\n"
    )
    suite = open_suite(tmp_path / "suite.yaml")
    assert [task.kind for task in suite.tasks] == ["survival", "sequence", "ranking"]
    edges = suite.task("stay").details["edges"]
    assert suite.task("stay").size == len(edges)
    assert np.isnan(suite.targets["stay"][:10]).all()
