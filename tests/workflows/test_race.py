"""The race itself, with small real learners: halving, failures, stops, limits, resumes. No torch."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.errors import ConfigError, GraftworkError, StorageError
from graftwork.core.records import Plan
from graftwork.workflows.fit import FitRun, RunStopped, fit, load_run
from graftwork.workflows.fit.session import FitSession

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")


def plans(*more: Plan) -> list[str | Plan]:
    return ["none", linear_plan("alone", "reference"), linear_plan("fast", "joint", rate=0.3), *more]


def race(out: Path, *more: Plan, **settings: Any) -> FitRun:
    # An average of learners that export nothing could not be handed over.
    fields = {"steps": 16, "seeds": 2, "workers": 0, "backbone": "none", "single": True, **settings}
    return fit(linear_suite(), plans=plans(*more), out=out, **fields)


def rows(run: FitRun, rung: int) -> dict[str, dict[str, Any]]:
    return {row["plan"]: row for row in run.result["race"] if row["rung"] == rung and row["seed"] == 0}


def numbers(run: FitRun) -> Any:
    """Everything but dates and times."""
    kept = ("verdict", "comparisons", "controls", "plans", "race")
    text = json.dumps({key: run.result[key] for key in kept})
    value = json.loads(text)
    for row in value["race"]:
        row.pop("seconds")
    for entry in value["plans"].values():
        entry.pop("ledger")
    return value


def test_a_run_from_data_to_result(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    run = race(
        tmp_path / "run",
        linear_plan("slow", "joint", rate=0.01),
        linear_plan("slower", "joint", rate=0.001),
        on_event=events.append,
    )
    assert run.choice == "fast"
    assert (tmp_path / "run" / "report.html").exists()
    assert load_run(tmp_path / "run").result == run.result
    assert run.result["format"] == "graftwork-fit-1"
    assert rows(run, 0)["fast"]["score"] > rows(run, 0)["alone"]["score"] == 0
    assert "slower" not in rows(run, 1)
    assert {row["seed"] for row in run.result["race"] if row["rung"] == 2} == {0, 1}
    assert {entry["task"] for entry in run.result["controls"]} == {"first", "second"}
    assert len(run.result["examples"]) == 24
    assert run.result["diagnostics"]["first"]["values"][0]["rows"] == 24
    assert run.result["examples"][0]["truth"]["first"]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "suite"
    assert kinds[-1] == "done"
    assert {"estimate", "schedule", "rung", "job-start", "job-end"} <= set(kinds)
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) >= len([kind for kind in kinds if kind != "progress"])


@pytest.mark.parametrize("fail", ["nan", "crash"])
def test_a_plan_that_fails_leaves_and_the_race_goes_on(tmp_path: Path, fail: str) -> None:
    run = race(tmp_path / "run", linear_plan("bad", "joint", rate=0.2, fail=fail, fail_at=20), steps=64)
    assert run.choice in ("fast", "alone", "ensemble", "mixed")
    assert not {"bad", "deadly"} & set(run.result["plans"])
    last = rows(run, 1)["bad"]
    assert last["status"] == ("diverged" if fail == "nan" else "failed")
    assert ("NaN" if fail == "nan" else "RuntimeError: boom") in last["message"]
    if fail == "crash":
        assert "boom" in (tmp_path / "run" / "jobs" / "rung2-bad" / "error.txt").read_text()


def test_a_plan_that_cannot_even_be_tried_is_left_out_with_the_reason(tmp_path: Path) -> None:
    run = race(tmp_path / "run", linear_plan("bad", "joint", fail="nan", fail_at=2))
    assert rows(run, 0)["bad"]["status"] == "excluded"
    assert "NaN" in rows(run, 0)["bad"]["message"]


def test_the_reference_must_be_trainable(tmp_path: Path) -> None:
    broken = ["none", linear_plan("alone", "reference", fail="crash", fail_at=1)]
    with pytest.raises(
        GraftworkError, match=r"'alone', the reference of every comparison, cannot be trained: RuntimeError: boom"
    ):
        fit(linear_suite(), plans=broken, out=tmp_path / "run", steps=8, workers=0, backbone="none")


def test_worker_processes_give_the_same_numbers_as_one_process(tmp_path: Path) -> None:
    inline, pooled = race(tmp_path / "a"), race(tmp_path / "b", workers=2)
    assert numbers(inline) == numbers(pooled)


def test_a_worker_that_dies_costs_only_its_plan(tmp_path: Path) -> None:
    run = race(tmp_path / "run", linear_plan("deadly", "joint", rate=0.2, fail="die", fail_at=20), workers=2, steps=64)
    last = rows(run, 1)["deadly"]
    assert last["status"] == "failed"
    assert "Its process ended with exit code 9, 2 times" in last["message"]
    assert run.choice in ("fast", "alone", "ensemble", "mixed")
    assert not {"bad", "deadly"} & set(run.result["plans"])


def test_a_plan_from_a_toml_file_races_without_touching_code(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[plans]]\nname = "mine"\ntitle = "Mine"\nrole = "joint"\nmodalities = ["table"]\n'
        'learner = { path = "fake_learners:LinearLearner", settings = { rate = 0.4 } }\n'
    )
    run = fit(
        linear_suite(),
        plans=[str(file), "mine", linear_plan("alone", "reference")],
        out=tmp_path / "run",
        steps=16,
        seeds=2,
        workers=0,
        backbone="none",
        single=True,
    )
    assert run.choice == "mine"


def test_limits_leave_plans_out_before_the_race(tmp_path: Path) -> None:
    run = race(tmp_path / "run", max_params=5)
    assert rows(run, 0)["fast"]["message"] == "10 parameters, more than --max-params 5"
    assert list(run.result["plans"]) == ["alone"]
    assert any("limit" in warning for warning in run.warnings)


def test_a_dry_run_estimates_and_stops(tmp_path: Path) -> None:
    run = race(tmp_path / "run", dry_run=True)
    assert run.result == {}
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["schedule"]["horizons"] == {"alone": 16, "fast": 16}
    assert not (tmp_path / "run" / "jobs" / "rung1-fast").exists()
    done = fit(out=tmp_path / "run", resume=True)
    assert numbers(done) == numbers(race(tmp_path / "other"))


class PressAfter:
    """Presses Ctrl-C when the n-th job ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left, self.session = number, None
        original = FitSession.go

        def go(session: FitSession, **settings: Any) -> Any:
            self.session = session
            return original(session, **settings)

        monkeypatch.setattr(FitSession, "go", go)

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "job-end":
            self.left -= 1
            if self.left == 0 and self.session is not None:
                self.session.stop.press()


