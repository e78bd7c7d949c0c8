"""What a run says of its columns and of more rows, with small real learners. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.components import Component
from graftwork.core.errors import FileFormatError
from graftwork.core.records import Plan, Role
from graftwork.core.stages.train import TrainStage
from graftwork.data.samples import nested_sample
from graftwork.data.suite import Suite
from graftwork.workflows.fit import FitRun, fit
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.jobs import read_job
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.run_folder import RunFolder

from .conftest import linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")


def plan(name: str, role: Role, **settings: object) -> Plan:
    stage = TrainStage(learner=Component("fake_learners:LinearLearner", settings), training={"max_steps": 1})
    return Plan(name=name, title=name, role=role, modalities=("table",), stages=(stage,))


def run_of(suite: Suite, out: Path, **settings: Any) -> FitRun:
    plans: list[str | Plan] = ["none", plan("alone", "reference", rate=0.8), plan("fast", "joint", rate=1.0)]
    fields = {"steps": 8, "seeds": 2, "workers": 0, "backbone": "none", "single": True, **settings}
    return fit(suite, plans=plans, out=out, **fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FitRun:
    from graftwork.core.components import components_allowed

    with components_allowed("fake_learners"), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        return run_of(linear_suite(500), tmp_path_factory.mktemp("runs") / "run")


def test_every_column_is_measured_for_every_task_on_rows_that_were_kept_out(run: FitRun) -> None:
    found = run.result["importance"]
    assert (found["plan"], found["rows"], found["num_columns"], found["measured"]) == (run.choice, 100, 4, 4)
    frame = run.importance()
    assert list(frame.columns) == ["task", "column", "metric", "importance", "importance_low", "importance_high"]
    assert len(frame) == 2 * 4
    assert frame.attrs["rows"] == 100
    for _, own in frame.groupby("task", sort=False):
        assert own["importance"].tolist() == sorted(own["importance"], reverse=True)
        assert (own["importance_low"] <= own["importance"]).all()
        assert (own["importance"] <= own["importance_high"]).all()
        assert own["importance_low"].iloc[0] > 0


def test_the_curve_has_four_sizes_and_ends_at_the_final(run: FitRun) -> None:
    curve = run.result["learning_curve"]
    assert curve["sizes"] == [38, 75, 150, 300]
    assert curve["plan"] in ("alone", "fast")
    for task in ("first", "second"):
        last = curve["tasks"][task]["points"][-1]
        scores = [row["test"][task]["rmse"]["value"] for name, row in run.result["plans"].items() if name == curve["plan"]]
        assert last["value"] == pytest.approx(scores[0], rel=0.02)
    assert bool(curve["sentence"]) == bool(curve["says"])
    assert curve["sentence"].replace("`", "") in run.summary(2000).replace("`", "")


def test_the_report_shows_both(run: FitRun) -> None:
    page = run.report.read_text(encoding="utf-8")
    assert "Which columns matter" in page
    assert "What more rows would bring" in page
    assert '"importance-1"' in page
    assert '"curve-1"' in page


def test_the_result_says_what_plans_are_that_left_early(run: FitRun) -> None:
    assert {row["plan"]: row["role"] for row in run.result["estimate"]} == {"alone": "reference", "fast": "joint"}
    result = json.loads(json.dumps(run.result))
    del result["plans"]["alone"]
    board = FitRun(run.folder, result).leaderboard().set_index("plan")
    assert board.loc["alone", "role"] == "reference"


def test_an_interrupted_inspection_goes_on_and_gives_the_same(
    run: FitRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.workflows.fit import finish

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finish, "handover", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_of(linear_suite(500), tmp_path / "run")
    again = run_of(linear_suite(500), tmp_path / "run", resume=True)
    for key in ("importance", "learning_curve"):
        assert again.result[key] == run.result[key]


def test_folds_answer_every_row(tmp_path: Path) -> None:
    from graftwork.data.folds import DRAWN

    suite = linear_suite(90)
    found = run_of(Suite(**{**vars(suite), "raw": {DRAWN: True}}), tmp_path / "run", folds=3).result
    assert found["importance"]["rows"] == 90
    assert found["learning_curve"] == {"reason": "54 training rows are too few for a learning curve; it takes 160"}


def test_a_short_limit_is_kept_and_said(tmp_path: Path) -> None:
    made = run_of(linear_suite(500), tmp_path / "run", steps=None, time_limit=6)
    for key in ("importance", "learning_curve"):
        assert made.result[key] == {"reason": "the time limit left no time for it"}
    assert made.importance().attrs["reason"] == "the time limit left no time for it"
    assert len(made.importance()) == 0
    assert "Which columns matter" not in made.report.read_text(encoding="utf-8")


def test_with_seconds_the_effort_follows_from_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftwork.workflows.fit.inspection._seconds", lambda context: 120.0)
    found = run_of(linear_suite(500), tmp_path / "run").result
    assert (found["importance"]["measured"], found["importance"]["repeats"]) == (4, 5)
    assert found["learning_curve"]["sizes"] == [38, 75, 150, 300]
    assert set(found["learning_curve"]["tasks"]) == {"first", "second"}


def test_jobs_that_cannot_end_in_time_cost_the_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftwork.workflows.fit.inspection._seconds", lambda context: 1e-9)
    made = run_of(linear_suite(500), tmp_path / "run")
    assert (made.folder / "model.onnx").exists()
    assert not [line for line in made.warnings if "looked into" in line]
    assert made.result["importance"] == {"reason": "the time limit left no time for it"}
    # What has begun stops by itself.
    from graftwork.workflows.runs.jobs.importance import ImportanceJob

    job = ImportanceJob(id="late", **_importance_fields(made), seconds=1e-9)
    answer = job.run(RunFolder(made.folder), JobControl())
    assert (answer["status"], answer["importance"]) == ("ok", {})
    assert answer["message"] == "the time did not suffice to shuffle every column"


def _importance_fields(made: FitRun) -> dict[str, Any]:
    """Return an importance job of a run whose checkpoints are there."""
    facts = RunFacts(cache=str(made.folder))
    trained = made.folder / "jobs" / made.result["model"]["trainings"][0]
    record = made.result["plans"][made.choice]["plan"]
    job = TrainJob(id=trained.name, plan=Plan.from_json(record), facts=facts, max_steps=1)
    return {"plan": job.plan, "facts": facts, "members": ({"job": job.to_json(), "weights": {"first": 1.0, "second": 1.0}},)}


def test_a_job_comes_back_from_json_and_others_are_refused(run: FitRun) -> None:
    from graftwork.workflows.runs.jobs.importance import ImportanceJob

    job = ImportanceJob(id="importance", **_importance_fields(run))
    assert read_job(job.to_json()) == job
    assert job.reads == ("jobs/importance", f"jobs/{run.result['model']['trainings'][0]}")
    with pytest.raises(FileFormatError, match="A member is an object with job and weights"):
        read_job({**job.to_json(), "members": [{"job": {}}]})


def test_samples_are_nested_and_keep_groups_whole() -> None:
    suite = linear_suite(400)
    grouped = Suite(**{**vars(suite), "groups": np.arange(400) // 8})
    for one in (suite, grouped):
        parts = [set(nested_sample(one, share, seed=3).splits["train"].tolist()) for share in (0.125, 0.25, 0.5, 1.0)]
        assert parts[0] < parts[1] < parts[2] < parts[3]
        assert parts[3] == set(one.splits["train"].tolist())
        assert len(parts[0]) == pytest.approx(0.125 * len(parts[3]), rel=0.25)
    part = nested_sample(grouped, 0.25, seed=3)
    kept = set(grouped.groups[part.splits["train"]].tolist())  # type: ignore[index]
    inside = [row for row in grouped.splits["train"].tolist() if row // 8 in kept]
    assert inside == part.splits["train"].tolist()
    np.testing.assert_array_equal(part.splits["test"], grouped.splits["test"])
