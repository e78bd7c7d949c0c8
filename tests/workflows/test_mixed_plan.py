"""A table on which the best plan differs by task: one plan for each, judged, said, handed over and used as one model."""

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

import graftwork as gw  # noqa: E402
from graftwork.cli.main import main  # noqa: E402
from graftwork.core.records import Plan  # noqa: E402
from graftwork.evaluation.choice.together import plans_of_tasks  # noqa: E402

from .progress_kills import jobs_done, killed_after, numbers_of  # type: ignore[import-not-found]  # noqa: E402

TARGETS = ["price", "late", "size"]
TAKES = {"extra-trees": ["late"], "linear": ["price", "size"]}


def frame_of(rows: int = 150) -> Any:
    """Two targets that are straight lines, and one that no line tells from chance."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(rows, 4))
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["price"] = 10 + 3 * x[:, 0] - 2 * x[:, 1] + 0.3 * draw.normal(size=rows)
    frame["late"] = np.where((np.abs(x[:, 0]) > 0.7) ^ (draw.random(rows) < 0.05), "yes", "no")
    frame["size"] = 5 + x[:, 2] + x[:, 3] + 0.3 * draw.normal(size=rows)
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings: dict[str, Any] = {"plans": "linear,extra-trees", "steps": 8, "folds": 3, "workers": 0, "prefer": "cost"}
    return gw.fit(frame_of(), targets=TARGETS, out=tmp_path_factory.mktemp("runs") / "run", **settings)


def test_it_stands_beside_the_plans_and_its_cost_is_what_it_needs(run: Any) -> None:
    result = run.result
    # An ensemble whose weights are those of the mixed plan is none.
    assert set(result["plans"]) - {"ensemble"} == {"separate", "linear", "extra-trees", "mixed"}
    assert set(run.leaderboard()["plan"]) == set(result["plans"])
    assert run.choice == "mixed"
    entry = result["plans"]["mixed"]
    assert plans_of_tasks(Plan.from_json(entry["plan"])) == TAKES
    # It is as good for each task as the plan that it takes there: all parts of the rows picked the same.
    for plan, tasks in TAKES.items():
        for task in tasks:
            assert entry["test"][task] == result["plans"][plan]["test"][task]
    # Of the forests it needs that of one task, and of the linear models all numbers, which are in one table.
    stored = {name: own["ledger"]["parameters_stored"] for name, own in result["plans"].items()}
    assert stored["linear"] < stored["mixed"] < stored["linear"] + stored["extra-trees"]
    own = read_own_costs(run)
    assert stored["mixed"] == stored["linear"] + stored["extra-trees"] - own["price"] - own["size"]


def read_own_costs(run: Any) -> dict[str, int]:
    job = json.loads((Path(run.folder) / "jobs" / "final-extra-trees-s0" / "result.json").read_text(encoding="utf-8"))
    return {task: costs["parameters_stored"] for task, costs in job["own_costs"].items()}


def test_report_card_and_summary_say_which_plan_answers_what(run: Any) -> None:
    said = "`mixed` answers each task with one plan, chosen on validation: `extra-trees` for `late`, `linear` for `price` and `size`."
    assert said in run.result["verdict"]["sentences"]
    made = "The model answers each task by one plan (`late` by `extra-trees`; `price`, `size` by `linear`), from 2 trainings"
    card = (Path(run.folder) / "model" / "README.md").read_text(encoding="utf-8")
    for text in (card, run.summary()):
        assert made in " ".join(text.split())
    page = (Path(run.folder) / "report.html").read_text(encoding="utf-8")
    assert "The model answers each task by one plan" in page
    assert "Plan that answers each task in the model that is handed over" in page
    # The tasks were never learned together, so nothing is concluded of it.
    assert result_help(run) == []


def result_help(run: Any) -> list[Any]:
    return list(run.result["verdict"]["help"])


def test_one_graph_answers_each_task_as_the_plan_alone(run: Any, tmp_path: Path) -> None:
    new = frame_of(190).iloc[150:].drop(columns=TARGETS)
    assert run.result["model"]["weights"] == {plan: dict.fromkeys(tasks, 1.0) for plan, tasks in TAKES.items()}
    together = gw.Predictor(run.folder, plan="mixed").predict_arrays(new)
    np.testing.assert_equal(together, gw.Predictor(run.folder).predict_arrays(new))
    for plan, tasks in TAKES.items():
        alone = gw.Predictor(run.folder, plan=plan).predict_arrays(new)
        for task in tasks:
            np.testing.assert_allclose(together[task], alone[task], rtol=1e-4, atol=1e-4)
    rows, out = tmp_path / "rows.csv", tmp_path / "answers.csv"
    new.to_csv(rows, index=False)
    assert main(["predict", str(run.folder), str(rows), "--plan", "mixed", "--out", str(out), "--threads", "1"]) == 0
    np.testing.assert_allclose(pd.read_csv(out)["price"], together["price"].ravel(), rtol=1e-4)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_mixed_plan(tmp_path: Path) -> None:
    table = tmp_path / "small.csv"
    frame_of().to_csv(table, index=False)
    words = [sys.executable, "-m", "graftwork.cli.main", "fit", str(table), "--targets", ",".join(TARGETS), "--steps", "8"]
    words += ["--plans", "linear,extra-trees", "--folds", "3", "--workers", "1", "--checkpoint-seconds", "0.2"]

    def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
        log = open(out.with_suffix(".txt"), "ab")  # noqa: SIM115
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*words, "--out", str(out), *more], stdout=log, stderr=log, env=environment)

    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(timeout=900) == 0, whole.with_suffix(".txt").read_text()
    jobs = jobs_done(whole)
    # The last kill comes while models are exported.
    for share in (0.5, 0.9):
        assert killed_after(start(out, "--resume"), out, int(share * jobs)), out.with_suffix(".txt").read_text()[-3000:]
    assert start(out, "--resume").wait(timeout=900) == 0, out.with_suffix(".txt").read_text()[-3000:]
    results = [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in (whole, out)]
    assert numbers_of(results[0]) == numbers_of(results[1])
    graphs = [
        {str(file.relative_to(folder)): file.read_bytes() for file in (*folder.glob("plans/*/model.onnx"), folder / "model.onnx")}
        for folder in (whole, out)
    ]
    assert graphs[0] == graphs[1]
    assert results[0]["verdict"]["choice"] == "mixed"
