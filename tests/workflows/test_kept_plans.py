"""Every finalist is kept as it was judged: which, made of what, under which limits, and never over files of others. No torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.errors import ConfigError
from graftwork.serving.kept_plans import chosen_plan, folder_of_plan
from graftwork.serving.kept_plans import kept_plans as found_plans
from graftwork.workflows.fit import FitRun, RunStopped, fit, kept_plans
from graftwork.workflows.fit.session import FitSession

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")


def race(out: Path, **settings: Any) -> FitRun:
    plans = ["none", linear_plan("alone", "reference"), linear_plan("fast", "joint", rate=0.3)]
    plans += [linear_plan("medium", "joint", rate=0.2), linear_plan("last", "joint", rate=0.001)]
    fields = {"steps": 16, "seeds": 2, "workers": 0, "backbone": "none", "single": True, **settings}
    return fit(linear_suite(), plans=plans, out=out, **fields)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "lineage.json"  # holds the date
    }


def left_beside(run: Path) -> list[str]:
    return [path.name for path in run.iterdir() if path.name.startswith("plan.new")]


def test_the_others_are_kept_as_they_were_judged(tmp_path: Path) -> None:
    run = race(tmp_path / "run")
    assert run.choice == "fast"
    section = run.result["kept_plans"]
    assert list(section["kept"]) == ["medium", "alone"], "the better one first"
    assert section["not_kept"] == {}
    for name in ("alone", "medium"):
        entry = section["kept"][name]
        assert (entry["rows"], entry["trainings"], entry["folder"]) == ("training", [f"final-{name}-s0"], f"plans/{name}")
        folder = folder_of_plan(run.folder, name)
        assert sorted(files_of(folder)) == ["model.onnx", "model/config.json"], "nothing but what prediction needs"
        config = json.loads((folder / "model" / "config.json").read_text())
        assert config["plan"]["name"] == name
        assert [task["name"] for task in config["tasks"]] == ["first", "second"]
        # Intervals around numbers are those of this plan.
        assert config["kept_errors"].keys() == {"first", "second"}
        assert config["kept_errors"] != json.loads((run.folder / "model" / "config.json").read_text())["kept_errors"]
        assert json.loads((folder / "model" / "lineage.json").read_text())["plan"] == name
    assert (chosen_plan(run.folder), list(found_plans(run.folder))) == ("fast", ["alone", "medium"])
    assert left_beside(run.folder) == []
    assert {path.parent.name for path in (run.folder / "jobs").glob("*/checkpoint.json")} == {"whole-fast-1of1"}
    report = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Other finalists can be used as well" in report
    assert "Other finalists can be used as well" in run.summary()


def test_only_the_chosen_one_on_request(tmp_path: Path) -> None:
    run = race(tmp_path / "run", keep="chosen")
    assert not (run.folder / "plans").exists()
    assert run.result["kept_plans"]["not_kept"].keys() == {"alone", "medium"}
    with pytest.raises(ConfigError, match="'alone' was not kept: --keep chosen asked for the chosen plan only"):
        folder_of_plan(run.folder, "alone")
    with pytest.raises(ConfigError, match="keep must be one of finalists, chosen; got 'all'"):
        race(tmp_path / "other", keep="all")


@pytest.mark.parametrize(
    ("constants", "kept", "words"),
    [
        ({"MOST_BYTES": 100}, [], "0 MB are more than the 0 MB that other finalists may have"),
        ({"MOST_BYTES_TOGETHER": 6000}, ["medium"], "and those of better plans exceed"),
        ({"LIMIT_SHARE": 0.0}, [], "the time limit left no time for its export"),
    ],
)
def test_limits_are_kept_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constants: Mapping[str, Any], kept: list[str], words: str
) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(kept_plans, name, value)
    run = race(tmp_path / "run", time_limit=300)
    section = run.result["kept_plans"]
    assert list(section["kept"]) == kept == list(found_plans(run.folder))
    assert section["not_kept"].keys() == {"alone", "medium"} - {*kept}
    assert all(words in reason for reason in section["not_kept"].values())
    assert words in " ".join(run.summary(200).split())
    assert left_beside(run.folder) == []
    with pytest.raises(ConfigError, match=r"'alone' was not kept: .*fast \(the chosen one\)"):
        folder_of_plan(run.folder, "alone")


@pytest.mark.parametrize("job", ["export-fast", "export-alone", "export-medium"])
def test_a_stopped_run_ends_with_the_same_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    sessions: list[FitSession] = []
    original = FitSession.go

    def go(session: FitSession, **settings: Any) -> Any:
        sessions.append(session)
        return original(session, **settings)

    monkeypatch.setattr(FitSession, "go", go)

    def press(event: dict[str, Any]) -> None:
        if event["event"] == "job-end" and event["job"] == job:
            sessions[-1].stop.press()

    with pytest.raises(RunStopped):
        race(tmp_path / "run", on_event=press)
    # As a kill in the middle of an export leaves it.
    (tmp_path / "run" / "plan.new-medium").mkdir(exist_ok=True)
    (tmp_path / "run" / "plan.new-medium" / "model.onnx").write_bytes(b"half")
    resumed, whole = fit(out=tmp_path / "run", resume=True), race(tmp_path / "whole")
    assert files_of(resumed.folder / "plans") == files_of(whole.folder / "plans")
    assert resumed.result["kept_plans"] == whole.result["kept_plans"]
    assert left_beside(resumed.folder) == []


def test_a_lost_model_of_the_chosen_plan_leaves_the_others(tmp_path: Path) -> None:
    run = race(tmp_path / "run")
    (run.folder / "model.onnx").unlink()
    shutil.rmtree(run.folder / "plans" / "medium")
    before = files_of(run.folder / "plans")
    again = fit(out=run.folder, resume=True)
    assert files_of(run.folder / "plans") == before
    assert list(again.result["kept_plans"]["kept"]) == ["alone"]
    assert again.result["kept_plans"]["not_kept"] == {"medium": "its trainings were removed when the run ended"}


def test_models_of_another_race_are_not_taken_for_those_of_this_one(tmp_path: Path) -> None:
    run = race(tmp_path / "run")
    (run.folder / "model.onnx").unlink()
    config = run.folder / "plans" / "alone" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "trainings": ["final-alone-s7"]}))
    shutil.copytree(run.folder / "plans" / "medium", run.folder / "plans" / "gone")
    fit(out=run.folder, resume=True)
    assert not (run.folder / "plans" / "gone").exists(), "it is ours and no finalist"
    assert list(found_plans(run.folder)) == ["alone", "medium"]


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    race(tmp_path / "run", dry_run=True)
    shutil.copytree(mine, tmp_path / "run" / "plans" / "alone")
    (tmp_path / "run" / "plans" / "medium").write_text("mine")
    shutil.copytree(mine, tmp_path / "run" / "plans" / "other")
    run = fit(out=tmp_path / "run", resume=True)
    reasons = run.result["kept_plans"]["not_kept"]
    assert "is no model that graftwork fit wrote and was left as it is" in reasons["alone"]
    assert "is a link or a file and was left as it is" in reasons["medium"]
    assert (run.folder / "plans" / "medium").read_text() == "mine"
    for folder in (run.folder / "plans" / "alone", run.folder / "plans" / "other"):
        assert files_of(folder) == {"notes.txt": b"mine"}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    race(tmp_path / "run", dry_run=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "plans").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"plans is a link\. A run of graftwork holds none"):
        fit(out=tmp_path / "run", resume=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_export_that_fails_is_said_and_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_learners import LinearLearner  # type: ignore[import-not-found]

    plain = LinearLearner.export

    def export(learner: Any, folder: Path) -> None:
        if learner.context.plan.name == "alone":
            raise ValueError("no graph for this")
        plain(learner, folder)

    monkeypatch.setattr(LinearLearner, "export", export)
    run = race(tmp_path / "run")
    assert list(run.result["kept_plans"]["kept"]) == ["medium"]
    assert "could not be exported" in run.result["kept_plans"]["not_kept"]["alone"]
    assert "no graph for this" in run.result["kept_plans"]["not_kept"]["alone"]
    assert (run.folder / "model.onnx").exists()
    assert left_beside(run.folder) == []
