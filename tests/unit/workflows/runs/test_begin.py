"""A run that could not start leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.core.errors import ConfigError, DataError, GraftworkError, MissingDependencyError, StorageError
from graftwork.workflows.runs.begin import Call, begun_run
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.settings import FitSettings


def begin(folder: Path, error: GraftworkError, **state: object) -> None:
    run = RunFolder(folder)
    with begun_run(run, FitSettings(), lambda _: FitSettings(), Call(verb="fit", resume=True)):
        if state:
            run.save(**state)
        raise error


@pytest.mark.parametrize("error", [ConfigError("x"), DataError("x"), MissingDependencyError("x")])
def test_nothing_is_left_of_a_run_that_could_not_start(tmp_path: Path, error: GraftworkError) -> None:
    with pytest.raises(type(error)):
        begin(tmp_path / "run", error)
    assert not (tmp_path / "run").exists()


def test_work_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        begin(tmp_path / "scheduled", ConfigError("x"), schedule={})
    with pytest.raises(StorageError):
        begin(tmp_path / "full", StorageError("the disk is full"))
    assert (tmp_path / "scheduled" / "run.json").exists()
    assert (tmp_path / "full" / "run.json").exists()


def test_a_folder_called_like_the_demo_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()
    with pytest.raises(ConfigError, match=r"No data was named.*graftwork fit \./emoji"):
        begin(tmp_path / "run", DataError("not reached"))
    assert not (tmp_path / "run").exists()
    run = RunFolder(tmp_path / "run")
    with begun_run(run, FitSettings(), lambda _: FitSettings(), Call(verb="fit", source="emoji")):
        pass  # named, it is the folder
    assert run.exists()