@pytest.mark.parametrize("number", [1, 3, 5, 8])
def test_stopping_anywhere_and_resuming_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        with pytest.raises(RunStopped, match=r"everything finished is kept. Go on with: graftwork fit --resume"):
            race(tmp_path / "run", on_event=PressAfter(patch, number))
    finished = sorted((tmp_path / "run" / "jobs").glob("*/result.json"))
    before = {file: file.read_bytes() for file in finished}
    assert len(before) >= number - 1
    resumed = fit(out=tmp_path / "run", resume=True)
    assert {file: file.read_bytes() for file in finished} == before
    assert numbers(resumed) == numbers(race(tmp_path / "other"))


def test_a_half_trained_job_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = linear_plan("slow-but-good", "joint", rate=0.31, delay=0.05)
    stops: list[FitSession] = []
    original = FitSession.go

    def go(session: FitSession, **settings: Any) -> Any:
        stops.append(session)
        return original(session, **settings)

    monkeypatch.setattr(FitSession, "go", go)

    def press(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["job"] == "final-slow-but-good-s0" and event["step"] >= 10:
            stops[-1].stop.press()

    with pytest.raises(RunStopped):
        race(tmp_path / "run", slow, on_event=press)
    pointer = json.loads((tmp_path / "run" / "jobs" / "final-slow-but-good-s0" / "checkpoint.json").read_text())
    assert 10 <= pointer["step"] < 16
    assert numbers(fit(out=tmp_path / "run", resume=True)) == numbers(race(tmp_path / "other", slow))


def test_the_deadline_cuts_what_is_left_and_still_gives_a_verdict(tmp_path: Path) -> None:
    # 400 steps of 50 ms are twice the limit, on the fastest machine too.
    crawling = ["none", linear_plan("alone", "reference", delay=0.05), linear_plan("fast", "joint", rate=0.3, delay=0.05)]
    run = fit(linear_suite(), plans=crawling, out=tmp_path / "run", steps=400, time_limit=10, workers=2, seeds=3, backbone="none")
    assert "alone" in run.result["plans"]
    assert any("The time limit came before the end" in warning for warning in run.warnings)
    # Two workers cannot sleep longer than the limit each; with what is made after it, half as much again. Without it: 120 s.
    made = [json.loads(path.read_text())["steps"] for path in (tmp_path / "run").glob("jobs/final-*/result.json")]
    assert 0 < 0.05 * sum(made) < 2 * 15
    steps = [row["steps"] for row in run.result["race"] if row["rung"] == 2]
    assert min(steps) < 400


def test_no_time_at_all_is_said_and_more_time_mends_it(tmp_path: Path) -> None:
    with pytest.raises(
        GraftworkError, match=r"time limit of 0.0 s was used up before any plan was trained. Give more: .*--time-limit"
    ):
        race(tmp_path / "run", steps=None, time_limit=0.001)
    run = fit(out=tmp_path / "run", resume=True, time_limit="20s")
    assert set(run.result["plans"]) == {"alone", "fast"}
    assert run.result["timing"]["seconds"] < 40


@pytest.mark.parametrize("where", ["rung2-fast", "final-alone-s0", "result.json"])
def test_a_full_disk_is_said_and_resume_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if where in str(target) and (where != "result.json" or Path(target).parent == tmp_path / "run"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=r"The disk is full while writing .*--resume"):
            race(tmp_path / "run")
    for file in (tmp_path / "run").rglob("*.json"):
        json.loads(file.read_text())
    assert (tmp_path / "run" / "jobs" / "rung1-fast" / "result.json").exists()
    assert numbers(fit(out=tmp_path / "run", resume=True)) == numbers(race(tmp_path / "other"))


def test_an_existing_run_is_never_overwritten(tmp_path: Path) -> None:
    race(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"already holds a run. Go on with it by --resume"):
        race(tmp_path / "run")


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    race(tmp_path / "run", dry_run=True)
    with pytest.raises(ConfigError, match=r"(?s)begun with other settings.*steps: the run has 16, you gave 99"):
        race(tmp_path / "run", resume=True, steps=99)


def test_a_finished_run_is_read_not_repeated(tmp_path: Path) -> None:
    first = race(tmp_path / "run")
    again = fit(out=tmp_path / "run", resume=True)
    assert again.result == first.result


def test_a_lost_model_is_exported_again(tmp_path: Path) -> None:
    race(tmp_path / "run")
    kept = {path.parent.name for path in (tmp_path / "run" / "jobs").glob("*/checkpoint.json")}
    assert kept == {"whole-fast-1of1"}, "the trainings that the model was exported from are kept"
    (tmp_path / "run" / "model.onnx").unlink()
    assert fit(out=tmp_path / "run", resume=True).choice == "fast"
    assert (tmp_path / "run" / "model.onnx").exists()


def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    from graftwork.workflows.runs.run_folder import RunFolder

    race(tmp_path / "run", dry_run=True)
    holder = RunFolder(tmp_path / "run")
    holder.open()
    try:
        with pytest.raises(ConfigError, match="Another process is working in"):
            fit(out=tmp_path / "run", resume=True)
    finally:
        holder.release()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"plans": ["mmeo"]}, "did you mean 'mmoe'"), ({"plans": "none", "targets": "frist"}, "frist")],
)
def test_wrong_settings_leave_nothing_behind(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftworkError, match=message):
        fit(linear_suite(), out=tmp_path / "run", steps=8, workers=0, backbone="none", **settings)
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraftworkError, match=message):
        fit(linear_suite(), out=tmp_path / "empty", steps=8, workers=0, backbone="none", **settings)
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_model_of_the_user_is_not_replaced(tmp_path: Path) -> None:
    race(tmp_path / "run")
    (tmp_path / "run" / "model.onnx").unlink()
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "weights.bin").write_text("mine")
    (tmp_path / "run" / "model").symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"model is a link\. A run of graftwork holds none"):
        fit(out=tmp_path / "run", resume=True)
    (tmp_path / "run" / "model").unlink()
    shutil.copytree(tmp_path / "mine", tmp_path / "run" / "model")
    with pytest.raises(StorageError, match=r"model is not a model that graftwork fit wrote.*--resume"):
        fit(out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model" / "weights.bin").read_text() == "mine"
    assert (tmp_path / "mine" / "weights.bin").read_text() == "mine"
    shutil.rmtree(tmp_path / "run" / "model")
    assert fit(out=tmp_path / "run", resume=True).choice == "fast"
    assert (tmp_path / "run" / "model" / "lineage.json").exists()


def test_a_run_without_its_run_json_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    race(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"is not a run of graftwork \(it has no run\.json.*it holds "):
            race(tmp_path / "run", resume=resume)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_an_unwritable_folder_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="is a file, not a folder"):
        race(tmp_path / "file")


def test_a_damaged_checkpoint_costs_time_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        with pytest.raises(RunStopped):
            race(tmp_path / "run", on_event=PressAfter(patch, 4))
    for checkpoint in (tmp_path / "run" / "jobs").glob("*/checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert numbers(fit(out=tmp_path / "run", resume=True)) == numbers(race(tmp_path / "other"))
