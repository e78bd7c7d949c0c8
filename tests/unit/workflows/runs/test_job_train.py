from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.files import hash_file
from graftwork.core.records import Component, Plan
from graftwork.core.stages.train import TrainStage
from graftwork.data.store import load_suite, save_suite
from graftwork.data.suites.generated import conflicting_tasks
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.execution import execute
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.job_data import read_predictions, write_predictions
from graftwork.workflows.runs.jobs.export import ExportJob
from graftwork.workflows.runs.jobs.train import TrainJob, train_in_slices
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import Schedule


class StoppedLearner:
    """All steps are made, but the stop came before the validation that belongs to the last one."""

    step = 10

    def __init__(self) -> None:
        self.asked: list[int] = []

    def train(self, until: int, *, on_progress: Any = None) -> None:
        self.asked.append(until)


def test_a_learner_with_no_step_left_still_gets_its_pending_validation(tmp_path: Path) -> None:
    learner = StoppedLearner()
    assert train_in_slices(learner, 10, tmp_path, JobControl()) is False  # type: ignore[arg-type]
    assert learner.asked == [10]


def test_a_stop_that_came_first_is_no_end(tmp_path: Path) -> None:
    learner = StoppedLearner()
    assert train_in_slices(learner, 10, tmp_path, JobControl(stop="keep")) is True  # type: ignore[arg-type]
    assert learner.asked == []


class EndlessLearner(StoppedLearner):
    """Goes on for ever, and counts its steps."""

    step = 0

    def train(self, until: int, *, on_progress: Any = None) -> None:
        while self.step < until:
            self.step += 1
            time.sleep(0.002)
            on_progress(self.step)


def test_a_first_model_gets_its_seconds_even_if_the_time_is_up(tmp_path: Path) -> None:
    learner = EndlessLearner()
    assert train_in_slices(learner, 10**6, tmp_path, JobControl(stop="finish"), seconds=0.05) is True  # type: ignore[arg-type]
    assert 1 <= learner.step < 10**6


def plan(name: str, sharing: str) -> Plan:
    return Plan(name=name, title=name, role="joint", modalities=("table",), stages=(TrainStage(sharing=Component(sharing)),))


PLANS = [
    plan("shared", "graftwork.methods.sharing.shared_trunk:SharedTrunk"),
    plan("separate", "graftwork.methods.sharing.separate:Separate"),
    Plan(
        name="trees",
        title="trees",
        role="independent",
        modalities=("table",),
        stages=(TrainStage(learner=Component("graftwork.domains.tabular.lightgbm:LightGBMLearner")),),
    ),
]


def run_final(folder: Path, plan: Plan, *, checkpoint_seconds: float, steps: int = 12) -> dict[str, Any]:
    """Train, judge and export a plan; return the judgement, the stored predictions and the hash of every deployed file."""
    run = RunFolder(folder)
    save_suite(conflicting_tasks(rows=150, seed=3), run.suite)
    facts = RunFacts(cache=str(folder / "cache"), checkpoint_seconds=checkpoint_seconds)
    common: dict[str, Any] = {"plan": plan, "facts": facts, "seed": 1, "max_steps": steps}
    result = execute(TrainJob(id="final", until=steps, predict=("val", "test"), **common), folder)
    assert result["status"] == "ok", result["message"]
    done = execute(ExportJob(id="export", source="final", folder="model", **common), folder)
    assert done["status"] == "ok", done["message"]
    deployed = {
        file.name: hash_file(file)
        for file in sorted((folder / "model").iterdir())
        if file.suffix in (".safetensors", ".onnx", ".txt")
    }
    suite = load_suite(run.suite)
    predictions = read_predictions(folder / "jobs" / "final" / "predictions.safetensors", suite)
    return {"validation": result["validation"], "predictions": predictions, "deployed": deployed}


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_checkpoints_after_every_step_change_no_bit_of_what_is_judged_and_deployed(plan: Plan, tmp_path: Path) -> None:
    undisturbed = run_final(tmp_path / "a", plan, checkpoint_seconds=1e9)
    disturbed = run_final(tmp_path / "b", plan, checkpoint_seconds=0.0)
    assert disturbed["validation"] == undisturbed["validation"]
    assert disturbed["deployed"] == undisturbed["deployed"]
    assert disturbed["deployed"]
    for split, by_task in undisturbed["predictions"].items():
        for task, values in by_task.items():
            np.testing.assert_array_equal(disturbed["predictions"][split][task], values)


def test_a_checkpoint_that_is_not_the_judged_model_is_not_exported(tmp_path: Path) -> None:
    run_final(tmp_path, PLANS[0], checkpoint_seconds=1e9)
    file = tmp_path / "jobs" / "final" / "predictions.safetensors"
    suite = load_suite(tmp_path / "suite")
    other = {
        split: {task: values + 0.5 for task, values in tasks.items()} for split, tasks in read_predictions(file, suite).items()
    }
    write_predictions(file, other, suite)
    facts = RunFacts(cache=str(tmp_path / "cache"))
    job = ExportJob(id="again", plan=PLANS[0], facts=facts, seed=1, max_steps=12, source="final", folder="other")
    refused = execute(job, tmp_path)
    assert refused["status"] == "failed"
    assert "differently from what was judged" in refused["message"]
    assert not (tmp_path / "other").exists()


def test_the_last_checkpoint_holds_the_validation_that_came_after_a_timed_one(tmp_path: Path) -> None:
    run_final(tmp_path, PLANS[0], checkpoint_seconds=0.0)
    pointer = json.loads((tmp_path / "jobs" / "final" / "checkpoint.json").read_text())
    folder = tmp_path / "jobs" / "final" / pointer["folder"]
    state = json.loads((folder / "checkpoint.json").read_text())["state"]
    assert state["validated"] == state["trainer"]["step"] == 12
    assert [item.name for item in folder.parent.glob("checkpoint-*")] == [pointer["folder"]], "older ones are removed"


AT_ONCE = Plan(
    name="linear",
    title="linear",
    role="independent",
    modalities=("table",),
    stages=(TrainStage(learner=Component("graftwork.domains.tabular.linear:LinearLearner"), training={"max_steps": 1}),),
    quick=True,
)


def test_a_rung_goes_on_from_a_first_model_that_was_fitted_in_one_go_on_its_rows(tmp_path: Path) -> None:
    suite = conflicting_tasks(rows=1000, seed=1)
    schedule = Schedule(horizons={"linear": 1}, seeds=(0,), control_seeds=0)
    results = {}
    for name, rows in (("same", 5000), ("fewer", 300), ("none", 0)):
        maker = JobMaker(facts=RunFacts(cache=str(tmp_path / "cache")), plans={"linear": AT_ONCE}, schedule=schedule)
        run = RunFolder(tmp_path / name)
        save_suite(suite, run.suite)
        if rows:
            first = execute(maker.fallback(AT_ONCE, steps=60, rows=rows, seconds=0.001), run.path, JobControl())
            assert (first["status"], first["steps"], first["cut"]) == ("ok", 1, False), "whole, although its seconds were over"
        results[name] = execute(maker.rung("linear", 0), run.path, JobControl())
    assert [results[name]["began"] for name in ("same", "fewer", "none")] == [1, 0, 0]
    assert results["same"]["validation"] == results["fewer"]["validation"] == results["none"]["validation"]
