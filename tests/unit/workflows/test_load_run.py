"""Run folders read back: what they answer, and what is said of folders that are no finished run."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import write_json
from graftwork.workflows.fit import FitRun

BUILDER = Path(__file__).parents[1] / "reporting" / "result_builder.py"


def built(modality: str = "table") -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("result_builder_of_reports", BUILDER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_result(modality)


def comparison() -> dict[str, Any]:
    result = built()
    rows = [
        {"rank": 1, "plan": "mmoe", "status": "ok", "message": "", "seeds": [0], "steps": 5, "label": "better", "p_value": 0.01},
        {"rank": 2, "plan": "separate", "status": "ok", "message": "", "seeds": [0], "steps": 5, "label": None, "p_value": None},
        {"rank": None, "plan": "cagrad", "status": "diverged", "message": "NaN", "seeds": [], "label": None, "p_value": None},
    ]
    plans = {name: plan for name, plan in result["plans"].items() if name in ("mmoe", "separate")}
    verdict = {**result["verdict"], "choice": "mmoe"}
    return {**result, "format": "graftwork-compare-1", "leaderboard": rows, "plans": plans, "verdict": verdict, "budget": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_a_run_comes_back_with_its_type_and_content(folder: Path) -> None:
    result = built()
    write_json(folder / "result.json", result)
    run = gw.load_run(str(folder))
    assert isinstance(run, FitRun)
    assert run.result == result
    assert (run.folder, run.choice) == (folder, "shared-trunk")
    assert repr(run) == f"FitRun({str(folder)!r}, choice='shared-trunk')"
    assert run.fit_summary(90) == f"{run.summary(90)}\nresults: {folder}"
    (folder / "report.html").write_text("", encoding="utf-8")
    assert run.fit_summary(90).splitlines()[-1] == f"report: {run.report}"
    write_json(folder / "result.json", comparison())
    compared = gw.load_run(folder)
    assert isinstance(compared, gw.CompareRun)
    assert compared.best == "mmoe"


def test_the_leaderboard_has_the_numbers_of_the_result(folder: Path) -> None:
    result = built()
    run = FitRun(folder, result)
    table = run.leaderboard()
    view = run.view()
    finalists = table[table["finalist"]]
    assert finalists["plan"].tolist() == view.finalists
    assert table["plan"].is_unique
    assert {row["plan"] for row in result["race"]} <= set(table["plan"])
    assert table.loc[table["chosen"], "plan"].tolist() == [run.choice]
    assert table.attrs["metrics"]["churned"] == "roc_auc"
    for _, row in finalists.iterrows():
        entry = result["plans"][row["plan"]]
        for part, end in (("value", ""), ("low", "_low"), ("high", "_high")):
            assert row[f"delta_m{end}"] == pytest.approx(entry["delta_m"][part], nan_ok=True)
            assert row[f"test{end}:churned"] == entry["test"]["churned"]["roc_auc"][part]
        assert row["parameters"] == entry["ledger"]["parameters_stored"]
        assert row["seconds"] == entry["ledger"]["wall_seconds"]
        assert row["latency_ms"] == entry["ledger"]["latency_ms_batch1"]
        assert row["note"] == ""
    others = table[~table["finalist"]]
    assert len(others) == 2
    assert others["delta_m"].isna().all()
    assert others["note"].str.len().gt(0).all(), "why it is no finalist"


def test_a_leaderboard_without_probe_and_with_plans_that_never_ran(folder: Path) -> None:
    result = built()
    result["plans"]["separate"]["ledger"]["latency_ms_batch1"] = 0.0
    result["estimate"] = [{"plan": "huge", "parameters": 10**9, "kept": False, "reason": "too large", "seconds_per_step": 1.0}]
    table = FitRun(folder, result).leaderboard().set_index("plan")
    assert math.isnan(table.loc["separate", "latency_ms"]), "0 stands for a probe that did not run"
    assert table.loc["huge", ["parameters", "note"]].tolist() == [10**9, "too large"]


def test_names_of_tasks_cannot_hide_other_columns(folder: Path) -> None:
    result = json.loads(json.dumps(built()).replace('"churned"', '"plan_low"').replace('"monthly spend"', '"seconds"'))
    table = FitRun(folder, result).leaderboard()
    assert table.columns.is_unique
    assert {"test:plan", "test:plan_low", "test_low:plan", "test:seconds", "seconds"} <= set(table.columns)


def test_the_leaderboard_of_a_comparison_keeps_its_order_and_its_failures(folder: Path) -> None:
    run = gw.CompareRun(folder, comparison())
    table = run.leaderboard()
    assert table["plan"].tolist() == ["mmoe", "separate", "cagrad"] == [row["plan"] for row in run.rows]
    assert table["finalist"].tolist() == [True, True, False]
    assert table["label"].tolist()[0] == "better"
    assert table["note"].tolist() == ["", "", "NaN"]
    assert "mmoe" in str(run._repr_html_())


def test_notebooks_show_text_of_the_data_as_text(folder: Path) -> None:
    bad = "<script>alert(1)</script>\x1b[31m"
    result = built()
    text = json.dumps(result).replace("churned", json.dumps(bad)[1:-1]).replace("lightgbm", json.dumps(f"{bad}2")[1:-1])
    result = json.loads(text)
    result["verdict"]["sentences"] = [f"Use {bad}.", "More."]
    shown = FitRun(folder, result)._repr_html_()
    assert shown is not None
    assert "<script" not in shown
    assert "\x1b" not in shown
    assert shown.count("&lt;script&gt;") >= 3
    assert "More." not in shown
    assert "shared-trunk" in shown


def test_many_tasks_and_plans_are_cut_and_said(folder: Path) -> None:
    result = built()
    one = result["suite"]["tasks"][0]
    result["suite"]["tasks"] = [{**one, "name": f"t{index}"} for index in range(200)]
    result["race"] = [{"rung": 0, "plan": f"p{index}", "status": "ok", "score": -index, "steps": 1} for index in range(90)]
    shown = str(FitRun(folder, result)._repr_html_())
    assert "192 more tasks" in shown
    assert "plans and 192 more tasks" in shown
    assert len(shown) < 20_000
    assert len(FitRun(folder, result).leaderboard()) >= 90


def test_a_dry_run_says_that_it_has_no_result(folder: Path) -> None:
    run = FitRun(folder, {})
    assert repr(run) == f"FitRun({str(folder)!r}, dry run)"
    assert run._repr_html_() is None
    for ask in (run.leaderboard, run.fit_summary, lambda: run.choice):
        with pytest.raises(ConfigError, match="nothing was trained"):
            ask()


def test_what_is_no_run_is_said_to_be_none(folder: Path) -> None:
    with pytest.raises(FileFormatError, match="neither result.json nor run.json"):
        gw.load_run(folder)
    with pytest.raises(FileFormatError, match="does not exist"):
        gw.load_run(folder / "nothing")
    (folder / "table.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="is a file"):
        gw.load_run(folder / "table.csv")
    write_json(folder / "run.json", {"format": "graftwork-run-1", "state": "done"})
    (folder / "model").mkdir()
    with pytest.raises(FileFormatError, match=r"model is no run folder, but .*run is one"):
        gw.load_run(folder / "model")
    write_json(folder / "run.json", {"format": "another-7"})
    with pytest.raises(FileFormatError, match="not of the format"):
        gw.load_run(folder)


@pytest.mark.parametrize(("verb", "state"), [("fit", "created"), ("compare", "scheduled")])
def test_an_unfinished_run_says_how_far_it_is_and_how_to_go_on(folder: Path, verb: str, state: str) -> None:
    more = {} if verb == "fit" else {"verb": verb}
    write_json(folder / "run.json", {"format": "graftwork-run-1", "state": state, "seconds_used": 75.0, **more})
    (folder / "jobs" / "a").mkdir(parents=True)
    write_json(folder / "jobs" / "a" / "result.json", {})
    words = {"created": "its data was not read", "scheduled": "its schedule is made"}[state]
    with pytest.raises(FileFormatError, match=rf"{words}.* 1 job is finished, .*graftwork {verb} --resume {folder}"):
        gw.load_run(folder)


def damaged() -> list[tuple[str, Any]]:
    good = built()
    return [
        ("a list", []),
        ("another format", {**good, "format": "graftwork-fit-9"}),
        ("no verdict", {key: value for key, value in good.items() if key != "verdict"}),
        ("no sentences", {**good, "verdict": {"choice": "shared-trunk"}}),
        ("a choice that is no text", {**good, "verdict": {**good["verdict"], "choice": ["shared-trunk"]}}),
        ("sentences that are no texts", {**good, "verdict": {**good["verdict"], "sentences": [{}]}}),
        ("plans in a list", {**good, "plans": [1, 2]}),
        ("a task without fields", {**good, "suite": {"tasks": [{"no": 1}]}}),
        ("a task of a kind that would have to be imported", {**good, "suite": {"tasks": [{"name": "a", "kind": "os:x", "size": 1}]}}),
    ]  # fmt: skip


@pytest.mark.parametrize(("what", "result"), damaged(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_damaged_result_is_refused_by_the_name_of_its_file(folder: Path, what: str, result: Any) -> None:
    write_json(folder / "result.json", result)
    with pytest.raises(FileFormatError, match=r"result\.json"):
        gw.load_run(folder)
    assert what


def test_nothing_of_a_strangers_folder_is_run_or_needs_torch(folder: Path) -> None:
    trace = folder / "it-ran"
    for name in ("sitecustomize.py", "strange_parts.py", "conftest.py", "fake_plan.py"):
        (folder / name).write_text(f"open({str(trace)!r}, 'w').close()\n", encoding="utf-8")
    result = built()
    for entry in result["plans"].values():
        entry["plan"] = {**(entry.get("plan") or {}), "stages": [{"learner": {"path": "strange_parts:Learner", "settings": {}}}]}
    write_json(folder / "result.json", result)
    code = (
        "import sys, graftwork as gw\n"
        f"sys.path.insert(0, {str(folder)!r})\n"
        f"run = gw.load_run({str(folder)!r})\n"
        "run.leaderboard(); run.fit_summary(); run._repr_html_(); repr(run)\n"
        "print([name for name in ('torch', 'strange_parts') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not trace.exists()
