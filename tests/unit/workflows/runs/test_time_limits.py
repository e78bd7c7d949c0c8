"""The clock of a run: asked to end, then ended; decisions are made once; presets are settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.errors import ConfigError
from graftwork.workflows.runs.begin import repeat_command
from graftwork.workflows.runs.context import _ending
from graftwork.workflows.runs.decisions import decided, seconds_left
from graftwork.workflows.runs.interrupts import StopSwitch
from graftwork.workflows.runs.presets import PRESETS
from graftwork.workflows.runs.settings import FitSettings


def test_the_clock_asks_first_and_then_ends_and_the_user_outranks_it() -> None:
    late, over = [False], [False]
    switch = StopSwitch(lambda: late[0], lambda: over[0])
    assert switch() is None
    late[0] = True
    assert (switch(), switch.by_user()) == ("finish", None)
    over[0] = True
    assert (switch(), switch.by_user()) == ("kill", None)
    switch.press()
    assert (switch(), switch.by_user()) == ("keep", "keep")
    switch.press()
    assert (switch(), switch.by_user()) == ("kill", "kill")


def test_a_batch_of_jobs_has_an_end_of_its_own() -> None:
    assert _ending(lambda: None, 1000.0)() is None
    assert _ending(lambda: None, -1.0)() == "kill"
    assert _ending(lambda: "keep", -1.0)() == "keep"


class Run:
    """A run folder that keeps its state in memory."""

    def __init__(self, used: float = 0.0) -> None:
        self.state: dict[str, Any] = {}
        self.used = used

    def save(self, **changes: Any) -> None:
        self.state |= changes

    def seconds_used(self) -> float:
        return self.used


def test_a_decision_is_made_once() -> None:
    context: Any = SimpleNamespace(run=Run())
    answers = iter([{"steps": 3}, {"steps": 9}])
    assert decided(context, "a", lambda: next(answers)) == {"steps": 3}
    assert decided(context, "a", lambda: next(answers)) == {"steps": 3}
    assert decided(context, "b", lambda: next(answers)) == {"steps": 9}
    assert context.run.state["decisions"] == {"a": {"steps": 3}, "b": {"steps": 9}}


def test_fixed_steps_take_the_time_that_they_take() -> None:
    for limit, steps, expected in [(100.0, None, 96.0 - 30.0), (None, 50, None), (100.0, 50, None)]:
        context: Any = SimpleNamespace(run=Run(30.0), settings=FitSettings(time_limit=limit, steps=steps))
        assert seconds_left(context) == (None if expected is None else pytest.approx(expected))


def test_a_preset_says_what_the_user_does_not() -> None:
    best = FitSettings.of_user("t.csv", preset="best")
    assert (best.seeds, best.single) == (PRESETS["best"].seeds, False)
    quick = FitSettings.of_user("t.csv", preset="quick", seeds=7, single=False)
    assert (quick.seeds, quick.single) == (7, False)
    assert FitSettings.of_user("t.csv") == FitSettings.of_user("t.csv", preset="good")
    assert repeat_command(quick) == "graftwork fit t.csv --time-limit 300s --preset quick --seeds 7"
    assert repeat_command(FitSettings.of_user("t.csv", single=True, refit=False)).endswith("--single --no-refit")
    with pytest.raises(ConfigError, match="no preset 'gut'"):
        FitSettings.of_user("t.csv", preset="gut")
