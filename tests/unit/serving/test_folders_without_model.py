"""Folders that graftwork wrote and that hold no model say what they are, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graftwork.cli.main import main
from graftwork.core.errors import FileFormatError
from graftwork.serving.predict import Predictor


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"run.json": {"verb": "compare", "state": "done"}},
            r"a comparison of plans, which keeps no model.*graftwork fit DATA --plans NAME",
        ),
        (
            {"run.json": {"state": "suite"}},
            r"has not finished: it has no model yet. Finish it with: graftwork fit --resume .*run",
        ),
        ({"run.json": {"verb": "distill"}}, "graftwork distill --resume"),
        ({"run.json": ["damaged"]}, "has not finished"),
        (
            {"result.json": {"format": "graftwork-rank-1"}},
            "a ranking, which trains no model. Give the folder of a graftwork fit, tune or distill",
        ),
        ({"result.json": {"format": "graftwork-rank-data-1"}}, "a ranking, which trains no model"),
        ({}, "not a run folder"),
    ],
)
def test_what_a_folder_is_is_said(files: dict[str, object], words: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(FileFormatError, match=words):
        Predictor(folder)


def test_a_ranking_cannot_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ranked").mkdir()
    (tmp_path / "ranked" / "result.json").write_text('{"format": "graftwork-rank-1"}', encoding="utf-8")
    assert main(["fit", "--resume", "ranked"]) == 2
    assert "ranked cannot be resumed: it holds a result, and no run that could go on" in capsys.readouterr().err
