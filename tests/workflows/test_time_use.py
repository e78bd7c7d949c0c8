"""What a race does with its time: first models, estimates that a hiccup does not spoil, attempts with what is left. No torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.records import Plan
from graftwork.data.store import save_suite
from graftwork.data.suite import Suite
from graftwork.workflows.fit import FitRun, RunStopped, fit, replanning, session
from graftwork.workflows.fit.attempts import Attempts
from graftwork.workflows.fit.race import Race
from graftwork.workflows.fit.replanning import make_schedule
from graftwork.workflows.fit.session import FitSession
from graftwork.workflows.runs import growing_fits, horizons
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.execution import execute
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.jobs.estimate import EstimateJob
from graftwork.workflows.runs.presets import PRESETS
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import Schedule

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners", "short_trainings")


@pytest.fixture
def short_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Horizons of a few dozen steps, whatever the time allows."""
    for name, value in {"MOST_STEPS": 60, "MOST_EPOCHS": 4, "DECENT_STEPS": 40, "DECENT_EPOCHS": 2}.items():
        monkeypatch.setattr(horizons, name, value)


def estimate(folder: Path, **settings: Any) -> dict[str, Any]:
    run = RunFolder(folder)
    save_suite(linear_suite(), run.suite)
    plan = linear_plan("fake", "joint", **settings)
    job = EstimateJob(id="estimate", plan=plan, facts=RunFacts(cache=str(folder / "cache")))
    found = execute(job, folder, JobControl())
    assert found["status"] == "ok", found["message"]
    return dict(found["estimate"])


def test_one_slow_step_does_not_count(tmp_path: Path) -> None:
    found = estimate(tmp_path, delay=0.002, hiccup=0.6)
    assert 0.002 <= found["seconds_per_step"] < 0.1


def test_what_is_fitted_in_one_go_has_no_step_to_pay(tmp_path: Path) -> None:
    found = estimate(tmp_path, delay=0.05, one_shot=True)
    assert found["seconds_per_step"] == 0.0
    assert found["setup_seconds"] >= 0.05


def test_features_of_an_earlier_run_do_not_make_a_plan_seem_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, build = [], EstimateJob.learner

    def learner(job: EstimateJob, suite: Suite) -> Any:
        used.append(Path(job.facts.cache))
        assert used[-1].is_dir()
        return build(job, suite)

    monkeypatch.setattr(EstimateJob, "learner", learner)
    estimate(tmp_path)
    assert used
    assert not [folder for folder in used if folder == tmp_path / "cache" or folder.exists()]


@pytest.mark.parametrize(("seconds", "is_part"), [(0.01, True), (60.0, False)])
def test_a_long_fit_in_one_go_is_measured_on_a_part_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, is_part: bool
) -> None:
    used, build = [], EstimateJob.learner

    def learner(job: EstimateJob, suite: Suite) -> Any:
        used.append(len(suite.splits["train"]))
        return build(job, suite)

    monkeypatch.setattr(EstimateJob, "learner", learner)
    monkeypatch.setattr(growing_fits, "FIRST_ROWS", 20)
    suite = linear_suite()
    save_suite(suite, RunFolder(tmp_path).suite)
    plan = linear_plan("fake", "joint", delay=0.05, one_shot=True)
    job = EstimateJob(id="e", plan=plan, facts=RunFacts(cache=str(tmp_path / "cache")), max_steps=1, seconds=seconds)
    found = execute(job, tmp_path, JobControl())
    rows = len(suite.splits["train"])
    assert (rows not in used) is is_part
    # A part of 20 rows takes longer than it may here, so it is the only one: counted up to all rows.
    assert (found["estimate"]["setup_seconds"] >= 0.05 * rows / 21) is is_part


def race(out: Path, *plans: Plan, **settings: Any) -> FitRun:
    fields = {"time_limit": 8, "seeds": 2, "workers": 0, "backbone": "none", **settings}
    return fit(linear_suite(), plans=["none", *plans], out=out, **fields)


