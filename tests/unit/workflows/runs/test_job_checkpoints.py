from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.errors import CheckpointError
from graftwork.workflows.runs.job_checkpoints import load_job_checkpoint, resumed_learner, save_job_checkpoint


class Counter:
    """A learner of two parts, which are loaded one after the other."""

    def __init__(self) -> None:
        self.step = self.other = 0

    def save(self, folder: Path) -> None:
        (folder / "step").write_text(str(self.step))
        (folder / "other").write_text(str(self.other))

    def load(self, folder: Path) -> None:
        self.step = int((folder / "step").read_text())
        other = (folder / "other").read_text()
        if other == "refused":
            raise CheckpointError("The second part is damaged.")
        self.other = int(other)


def saved(folder: Path, step: int) -> Path:
    learner = Counter()
    learner.step = learner.other = step
    save_job_checkpoint(learner, folder)  # type: ignore[arg-type]
    return folder / f"checkpoint-{step}"


def resumed(*folders: Path) -> tuple[int, int]:
    learner: Any = resumed_learner(Counter, *folders)  # type: ignore[arg-type]
    return learner.step, learner.other


def test_the_first_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert resumed(tmp_path / "own", tmp_path / "before") == (0, 0)
    saved(tmp_path / "before", 3)
    assert resumed(tmp_path / "own", tmp_path / "before") == (3, 3)
    saved(tmp_path / "own", 5)
    assert resumed(tmp_path / "own", tmp_path / "before") == (5, 5)


@pytest.mark.parametrize("damage", ["refused", "no number"])
def test_nothing_of_a_damaged_checkpoint_stays_in_the_learner(tmp_path: Path, damage: str) -> None:
    (saved(tmp_path / "own", 5) / "other").write_text(damage)
    assert resumed(tmp_path / "own", tmp_path / "before") == (0, 0)
    saved(tmp_path / "before", 3)
    assert resumed(tmp_path / "own", tmp_path / "before") == (3, 3)


@pytest.mark.parametrize("pointer", ["", "[]", "7", "{}", '{"folder": null}', '{"folder": 3}', "[" * 5_000])
def test_a_damaged_pointer_begins_again_and_is_replaced(tmp_path: Path, pointer: str) -> None:
    saved(tmp_path, 5)
    (tmp_path / "checkpoint.json").write_text(pointer)
    assert not load_job_checkpoint(Counter(), tmp_path)  # type: ignore[arg-type]
    saved(tmp_path, 5)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 5
    assert resumed(tmp_path) == (5, 5)
