"""Which plan of the race gets the control with shuffled companions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.workflows.fit import race as module
from graftwork.workflows.fit.race import Race
from graftwork.workflows.portfolio import load_catalogue


@pytest.mark.parametrize(("plan", "tasks"), [("esmm", []), ("shared-trunk", ["click", "purchase"])])
def test_a_plan_that_needs_the_labels_dependence_has_no_control(
    monkeypatch: pytest.MonkeyPatch, plan: str, tasks: list[str]
) -> None:
    entries = load_catalogue()
    names = ["separate", plan]
    suite: Any = SimpleNamespace(tasks=("click", "purchase"), task_names=("click", "purchase"))
    plans = {name: entries[name].plan for name in names}
    schedule, maker = SimpleNamespace(control_seeds=1, control_tasks=8), SimpleNamespace(facts=SimpleNamespace(folds=0))
    context: Any = SimpleNamespace(run=None, suite=suite, plans=plans, schedule=schedule, maker=maker, stop=None)
    race = Race(context)
    monkeypatch.setattr(module, "task_changes", lambda *_: {"click": 4.0, "purchase": 3.0})
    scores = {"separate": 0.0, plan: 1.0}
    assert race._control_plan_and_tasks(names, scores, {name: {"validation": {}} for name in names}) == tasks
    assert race.outcome.control_plan == plan, "its task affinity is measured all the same"
    assert bool(race.outcome.warnings) is not bool(tasks)
    assert all("`esmm` builds on how the labels" in warning for warning in race.outcome.warnings)