@pytest.fixture
def two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few attempts that a slow machine makes them, too."""
    monkeypatch.setitem(PRESETS, "good", dataclasses.replace(PRESETS["good"], tries=2))


def improving(delay: float = 0.0) -> list[Plan]:
    return [
        linear_plan("alone", "reference", rate=0.002, improving=True, delay=delay),
        linear_plan("fast", "joint", rate=0.003, improving=True, delay=delay),
    ]


@pytest.mark.usefixtures("two_tries")
def test_time_that_is_left_makes_trainings_longer_while_plans_improve(tmp_path: Path) -> None:
    run = race(tmp_path / "run", *improving(), time_limit=200)
    attempts = run.result["attempts"]
    assert attempts
    assert {item["plan"] for item in attempts} == {"alone", "fast"}, "those that are compared are tried together"
    taken = [item for item in attempts if item["taken"]]
    assert taken
    assert all(item["change"] > 0 for item in taken)
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    longest = max(
        max(value["horizons"].values()) for key, value in state["decisions"].items() if key.startswith("attempt") and value
    )
    assert longest > max(state["schedule"]["horizons"].values())
    assert run.result["plans"]["fast"]["still_improving"] is True


def test_what_was_tried_in_vain_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "good", dataclasses.replace(PRESETS["good"], tries=4))
    monkeypatch.setattr(Attempts, "_gain", lambda *_: 0.0)
    run = race(tmp_path / "run", *improving(), time_limit=200)
    tried = [item["what"] for item in run.result["attempts"] if item["plan"] == "alone"]
    assert len(tried) > 1
    assert len(set(tried)) == len(tried)


def test_a_race_whose_plans_have_converged_ends_early(tmp_path: Path) -> None:
    run = race(tmp_path / "run", linear_plan("alone", "reference"), linear_plan("fast", "joint", rate=0.3), time_limit=300)
    assert run.result["attempts"] == []
    assert run.result["plans"]["fast"]["still_improving"] is False
    assert run.result["not_tested"] == []


def test_settings_of_a_plan_file_are_tried_and_the_better_ones_taken(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[plans]]\nname = "mine"\ntitle = "Mine"\nrole = "independent"\nmodalities = ["table"]\n'
        'learner = { path = "fake_learners:LinearLearner", settings = { rate = 0.0001 } }\ntraining = { max_steps = 30 }\n'
        "variants = [{ learner = { rate = 0.00001 } }, { learner = { rate = 0.3 } }]\n"
    )
    run = fit(
        linear_suite(),
        plans=[str(file), "mine", linear_plan("alone", "reference", rate=0.0001)],
        out=tmp_path / "run",
        time_limit=200,
        seeds=2,
        workers=0,
        backbone="none",
    )
    assert [(item["what"], item["taken"]) for item in run.result["attempts"]] == [
        ("mine: rate 1e-05", False),
        ("mine: rate 0.3", True),
    ]
    assert run.result["plans"]["mine"]["plan"]["stages"][0]["learner"]["settings"]["rate"] == 0.3
    assert run.choice in ("mine", "ensemble", "mixed")


def test_variants_that_are_no_settings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[plans]]\nname = "mine"\ntitle = "Mine"\nrole = "joint"\nmodalities = ["table"]\nvariants = [{ rate = 3 }]\n'
    )
    with pytest.raises(ConfigError, match=r"`variants` must be a list of tables with `training` or `learner`"):
        fit(linear_suite(), plans=[str(file)], out=tmp_path / "run", steps=8, workers=0, backbone="none")


@pytest.mark.usefixtures("two_tries")
def test_a_stopped_race_goes_on_with_what_was_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[FitSession] = []
    original = FitSession.go

    def go(session: FitSession, **settings: Any) -> Any:
        sessions.append(session)
        return original(session, **settings)

    monkeypatch.setattr(FitSession, "go", go)

    def press(event: dict[str, Any]) -> None:
        if event["event"] == "job-end" and event["job"] == "attempt1-alone-s1":
            sessions[-1].stop.press()

    with pytest.raises(RunStopped):
        race(tmp_path / "run", *improving(), time_limit=200, on_event=press)
    before = json.loads((tmp_path / "run" / "run.json").read_text())["decisions"]
    assert {"after rung 1", "after rung 2", "attempt 1"} <= set(before)
    run = fit(out=tmp_path / "run", resume=True)
    after = json.loads((tmp_path / "run" / "run.json").read_text())["decisions"]
    assert {key: after[key] for key in before} == before
    assert run.result["attempts"][0]["number"] == 1


@pytest.mark.usefixtures("two_tries")
def test_what_was_done_in_time_counts_however_late_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill after the end of the time, in the verdict or the export: all trainings are there, and the clock says that it is late."""

    def short(*args: Any) -> Schedule:
        return dataclasses.replace(make_schedule(*args), seeds=(0,), control_seeds=1)

    for module in (session, replanning):
        monkeypatch.setattr(module, "make_schedule", short)
    first = race(tmp_path / "run", *improving(), time_limit=200).result
    assert len(first["plans"]["fast"]["per_seed"]) == 2, "there was time for the seed that had been given up"
    assert any(item["taken"] for item in first["attempts"])
    assert first["model"]["rows"] == "all"
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "clock.json").write_text('{"seconds": 230.0}')
    again = fit(out=tmp_path / "run", resume=True).result
    for name in ("attempts", "plans", "race", "controls", "model", "verdict", "not_tested"):
        assert again[name] == first[name], name
    # More time is no reason to race on: models on all rows are there, with the settings of this race.
    monkeypatch.setitem(PRESETS, "good", dataclasses.replace(PRESETS["good"], tries=5))
    (tmp_path / "run" / "result.json").unlink()
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": "scheduled"}))
    longer = fit(out=tmp_path / "run", resume=True, time_limit=2000).result
    for name in ("attempts", "plans", "model"):
        assert longer[name] == first[name], name


