"""A run folder that an older version left half done, its jobs not yet typed records, goes on to the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from graftwork.workflows.fit import FitRun, fit

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")
OLDER = Path(__file__).parent / "older_run"
"""Stopped by Ctrl-C in the final of ``alone``, at step 14 of 16."""


def numbers(run: FitRun) -> Any:
    """Return what is not measured in seconds; rounded, because the older part may come from another machine."""
    kept = {key: run.result[key] for key in ("verdict", "comparisons", "controls", "plans", "race")}
    value = json.loads(json.dumps(kept), parse_float=lambda text: round(float(text), 6))
    for row in value["race"]:
        del row["seconds"]
    for entry in value["plans"].values():
        del entry["ledger"]
    return value


def test_an_older_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    shutil.copytree(OLDER, tmp_path / "run")
    finished = {path: path.read_bytes() for path in (tmp_path / "run").glob("jobs/*/result.json")}
    steps: list[tuple[str, int]] = []

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            steps.append((event["job"], event["step"]))

    resumed = fit(out=tmp_path / "run", resume=True, on_event=listen)
    assert {path: path.read_bytes() for path in finished} == finished
    assert len(finished) == 6
    assert min(step for job, step in steps if job == "final-alone-s0") > 14, "it went on, not from the beginning"
    plans = ["none", linear_plan("alone", "reference", delay=0.05), linear_plan("fast", "joint", rate=0.3)]
    whole = fit(linear_suite(), plans=plans, out=tmp_path / "whole", steps=16, seeds=2, workers=0, backbone="none")
    assert numbers(resumed) == numbers(whole)
