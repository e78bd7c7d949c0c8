"""What is removed from the folder of a run, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.core.errors import StorageError
from graftwork.core.files import write_json
from graftwork.workflows.runs.run_folder import RunFolder


def test_a_job_that_is_dropped_leaves_nothing_and_others_stay(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for name in ("rung1-a", "rung1-ab"):
        write_json(run.job(name) / "result.json", {"status": "ok", "steps": 0})
        write_json(run.job(name) / "checkpoint-0" / "state.json", {})
    run.drop_job("rung1-a")
    assert not run.job("rung1-a").exists()
    assert run.result("rung1-a") is None
    assert run.result("rung1-ab") == {"status": "ok", "steps": 0}
    run.drop_job("rung1-a")
    assert run.job("rung1-ab").exists()


def test_a_link_in_place_of_a_job_is_not_followed(tmp_path: Path) -> None:
    run, elsewhere = RunFolder(tmp_path / "run"), tmp_path / "mine"
    write_json(elsewhere / "result.json", {"status": "ok"})
    (run.path / "jobs").mkdir(parents=True)
    run.job("rung1-a").symlink_to(elsewhere)
    with pytest.raises(StorageError, match=r"Cannot remove .*rung1-a.*--resume"):
        run.drop_job("rung1-a")
    assert (elsewhere / "result.json").exists()
