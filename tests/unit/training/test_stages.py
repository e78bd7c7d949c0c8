"""Any kind of stage can be carried out: one module says what it is, one how it is done, and no other file changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core import stages as records
from graftwork.core.errors import ConfigError
from graftwork.core.records import Component, Plan
from graftwork.core.stages.merge import MergeStage
from graftwork.core.stages.train import TrainStage
from graftwork.data.store import save_suite
from graftwork.data.suites.generated import conflicting_tasks
from graftwork.interfaces.learner import LearnerContext
from graftwork.training import stages as runners
from graftwork.training.stages import learner_of
from graftwork.workflows.plan_check import plan_problems
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.execution import execute
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.jobs import read_job
from graftwork.workflows.runs.jobs.export import ExportJob
from graftwork.workflows.runs.jobs.train import TrainJob

RECORD = """
from dataclasses import dataclass
from typing import ClassVar
from graftwork.core.stage import Stage

@dataclass(frozen=True, kw_only=True, slots=True)
class ShiftStage(Stage):
    kind: ClassVar[str] = "shift"
    share: float = 0.25
    amount: float = 1.0

STAGE = ShiftStage
"""
RUNNER = '''
import json
from dataclasses import replace
from graftwork.core.files import read_json, write_json
from graftwork.core.records import Ledger
from graftwork.training.staged import StagedLearner, sum_of_costs

class ShiftLearner(StagedLearner):
    """Adds an amount to all predictions, in as many equal parts as it has steps."""

    def __init__(self, stage, context, earlier):
        self.own_steps = round(stage.share * context.max_steps)
        super().__init__(context, earlier, self.own_steps)
        self.amount = stage.amount

    def train_own(self, until, on_progress):
        while self.own_step < until:
            self.own_step += 1
            if on_progress is not None:
                on_progress(self.own_step)

    def predict(self, rows, tasks=None, *, inputs=None):
        added = self.amount * self.own_step / self.own_steps
        return {name: values + added for name, values in self.before.predict(rows, tasks, inputs=inputs).items()}

    def save_own(self, folder):
        write_json(folder / "state.json", {"step": self.own_step})

    def load_own(self, folder):
        self.own_step = read_json(folder / "state.json")["step"]

    def ledger(self):
        return sum_of_costs(self.before.ledger(), Ledger(steps=self.own_step, wall_seconds=1.0))

    def export(self, folder):
        self.before.export(folder)

def build(stage, context, earlier):
    return ShiftLearner(stage, context, earlier)
'''
SUITE = conflicting_tasks(rows=150, seed=3)
TRAIN = {"kind": "train", "training": {"batch_size": 32}}
PLAN = {"name": "shifted", "title": "", "role": "joint", "modalities": ["table"], "stages": [TRAIN, {"kind": "shift"}]}


@pytest.fixture
def shift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of stage in two throw-away modules."""
    for package, text in ((records, RECORD), (runners, RUNNER)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "shift.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(__import__("sys").modules, f"{package.__name__}.shift", raising=False)


def context_of(plan: Plan, folder: Path, steps: int = 16) -> LearnerContext:
    return LearnerContext(suite=SUITE, plan=plan, seed=1, max_steps=steps, cache=folder)


@pytest.mark.usefixtures("shift")
def test_a_new_kind_is_two_modules_and_nothing_else(tmp_path: Path) -> None:
    plan = Plan.from_json(PLAN)
    assert plan_problems(plan) == []
    assert "unknown key 'amuont'" in Plan.read({**PLAN, "stages": [TRAIN, {"kind": "shift", "amuont": 2}]})[1][0]
    assert "amount: must be a finite number" in Plan.read({**PLAN, "stages": [TRAIN, {"kind": "shift", "amount": "2"}]})[1][0]
    learner, seen = learner_of(context_of(plan, tmp_path)), list[int]()
    plain = learner_of(context_of(Plan.from_json({**PLAN, "stages": [TRAIN]}), tmp_path, steps=12))
    learner.train(12, on_progress=seen.append)
    plain.train(12)
    rows = SUITE.splits["test"]
    name = SUITE.task_names[0]
    np.testing.assert_array_equal(learner.predict(rows)[name], plain.predict(rows)[name])
    learner.train(16, on_progress=seen.append)
    np.testing.assert_array_equal(learner.predict(rows)[name], plain.predict(rows)[name] + 1.0)
    assert (seen[-1], learner.step, learner.ledger().steps) == (16, 16, 16)
    assert seen == sorted(seen)
    assert learner.ledger().wall_seconds > 1.0


@pytest.mark.usefixtures("shift")
@pytest.mark.parametrize("stages", [["shift"], ["merge"], ["merge", "shift"]])
def test_jobs_of_several_stages_stop_and_go_on_anywhere(stages: list[str], tmp_path: Path) -> None:
    """A stop after every few reports, and the job is run again until it ends; nothing changes, the exported model included."""
    found = []
    for folder in (tmp_path / "whole", tmp_path / "stopped"):
        save_suite(SUITE, folder / "suite")
        facts = RunFacts(cache=str(tmp_path / "cache"), checkpoint_seconds=0.0 if "stopped" in folder.name else 1e9)
        plan = Plan.from_json({**PLAN, "stages": [TRAIN, *({"kind": kind} for kind in stages)]})
        common: dict[str, Any] = {"plan": plan, "facts": facts, "max_steps": 16}
        job = TrainJob(id="final", until=16, predict=("test",), **common)
        assert read_job(json.loads(json.dumps(job.to_json()))) == job
        runs, result = 0, {"status": "stopped"}
        while result["status"] == "stopped":
            control = JobControl()
            control.report = lambda message, control=control: _stop_at(control, message["step"], 4 * runs + 3)  # noqa: B023
            result = execute(job, folder, control if "stopped" in folder.name else None)
            runs += 1
        assert result["status"] == "ok", result["message"]
        assert (result["steps"], result["ledger"]["steps"]) == (16, 16)
        exported = execute(ExportJob(id="export", source="final", folder="model", **common), folder)
        assert exported["status"] == "ok", exported["message"]
        files = ("jobs/final/predictions.safetensors", "model/model.safetensors", "model/model.onnx")
        found.append([result["validation"], *((folder / name).read_bytes() for name in files)])
    assert runs > 2
    assert found[0] == found[1]


def _stop_at(control: JobControl, step: int, limit: int) -> None:
    if step >= limit:
        control.stop = "keep"


def test_where_a_stage_may_stand_is_checked_before_anything_runs(tmp_path: Path) -> None:
    first = Plan(name="x", title="", role="joint", modalities=("table",), stages=(MergeStage(),))
    twice = Plan(name="x", title="", role="joint", modalities=("table",), stages=(TrainStage(), TrainStage()))
    assert any("a stage of kind 'merge' works on what other stages made" in problem for problem in plan_problems(first))
    assert any("stage 2: a stage of kind 'train' must be the first" in problem for problem in plan_problems(twice))
    for plan in (first, twice):
        with pytest.raises(ConfigError, match="a stage of kind '(merge|train)'"):
            learner_of(context_of(plan, tmp_path))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"merger": "graftwork.methods.merging.tise:TiesMerger"}, "Did you mean 'graftwork.methods.merging.ties'"),
        (
            {"merger": {"path": "graftwork.methods.merging.ties:TiesMerger", "settings": {"desnity": 0.2}}},
            "Did you mean 'density'",
        ),
        (
            {"merger": {"path": "graftwork.methods.merging.ties:TiesMerger", "settings": {"density": 2.0}}},
            "`density` must be above 0",
        ),
        ({"merger": "graftwork.methods.sharing.separate:Separate"}, "no component of the seam Merger"),
        ({"groups": [["a"], "b"]}, "groups: must be a list"),
        ({"groups": 3}, "groups: must be a list"),
        ({"merger": "x:Y", "model_merger": "x:Z"}, "merger: leave it out where there is a model_merger"),
    ],
)
def test_what_is_wrong_in_a_merge_stage_is_said_before_anything_runs(stage: dict[str, Any], message: str) -> None:
    plan, problems = Plan.read({**PLAN, "stages": [TRAIN, {"kind": "merge", **stage}]})
    found = problems or plan_problems(plan)
    assert any(message in problem for problem in found), found


def test_a_merge_stage_comes_back_from_json_as_it_was() -> None:
    ties = Component("graftwork.methods.merging.ties:TiesMerger", {"density": 0.3})
    plan = Plan(
        name="x",
        title="",
        role="joint",
        modalities=("table",),
        stages=(TrainStage(), MergeStage(merger=ties, groups=(("a", "b"), ("c",)))),
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_kind_that_nothing_carries_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MergeStage, "kind", "no_module")
    plan = Plan(name="x", title="", role="joint", modalities=("table",), stages=(TrainStage(), MergeStage()))
    with pytest.raises(ConfigError, match=r"Stages of kind 'no_module' cannot be carried out: there is no module"):
        learner_of(context_of(plan, tmp_path))
