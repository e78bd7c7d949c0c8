from __future__ import annotations

from pathlib import Path
from typing import Any

from graftwork.workflows.fit.control import JobControl
from graftwork.workflows.fit.job_train import _train


class StoppedLearner:
    """All steps are made, but the stop came before the validation that belongs to the last one."""

    step = 10

    def __init__(self) -> None:
        self.asked: list[int] = []

    def train(self, until: int, *, on_progress: Any = None) -> None:
        self.asked.append(until)


def test_a_learner_with_no_step_left_still_gets_its_pending_validation(tmp_path: Path) -> None:
    learner = StoppedLearner()
    assert _train(learner, 10, tmp_path, JobControl()) is False  # type: ignore[arg-type]
    assert learner.asked == [10]


def test_a_stop_that_came_first_is_no_end(tmp_path: Path) -> None:
    learner = StoppedLearner()
    assert _train(learner, 10, tmp_path, JobControl(stop="keep")) is True  # type: ignore[arg-type]
    assert learner.asked == []
