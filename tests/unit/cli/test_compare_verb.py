from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.cli.main import main


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    text = capsys.readouterr().out
    assert "graftwork compare scenes --plans shared-trunk,grouped --time-limit 60s" in text
    for flag in ("--plans", "--seeds", "--steps", "--time-limit", "--engine", "--resume", "--out", "--targets"):
        assert flag in text


def test_flags_reach_the_workflow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    result = {"budget": {}, "leaderboard": [], "overall": [], "grouping": None, "verdict": {"choice": "x"}}

    def compare(source: Any, **settings: Any) -> Any:
        seen.update(settings, source=source)
        return SimpleNamespace(folder=tmp_path, result=result, sentences=("It leads.",), where=f"results: {tmp_path}")

    monkeypatch.setattr("graftwork.workflows.compare.compare", compare)
    words = [
        "compare",
        "t.csv",
        "--targets",
        "a,b",
        "--plans",
        "x,y",
        "--steps",
        "9",
        "--seeds",
        "2",
        "--engine",
        "ray",
        "--json",
    ]
    assert main([*words, "--set", "batch_size=8", "--task-kind", "a=ordinal", "--out", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == {"choice": "x"}
    kept = ("source", "targets", "plans", "steps", "seeds", "engine", "overrides", "task_kinds", "out", "resume")
    assert {key: seen[key] for key in kept} == {
        "source": "t.csv",
        "targets": "a,b",
        "plans": "x,y",
        "steps": 9,
        "seeds": 2,
        "engine": "ray",
        "overrides": {"batch_size": 8},
        "task_kinds": {"a": "ordinal"},
        "out": str(tmp_path / "run"),
        "resume": False,
    }
    assert main(["compare", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("It leads.\nresults: ")


def test_resume_without_a_folder_finds_runs_of_its_own_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a-fit").mkdir(parents=True)
    (tmp_path / "runs" / "a-fit" / "run.json").write_text('{"state": "scheduled"}')
    assert main(["compare", "--resume"]) == 2
    assert "Name its folder: graftwork compare --resume FOLDER" in capsys.readouterr().err


def test_wrong_use_is_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["compare", "emoji", "--steps", "9", "--time-limit", "5s", "--out", str(tmp_path / "run")]) == 2
    assert "give steps or a time limit for each training, not both" in capsys.readouterr().err
    assert main(["compare", "emoji", "--engin", "ray"]) == 2
    assert "Did you mean '--engine'?" in capsys.readouterr().err
