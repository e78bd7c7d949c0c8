"""A plan of two stages, trained separately and then merged, through its whole life: race, kill, resume, predict, export, serve."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

import graftwork
from graftwork.core.records import Component, Plan
from graftwork.core.stages.merge import MergeStage
from graftwork.core.stages.train import TrainStage
from graftwork.serving.app import create_app
from graftwork.serving.engine import Engine
from graftwork.training.model_loading import load_model
from graftwork.workflows.fit import FitRun
from graftwork.workflows.portfolio import load_catalogue

from .progress_kills import jobs_done, killed_after  # type: ignore[import-not-found]
from .test_kill_and_resume import differences, result_of  # type: ignore[import-not-found]

TIES = Component("graftwork.methods.merging.ties:TiesMerger", {"density": 0.6})
MERGED = Plan(
    name="merged-table",
    title="Trained for each task separately from one start, then merged",
    role="joint",
    modalities=("table",),
    stages=(TrainStage(), MergeStage(merger=TIES)),
)
IDLE = Plan(
    name="idle",
    title="A reference that hardly learns, so that the other plan is chosen",
    role="reference",
    modalities=("table",),
    stages=(
        TrainStage(
            sharing=Component("graftwork.methods.sharing.separate:Separate"), training={"learning_rate": 1e-9, "ema_decay": 0.0}
        ),
    ),
)


def table(rows: int = 160) -> pd.DataFrame:
    draw = np.random.default_rng(5)
    x = draw.normal(size=(rows, 4))
    signal_ = x[:, 0] + 0.5 * x[:, 1]
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["price"] = 10 + 3 * signal_ + 0.3 * draw.normal(size=rows)
    frame["late"] = np.where(signal_ + 0.3 * draw.normal(size=rows) > 0, "yes", "no")
    return frame


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FitRun:
    out = tmp_path_factory.mktemp("merged") / "run"
    plans: list[str | Plan] = ["none", IDLE, MERGED]
    return graftwork.fit(
        table(), targets="price,late", plans=plans, out=out, steps=32, seeds=2, workers=0, backbone="none", single=True
    )


async def ask(folder: Path, rows: list[dict[str, Any]]) -> Any:
    """Ask the server, without a network."""
    engine = Engine(folder, threads=1)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(engine)), base_url="http://server") as client:
            return (await client.post("/predict", json={"rows": rows})).json()
    finally:
        engine.close()


def test_it_races_and_is_chosen(run: FitRun) -> None:
    assert run.choice == "merged-table"
    rows = [row for row in run.result["race"] if row["plan"] == "merged-table"]
    assert {(row["rung"], row["steps"], row["status"]) for row in rows} == {(0, 8, "ok"), (1, 16, "ok"), (2, 32, "ok")}
    assert {entry["task"] for entry in run.result["controls"]} == {"price", "late"}
    ledger = run.result["plans"]["merged-table"]["ledger"]
    assert ledger["steps"] == 32
    assert ledger["parameters_stored"] < ledger["parameters_trained"]
    assert "merged-table" in run.report.read_text(encoding="utf-8")


def test_it_predicts_and_is_served_as_it_was_judged(run: FitRun) -> None:
    frame = table()
    found = run.predict(frame)
    assert np.corrcoef(found["price"], frame["price"])[0, 1] > 0.5
    rows = frame[list("abcd")].head(3).to_dict("records")
    served = asyncio.run(ask(run.folder, rows))["predictions"]
    assert [row["price"]["value"] for row in served] == pytest.approx(found["price"].head(3).tolist(), rel=1e-4)
    assert [row["late"]["value"] for row in served] == found["late"].head(3).tolist()
    model, tasks, config = load_model(run.folder / "model")
    assert [task.name for task in tasks] == ["price", "late"]
    assert Plan.from_json(config["plan"]) == MERGED
    assert (
        sum(parameter.numel() for parameter in model.parameters())
        == (run.result["plans"]["merged-table"]["ledger"]["parameters_stored"])
    )


def test_its_plans_are_in_the_catalogue_by_name() -> None:
    plans = {name: entry for name, entry in load_catalogue().items() if name.startswith("merged")}
    assert set(plans) == {"merged", "merged-average"}
    for entry in plans.values():
        assert [stage.kind for stage in entry.plan.stages] == ["train", "merge"]
        assert (entry.plan.source, entry.default) == ("pretrained", ())


def start(data: Path, out: Path, plans: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "graftwork.cli.main", "fit", str(data), "--targets", "price,late", "--steps", "16"]
    words += ["--seeds", "1", "--plans", f"separate,{plans}", "--out", str(out), "--workers", "1", "--checkpoint-seconds", "0.2"]
    words += ["--single"]
    log = open(out.with_suffix(".txt"), "ab")  # noqa: SIM115
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*words, "--resume"], stdout=log, stderr=log, env=environment, start_new_session=True)


@pytest.mark.slow
def test_kills_change_nothing(tmp_path: Path) -> None:
    data, plans = tmp_path / "small.csv", tmp_path / "merged.toml"
    table().to_csv(data, index=False)
    stages = f'[{{ kind = "train" }}, {{ kind = "merge", merger = {{ path = "{TIES.path}", settings = {{ density = 0.6 }} }} }}]'
    plans.write_text(f'[[plans]]\nname = "merged-table"\ntitle = ""\nrole = "joint"\nmodalities = ["table"]\nstages = {stages}\n')
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(data, whole, plans).wait(timeout=900) == 0, (tmp_path / "whole.txt").read_text()
    jobs = jobs_done(whole)
    # Once: test_stages stops such jobs at every step, and test_kill_and_resume kills at every moment.
    assert killed_after(start(data, killed, plans), killed, jobs // 2), (tmp_path / "killed.txt").read_text()[-3000:]
    process = start(data, killed, plans)
    process.wait(timeout=900)
    assert process.returncode == 0, (tmp_path / "killed.txt").read_text()[-3000:]
    assert differences(result_of(killed), result_of(whole)) == []
