"""A run that begins from a finished one: what it takes from it, and what it must not. No torch."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.fit import FitRun, fit
from graftwork.workflows.fit.warm_start import read_warm_start
from graftwork.workflows.runs import horizons
from graftwork.workflows.runs.preparation import machine_facts
from graftwork.workflows.runs.presets import PRESETS

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners", "short_trainings")


@pytest.fixture
def short_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Horizons of a few dozen steps, whatever the time allows, and few attempts."""
    for name, value in {"MOST_STEPS": 60, "MOST_EPOCHS": 4, "DECENT_STEPS": 40, "DECENT_EPOCHS": 2}.items():
        monkeypatch.setattr(horizons, name, value)
    monkeypatch.setitem(PRESETS, "good", dataclasses.replace(PRESETS["good"], tries=2))


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in which other settings won for one plan."""
    folder = tmp_path_factory.mktemp("older")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        for name, value in {"MOST_STEPS": 60, "MOST_EPOCHS": 4, "DECENT_STEPS": 40, "DECENT_EPOCHS": 2}.items():
            patch.setattr(horizons, name, value)
        (folder / "mine.toml").write_text(
            '[[plans]]\nname = "mine"\ntitle = "Mine"\nrole = "independent"\nmodalities = ["table"]\n'
            'learner = { path = "fake_learners:LinearLearner", settings = { rate = 0.0001 } }\ntraining = { max_steps = 30 }\n'
            "variants = [{ learner = { rate = 0.00001 } }, { learner = { rate = 0.3 } }]\n"
        )
        run = fit(
            linear_suite(),
            plans=[str(folder / "mine.toml"), "mine", linear_plan("alone", "reference", rate=0.0001)],
            out=folder / "run",
            time_limit=200,
            seeds=2,
            workers=0,
            backbone="none",
            allow_components="fake_learners",
        )
    assert [item["taken"] for item in run.result["attempts"]] == [False, True]
    return folder / "run"


def begun(older: Path, folder: Path, suite: Suite, **settings: Any) -> FitRun:
    return fit(suite, warm_start=older, out=folder, workers=0, allow_components="fake_learners", **settings)


def jobs(run: FitRun) -> set[str]:
    return {path.name for path in (run.folder / "jobs").iterdir()}


def test_on_the_same_rows_the_winning_settings_are_taken_over(older: Path, tmp_path: Path) -> None:
    # An average of learners that export nothing could not be handed over.
    run = begun(older, tmp_path / "run", linear_suite(), single=True)
    state = json.loads((run.folder / "run.json").read_text())
    mine = next(plan for plan in state["plans"] if plan["name"] == "mine")
    assert mine["stages"][0]["learner"]["settings"]["rate"] == 0.3
    assert run.result["warm_start"]["same_data"] is True
    assert run.result["warm_start"]["settings"] == {"mine": {"learner": {"rate": 0.3}}}
    # Those whose settings are others than when they were measured are measured again.
    assert "estimate-mine" in jobs(run)
    assert "estimate-alone" not in jobs(run)
    assert any("began with the settings that had won there" in warning for warning in run.warnings)
    # What was not said is as it was there.
    assert (state["settings"]["seeds"], state["settings"]["time_limit"], state["settings"]["backbone"]) == (2, 200, "none")
    again = begun(older, tmp_path / "run", linear_suite(), single=True, resume=True)
    assert again.result == run.result


def test_on_other_rows_they_are_tried_first_and_must_win_again(older: Path, tmp_path: Path) -> None:
    run = begun(older, tmp_path / "run", linear_suite(160), seeds=3, folds=0)
    assert run.result["warm_start"]["same_data"] is False
    state = json.loads((run.folder / "run.json").read_text())
    mine = next(plan for plan in state["plans"] if plan["name"] == "mine")
    assert mine["stages"][0]["learner"]["settings"]["rate"] == 0.0001
    assert next((item["what"], item["taken"]) for item in run.result["attempts"]) == ("mine: rate 0.3", True)
    assert state["settings"]["seeds"] == 3
    assert not {"estimate-alone", "estimate-mine"} & jobs(run)
    assert any("taken where they won again on validation rows of this run" in warning for warning in run.warnings)


def test_no_weights_thresholds_or_choices_are_taken(older: Path, tmp_path: Path) -> None:
    """Only settings and costs: a run without the older models does the same."""
    copy = tmp_path / "copy"
    shutil.copytree(older, copy)
    for name in ("model", "plans", "jobs"):
        shutil.rmtree(copy / name, ignore_errors=True)
    found = read_warm_start(copy, linear_suite(), 72, machine_facts({}))
    assert found == dataclasses.replace(read_warm_start(older, linear_suite(), 72, machine_facts({})), run=str(copy))
    assert set(found.to_json()) == {"run", "same_data", "settings", "costs"}


def test_costs_follow_the_rows_and_the_machine(older: Path, tmp_path: Path) -> None:
    plain = read_warm_start(older, linear_suite(), 72, machine_facts({})).costs["alone"]
    double = read_warm_start(older, linear_suite(), 144, machine_facts({})).costs["alone"]
    assert double["eval_seconds"] == pytest.approx(2 * plain["eval_seconds"])
    assert double["seconds_per_step"] == plain["seconds_per_step"] > 0, "steps of batches cost what they did"
    copy = tmp_path / "copy"
    shutil.copytree(older, copy)
    state = json.loads((copy / "run.json").read_text())
    state["machine"]["cores"] = 512
    (copy / "run.json").write_text(json.dumps(state))
    assert read_warm_start(copy, linear_suite(), 72, machine_facts({})).costs == {}


def other_suite(*, tasks: bool = False, columns: bool = False) -> Suite:
    suite = linear_suite()
    if columns:
        numeric = np.concatenate([suite.inputs["numeric"]] * 2, axis=1)
        suite = dataclasses.replace(suite, input_specs=table_input(8), inputs={**suite.inputs, "numeric": numeric})
    if tasks:
        flags = (suite.targets["second"][:, 0] > 0).astype(np.int64)
        third = TaskSpec(name="second", kind="binary", size=1, classes=("no", "yes"))
        suite = dataclasses.replace(
            suite, tasks=(suite.tasks[0], third), targets={"first": suite.targets["first"], "second": flags}
        )
    return suite


def test_other_tasks_and_columns_are_refused_and_named(older: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        begun(older, tmp_path / "run", other_suite(tasks=True, columns=True))
    assert "cannot begin from" in str(found.value)
    assert "task 'second' is binary here and regression there" in str(found.value)
    assert "4 numbers, 0 categories there, 8 numbers, 0 categories here" in str(found.value)
    assert not (tmp_path / "run").exists(), "nothing is left of a run that cannot begin"


@pytest.mark.parametrize(("folder", "message"), [("gone", "no folder"), ("empty", "no finished run")])
def test_what_is_no_finished_run_is_refused(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match=message):
        fit(linear_suite(), warm_start=tmp_path / folder, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_was_handed_in_must_be_named_again(older: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Name the data of this run"):
        fit(warm_start=older, out=tmp_path / "run")
