"""Controls with shuffled companions in a cross-validation: each needs as many trainings as the plans that it is compared with. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftwork.data.folds import DRAWN
from graftwork.workflows.fit import fit, replanning, session
from graftwork.workflows.fit.replanning import make_schedule
from graftwork.workflows.runs import horizons
from graftwork.workflows.runs.schedule import Schedule

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")


def test_folds_that_are_made_up_for_get_their_controls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*args: Any) -> Schedule:
        """Three of five folds, as if there were no time for more; the trainings then take less than expected."""
        return replace(make_schedule(*args), seeds=(0, 1, 2), control_seeds=3, control_tasks=2)

    for module in (session, replanning):
        monkeypatch.setattr(module, "make_schedule", short)
    for name, value in {"MOST_STEPS": 40, "MOST_EPOCHS": 4, "DECENT_STEPS": 40, "DECENT_EPOCHS": 2}.items():
        monkeypatch.setattr(horizons, name, value)
    suite = replace(linear_suite(240), raw={DRAWN: True})
    plans = [linear_plan("alone", "reference"), linear_plan("fast", "joint", rate=0.3)]
    run = fit(suite, plans=["none", *plans], out=tmp_path / "run", time_limit=200, folds=5, workers=0, progress=False)
    assert run.result["measured"]["judged_folds"] == 5
    assert {row["task"] for row in run.result["controls"]} == {"first", "second"}
    assert all(row["control"] for answer in run.verdict["help"] for row in answer["tasks"])
