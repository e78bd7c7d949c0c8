"""Small tables: plans are compared by cross-validation, and the model that is handed over has learned from all rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("torch")
pytest.importorskip("lightgbm")

import graftwork as gw  # noqa: E402
from graftwork.core.errors import ConfigError  # noqa: E402
from graftwork.core.files import read_json  # noqa: E402
from graftwork.evaluation.correction import Correction  # noqa: E402
from graftwork.serving.kept_plans import folder_of_plan  # noqa: E402
from graftwork.workflows.runs.job_data import run_suite  # noqa: E402

from .progress_kills import jobs_done, killed_after, numbers_of  # type: ignore[import-not-found]  # noqa: E402


def frame_of(rows: int = 150) -> Any:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(rows, 4))
    hidden = x[:, 0] + 0.5 * x[:, 1]
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["price"] = 10 + 3 * hidden + 0.3 * draw.normal(size=rows)
    frame["late"] = np.where(hidden + 0.3 * draw.normal(size=rows) > 0, "yes", "no")
    return frame


QUICK: dict[str, Any] = {
    "targets": ["price", "late"],
    "plans": "shared-trunk,lightgbm",
    "steps": 8,
    "workers": 0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return gw.fit(frame_of(), **QUICK, out=tmp_path_factory.mktemp("runs") / "run")


def read(run: Any) -> Any:
    return json.loads((Path(run.folder) / "result.json").read_text(encoding="utf-8"))


def test_every_row_is_judged_by_a_model_that_did_not_learn_from_it(run: Any) -> None:
    measured = read(run)["measured"]
    assert (measured["folds"], measured["judged_folds"], measured["rows"]) == (5, 5, 150)
    for name in ("shared-trunk", "lightgbm"):
        assert len(list((Path(run.folder) / "jobs").glob(f"final-{name}-*"))) == 5


def test_the_result_shows_how_every_row_was_predicted_and_what_became_of_the_columns(run: Any) -> None:
    result = read(run)
    late, price = result["diagnostics"]["late"], result["diagnostics"]["price"]["values"][0]
    assert (late["rows"], price["rows"]) == (150, 150)
    if result["verdict"]["choice"] not in ("ensemble", "mixed"):
        stated = result["plans"][result["verdict"]["choice"]]["test"]["price"]["rmse"]["value"]
        points = price["points"]
        errors = np.subtract(points["prediction"], points["truth"])
        assert float(np.sqrt(np.mean(errors**2))) == pytest.approx(stated, rel=0.02), (
            "the predictions that the score was measured on"
        )
    assert list(result["suite"]["columns"]) == list("abcd")
    page = (Path(run.folder) / "report.html").read_text(encoding="utf-8")
    assert "each by a model that did not learn from its row" in page
    assert "What became of the columns" in page


def test_the_model_has_learned_from_all_rows_and_predicts_as_exported(run: Any) -> None:
    result = read(run)
    assert result["model"]["rows"] == "all"
    assert result["model"]["parts"] == 5
    assert result["verdict"]["choice"] in {*result["model"]["weights"], "ensemble"}
    for task in ("price", "late"):
        assert sum(weights.get(task, 0.0) for weights in result["model"]["weights"].values()) == pytest.approx(1.0)
    rows = frame_of().drop(columns=["price", "late"])
    found = gw.Predictor(run.folder).predict(rows)
    assert np.corrcoef(np.asarray(found["price"], dtype=float), frame_of()["price"])[0, 1] > 0.8


def test_other_finalists_answer_as_the_average_of_their_own_trainings(run: Any) -> None:
    new, kept = frame_of(170).iloc[150:], run.result["kept_plans"]["kept"]
    assert run.choice == "ensemble"
    assert set(run.result["model"]["weights"]) <= set(kept)
    for name in run.result["model"]["weights"]:
        assert (kept[name]["rows"], kept[name]["models"]) == ("all", 5)
        # The members of the chosen average are stored one by one beside it.
        members = sorted((Path(run.folder) / "model" / "members").glob(f"*-{name}"))
        assert len(members) == 5
        alone = [gw.Predictor(member).predict_arrays(new) for member in members]
        found = gw.Predictor(run.folder, plan=name).predict_arrays(new)
        corrections = read_json(folder_of_plan(Path(run.folder), name) / "model" / "config.json")["corrections"]
        for task, values in found.items():
            average = np.mean([one[task] for one in alone], axis=0)
            if task in corrections:
                average = Correction.from_json(corrections[task]).apply(average)
            np.testing.assert_allclose(values, average, rtol=1e-4, atol=1e-4)


def test_what_is_fitted_in_one_go_is_made_once_on_all_rows(tmp_path: Path) -> None:
    settings, frame = {**QUICK, "plans": "linear,extra-trees,knn"}, frame_of()
    # In part a straight line, in part not: an average of both plans is better than either.
    frame["price"] += 3 * np.abs(frame["c"])
    out = gw.fit(frame, **settings, out=tmp_path / "run")
    model, job = read(out)["model"], "whole-extra-trees-1of1"
    assert out.choice == "ensemble"
    at_once = set(model["weights"]) - {"separate"}
    assert (model["rows"], set(model["at_once"])) == ("all", at_once)
    others = [name for name in model["trainings"] if "separate" not in name]
    assert sorted(others) == sorted(f"whole-{name}-1of1" for name in at_once)
    assert len(model["trainings"]) == len(others) + 5 * ("separate" in model["weights"])
    assert not [line for line in out.warnings if "exported" in line]
    assert "extra-trees" in model["weights"]
    # All rows of the suite were learned from, also those by which its score is shown.
    assert len(run_suite(Path(out.folder) / "suite", 0, parts=1, keep_all=True).splits["train"]) == 150
    identity = read_json(next((Path(out.folder) / "jobs" / job).glob("checkpoint-*/model.json")))["identity"]
    assert identity["suite"] == run_suite(Path(out.folder) / "suite", 0, parts=1, keep_all=True).fingerprint()
    found = gw.Predictor(out.folder).predict(frame.drop(columns=["price", "late"]))
    assert np.corrcoef(np.asarray(found["price"], dtype=float), frame["price"])[0, 1] > 0.9


def test_one_model_without_the_test_rows_on_request(tmp_path: Path) -> None:
    result = read(gw.fit(frame_of(), **QUICK, single=True, refit=False, out=tmp_path / "run"))
    assert result["model"]["rows"] == "training"
    assert result["model"]["models"] == 1
    assert not {"ensemble", "mixed"} & set(result["plans"])


def test_members_that_had_no_time_for_all_rows_come_from_the_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Networks make 8 steps here and trees more, so only the trees count as made anew.
    monkeypatch.setattr(
        "graftwork.workflows.fit.handover._is_whole", lambda result, least_steps: bool(result and result["steps"] > 8)
    )
    out = gw.fit(frame_of(), **QUICK, folds=0, seeds=2, out=tmp_path / "run")
    model = read(out)["model"]
    assert "lightgbm" in model["weights"]
    assert len(model["weights"]) > 1
    assert (model["rows"], model["whole"]) == ("some", ["lightgbm"])
    assert {job for job in model["trainings"] if job.startswith("whole-")} == {"whole-lightgbm-1of1"}
    assert any("could learn from all rows, so this part of the model is one of the race" in line for line in out.warnings)
    found = gw.Predictor(out.folder).predict(frame_of().drop(columns=["price", "late"]))
    assert np.corrcoef(np.asarray(found["price"], dtype=float), frame_of()["price"])[0, 1] > 0.8


def test_one_split_on_request(tmp_path: Path) -> None:
    result = read(gw.fit(frame_of(), **QUICK, folds=0, seeds=1, out=tmp_path / "run"))
    assert result["measured"]["folds"] == 0
    assert result["measured"]["rows"] == 30
    assert (result["model"]["rows"], result["model"]["parts"]) == ("all", 1)


def test_more_folds_than_the_rows_allow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be divided into 50 folds"):
        gw.fit(frame_of(60), **QUICK, folds=50, out=tmp_path / "run")


@pytest.mark.slow
def test_a_killed_cross_validation_ends_with_the_same_numbers(tmp_path: Path) -> None:
    """Which says as well that equal settings give equal results."""
    table = tmp_path / "small.csv"
    frame_of().to_csv(table, index=False)
    words = [sys.executable, "-m", "graftwork.cli.main", "fit", str(table), "--targets", "price,late", "--steps", "8"]
    words += ["--plans", "shared-trunk,lightgbm", "--folds", "3", "--workers", "1", "--checkpoint-seconds", "0.2"]

    def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
        log = open(out.with_suffix(".txt"), "ab")  # noqa: SIM115
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*words, "--out", str(out), *more], stdout=log, stderr=log, env=environment)

    whole = tmp_path / "whole"
    assert start(whole).wait(timeout=900) == 0, whole.with_suffix(".txt").read_text()
    jobs = jobs_done(whole)
    out = tmp_path / "killed"
    for share in (0.45, 0.75):
        assert killed_after(start(out, "--resume"), out, int(share * jobs)), out.with_suffix(".txt").read_text()[-3000:]
    process = start(out, "--resume")
    process.wait(timeout=900)
    assert process.returncode == 0, out.with_suffix(".txt").read_text()[-3000:]
    results = [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in (whole, out)]
    assert numbers_of(results[0]) == numbers_of(results[1])
    graphs = [(folder / "model.onnx").read_bytes() for folder in (whole, out)]
    assert graphs[0] == graphs[1]
    others = [{file.parent.name: file.read_bytes() for file in folder.glob("plans/*/model.onnx")} for folder in (whole, out)]
    assert others[0] == others[1]
    assert len(others[0]) >= 2
