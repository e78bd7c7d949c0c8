"""Series from raw rows to a trained forecaster that predicts and is served."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.records import TaskSpec
from graftwork.data.encoders.series import SeriesEncoder
from graftwork.data.store import load_suite, save_suite
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import LearnerContext
from graftwork.serving.app import create_app
from graftwork.serving.describing import describe
from graftwork.serving.engine import Engine
from graftwork.serving.limits import ServeLimits
from graftwork.serving.predict import Predictor
from graftwork.training.learner import NeuralLearner

STEPS, HORIZON = 24, 6
SETTINGS = {"patch": 4, "levels": 2, "layers": 1, "width": 16, "decoder_width": 8, "dropout": 0.0}


def wave(rows: int) -> np.ndarray:
    """Two channels: a wave of period 6 around 500, and the same one step later around -3."""
    start = np.random.default_rng(0).integers(0, 6, size=(rows, 1))
    steps = np.arange(STEPS + HORIZON) + start
    return np.stack([500.0 + 40.0 * np.sin(np.pi / 3 * steps), -3.0 + np.sin(np.pi / 3 * (steps - 1))], axis=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, values = tmp_path_factory.mktemp("series"), wave(80)
    encoder = SeriesEncoder.fit(values[:60, :STEPS], interval=3600.0)
    target = np.moveaxis(values[:, STEPS:], 2, 1).reshape(80, -1).astype(np.float32)
    suite = Suite.of_arrays(
        name="waves",
        input_specs={"series": encoder.spec(horizon=HORIZON)},
        tasks=[TaskSpec(name="next", kind="regression", size=2 * HORIZON)],
        inputs=encoder.transform(values[:, :STEPS]),
        targets={"next": target},
        splits={"train": np.arange(60), "val": np.arange(60, 70), "test": np.arange(70, 80)},
    )
    suite = load_suite(save_suite(suite, folder / "suite"))
    plan = card_plan("ttm", "ttm").with_train(sharing=Component("graftwork.domains.timeseries.ttm:TTM", SETTINGS))
    learner = NeuralLearner(
        LearnerContext(plan=plan, suite=suite, seed=0, max_steps=150, cache=folder / "cache", overrides={"learning_rate": 5e-3})
    )
    learner.train(150)
    learner.export(folder / "model")
    return folder


def test_raw_series_are_forecast(run: Path) -> None:
    values = wave(12)
    raw: list[Any] = values[:, :STEPS].tolist()
    raw[0][3] = [None, None]
    predictor = Predictor(run, threads=1)
    found = predictor.predict(raw).to_numpy().reshape(12, 2, HORIZON)
    truth = np.moveaxis(values[:, STEPS:], 2, 1)
    assert (np.abs(found - truth).mean(axis=(0, 2)) < 0.3 * truth.std(axis=(0, 2))).all()
    arrays = predictor.predict(values[:, :STEPS]).to_numpy().reshape(12, 2, HORIZON)
    np.testing.assert_allclose(arrays[1:], found[1:], rtol=1e-4, atol=1e-3)


def test_series_are_served(run: Path) -> None:
    values = wave(3)[:, :STEPS]
    engine = Engine(run, limits=ServeLimits(max_wait_ms=0), threads=1)

    async def ask(content: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/predict", json=content)

    answer = asyncio.run(ask({"series": values.tolist()}))
    assert answer.status_code == 200, answer.text
    table = pd.DataFrame(Predictor(run, threads=1).predict(values))
    rows = [list(row["next"]["values"].values()) for row in answer.json()["predictions"]]
    np.testing.assert_allclose(rows, table.to_numpy(), rtol=1e-4, atol=1e-3)
    wrong = asyncio.run(ask({"series": [[1, 2]]}))
    assert wrong.status_code == 422
    assert "a list of 2 numbers for each step" in wrong.text
    assert describe(engine)["keys"] == ["series"]
