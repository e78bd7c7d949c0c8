"""Whoever reads the output may go away (``| head -1``): the run goes on, and its exit code says what it has left."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from graftwork.cli.main import main
from graftwork.workflows.compare import compare
from graftwork.workflows.fit import fit
from graftwork.workflows.runs.display import PlainDisplay
from graftwork.workflows.runs.script_progress import SparseDisplay

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]


@pytest.fixture
def closed() -> Iterator[Any]:
    """A text stream into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield stream
    with contextlib.suppress(OSError):
        stream.close()


@pytest.mark.parametrize("display", [PlainDisplay, lambda stream: SparseDisplay(stream, every=0.0)])
def test_a_run_goes_on_without_readers(tmp_path: Path, fake_learners: None, closed: Any, display: Any) -> None:
    plans = ["none", linear_plan("alone", "reference"), linear_plan("together", "joint")]
    shown = display(closed)
    run = compare(linear_suite(), plans=plans, steps=4, seeds=1, workers=0, out=tmp_path / "run", on_event=shown.handle)
    assert (run.folder / "result.json").is_file()


def test_the_exit_code_says_that_there_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed: Any
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    result = SimpleNamespace(folder=folder, result={"verdict": {}}, fit_summary=lambda width: "x" * 100_000)
    monkeypatch.setattr("graftwork.workflows.fit.fit", lambda *args, **settings: result)
    monkeypatch.setattr(sys, "stdout", closed)
    assert main(["fit", "table.csv"]) == 1
    assert "there is no model" in capsys.readouterr().err


@pytest.mark.slow
def test_fit_piped_into_head_leaves_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: Any) -> None:
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(60, 3)), columns=list("abc"))
    frame.to_csv(tmp_path / "table.csv", index=False)
    words = [
        "fit",
        str(tmp_path / "table.csv"),
        "--targets",
        "c",
        "--steps",
        "4",
        "--seeds",
        "1",
        "--folds",
        "0",
        "--workers",
        "0",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        code = main([*words, "--plans", "separate", "--single", "--out", str(tmp_path / "run")])
    assert code == 0
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    assert fit(out=tmp_path / "run", resume=True, progress=False).result
