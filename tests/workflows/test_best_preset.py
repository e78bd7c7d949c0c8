"""The preset `best` on a small table with a short time limit: what cannot learn there stays out, and nothing fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graftwork as gw


@pytest.mark.slow
def test_best_on_80_rows_ends_without_a_failed_plan(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(80, 4))
    frame = pd.DataFrame(inputs, columns=list("abcd"))
    frame["u"] = inputs @ [1, 2, 0, -1] + 0.3 * draw.normal(size=80)
    frame["v"] = inputs @ [1, 1.5, 0.5, -1] + 0.3 * draw.normal(size=80)
    frame["w"] = np.where(frame["u"] > 0, "yes", "no")
    run = gw.fit(frame, targets="u,v,w", preset="best", time_limit="20s", out=tmp_path / "run")
    result = run.result
    assert result["verdict"]["choice"]
    left_out = {row["plan"]: row["reason"] for row in result["estimate"] if not row["kept"]}
    assert not {name: reason for name, reason in left_out.items() if "cannot" in reason or "backbone" in reason}
    assert {row["status"] for row in result["race"]} <= {"ok", "stopped", "excluded"}
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert not [event for event in events if event["event"] == "job-end" and event.get("status") in ("failed", "diverged")]
    [said] = [event for event in events if event["event"] == "plans_out"]
    assert {"mhr", "poly", "kd-any", "distill-similar", "sft-full"} <= {name for out in said["plans"].values() for name in out}
    assert "plans stay out, since they need" in said["line"]
    assert not {"mhr", "kd-any"} & set(left_out)
