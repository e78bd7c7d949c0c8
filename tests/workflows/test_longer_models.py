"""Models of all rows that train longer than the race did are exported, one by one and as an average, with the horizons that they had."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from graftwork.core.seeds import Seeds
from graftwork.data.store import save_suite
from graftwork.workflows.fit.combined import blend_plan
from graftwork.workflows.portfolio import load_catalogue
from graftwork.workflows.runs.execution import execute
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import NO_SCHEDULE

from .conftest import linear_suite  # type: ignore[import-not-found]


def test_longer_models_are_exported(tmp_path: Path) -> None:
    suite = linear_suite()
    save_suite(suite, RunFolder(tmp_path).suite)
    catalogue = load_catalogue()
    plans = {name: catalogue[name].plan for name in ("shared-trunk", "lightgbm")}
    schedule = dataclasses.replace(NO_SCHEDULE, horizons=dict.fromkeys(plans, 20))
    maker = JobMaker(facts=RunFacts(cache=str(tmp_path / "cache")), plans=plans, schedule=schedule)
    trained = [maker.whole(name, 1, 10, longer=1.55) for name in plans]
    for job in trained:
        found = execute(job, tmp_path)
        assert (found["status"], found["horizon"]) == ("ok", 31), found["message"]
        # A tenth of all rows is left out.
        assert len(job.suite(RunFolder(tmp_path)).splits["train"]) == 108
        exported = execute(maker.export(job, f"model-{job.plan.name}"), tmp_path)
        assert exported["status"] == "ok", exported["message"]
    members = [
        {
            "plan": job.plan.to_json(),
            "steps": job.max_steps,
            "weights": {"first": 0.5, "second": 0.5},
            "seed": Seeds(0).integer(f"seed {job.seed}"),
            "parts": job.parts,
            "part": job.seed,
        }
        for job in trained
    ]
    average = maker.assemble(blend_plan("ensemble", "Both", members, suite.kinds), trained, "model-both")
    joined = execute(average, tmp_path)
    assert joined["status"] == "ok", joined["message"]
    config = json.loads((tmp_path / "model-both" / "config.json").read_text())
    assert config["onnx_max_difference"] < 1e-4