def quick(delay: float = 0.0) -> Plan:
    plan = linear_plan("quick", "independent", rate=0.2, delay=delay)
    return Plan.from_json({**plan.to_json(), "quick": True})


def test_a_race_that_finishes_nothing_hands_over_the_first_model(tmp_path: Path) -> None:
    # One step of every other plan takes longer than the whole race.
    slow = [linear_plan("alone", "reference", delay=30.0), linear_plan("fast", "joint", delay=30.0)]
    run = race(tmp_path / "run", *slow, quick(delay=0.001), time_limit=6, workers=2, checkpoint_seconds=0.1)
    assert run.choice == "quick"
    assert (tmp_path / "run" / "model.onnx").exists()
    what = {item["what"] for item in run.result["not_tested"]}
    assert "sharing" in what
    assert run.result["timing"]["seconds"] < 200
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "first model"
    assert any(f"graftwork fit --resume {tmp_path / 'run'} --time-limit" in warning for warning in run.warnings)
    assert run.sentences[0] == "Only `quick` was judged on test rows, so there is nothing to compare it with."
    assert run.result["timing"]["converged"] is False, "it was cut, and did not stop by itself"
    said = " ".join(run.warnings)
    assert "the best of the quick ones that were made before it, by their validation scores: `quick`" in said
    assert "The verdict rests on what was finished" not in said, "nothing of the race was"
    left = {item["name"]: item["reason"] for item in run.result["not_tested"] if item["what"] == "plan"}
    assert {"alone", "fast"} <= set(left)
    assert not any("planned" in item for item in run.result["not_tested"]), "the schedule gave nothing that was done"


def test_a_run_that_ended_with_its_first_model_goes_on_with_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [linear_plan("alone", "reference"), quick()]
    with monkeypatch.context() as patch:
        # As if the time had been up when the race began.
        patch.setattr(Race, "_rung", lambda *_: {})
        first = race(tmp_path / "run", *plans, time_limit=100)
    assert list(first.result["plans"]) == ["quick"]
    before = (tmp_path / "run" / "model" / "state.json").read_text()
    run = fit(out=tmp_path / "run", resume=True, time_limit=400)
    assert {"alone", "quick"} <= set(run.result["plans"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "done"
    assert run.choice != "quick" or (tmp_path / "run" / "model" / "state.json").read_text() != before


def test_what_a_race_without_time_left_behind_is_not_taken_for_one_with_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(race: Race, rung: int, jobs: dict[str, Any]) -> dict[str, Any]:
        # The end of the time came while the learners were built: what they did, no step, is written down.
        found = {name: execute(job, race.context.run.path, JobControl(stop="finish")) for name, job in jobs.items()}
        assert {result["steps"] for result in found.values()} == {0}
        return found

    plans = [linear_plan("alone", "reference"), linear_plan("fast", "joint", rate=0.3), quick()]
    with monkeypatch.context() as patch:
        patch.setattr(Race, "_rung", cut)
        first = race(tmp_path / "run", *plans, time_limit=100)
    assert list(first.result["plans"]) == ["quick"]
    made = json.loads((tmp_path / "run" / "jobs" / "first-quick" / "result.json").read_text())
    run = fit(out=tmp_path / "run", resume=True, time_limit=400)
    assert set(run.result["plans"]) >= {"alone", "fast", "quick"}
    assert all(row["steps"] > 0 for row in run.result["race"])
    assert json.loads((tmp_path / "run" / "jobs" / "first-quick" / "result.json").read_text()) == made


def test_a_quick_look_has_few_plans_and_one_model(tmp_path: Path) -> None:
    more = linear_plan("other", "joint", rate=0.2)
    plans = [linear_plan("alone", "reference"), linear_plan("fast", "joint", rate=0.3), more, quick()]
    run = race(tmp_path / "run", *plans, time_limit=200, seeds=None, preset="quick")
    assert run.result["settings"]["preset"] == "quick"
    assert run.result["settings"]["single"] is True
    assert run.result["settings"]["seeds"] == PRESETS["quick"].seeds
    assert run.result["attempts"] == []
    assert run.result["model"]["models"] == 1
    with pytest.raises(ConfigError, match=r"no preset .quik.. Did you mean .quick."):
        race(tmp_path / "other", *plans, preset="quik")
