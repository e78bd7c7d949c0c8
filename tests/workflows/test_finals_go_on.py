"""Finals for which there is less time than the race has spent on their plans: they go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graftwork.core.files import read_json
from graftwork.workflows.fit import FitRun

from .test_simulated_clock import Clock, clock, plans_of, raced  # noqa: F401

pytestmark = pytest.mark.usefixtures("fake_learners")
LIMIT = 60.0


def steps_of(run: FitRun, job: str) -> int:
    return int(read_json(run.folder / "jobs" / job / "result.json")["steps"])


@pytest.mark.parametrize("left", [8.0, 4.0])
def test_a_late_final_is_no_shorter_than_what_the_race_has_made(clock: Clock, tmp_path: Path, left: float) -> None:  # noqa: F811
    seen: list[dict[str, Any]] = []

    def disturb(event: dict[str, Any]) -> None:
        seen.append(event)
        if event["event"] == "rung" and event["rung"] == 1:
            # Another program has the machine for a while.
            clock.now = began + LIMIT - left

    began = clock.now
    run, seconds = raced(clock, tmp_path / "run", plans_of(separate=0.02, shared=0.02), LIMIT, on_event=disturb)
    replans = {event["rung"]: event for event in seen if event["event"] == "replan"}
    assert replans[1]["seeds"] == [0], "others would begin anew, for which there is no time"
    assert replans[1]["horizons"] == replans[0]["horizons"]
    for name in ("separate", "shared"):
        assert steps_of(run, f"final-{name}-s0") >= steps_of(run, f"rung2-{name}") > 100
    assert seconds <= 1.1 * LIMIT
