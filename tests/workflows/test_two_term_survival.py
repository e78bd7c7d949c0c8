"""Two-term survival in the race: rows with a table, a text and a picture, a time until an event, from the suite to predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import graftwork
from graftwork.data.suites.creatives import EDGES, creatives
from graftwork.serving.predict import Predictor


@pytest.mark.slow
def test_the_plan_of_the_card_races_and_its_model_predicts(tmp_path: Path) -> None:
    suite = creatives(rows=240, test_rows=60, seed=1)
    out = tmp_path / "run"
    graftwork.fit(suite, out=out, steps=16, seeds=1, workers=0, plans="ad-survival")
    result = json.loads((out / "result.json").read_text())
    assert {"separate", "ad-survival"} <= set(result["plans"])
    config = json.loads((out / "model" / "config.json").read_text())
    assert set(config["input_specs"]) == {"table", "text", "image"}
    assert (out / "model.onnx").exists()
    curve = Predictor(out, threads=1).run_arrays(suite.inputs)["life"]
    assert curve.shape == (300, len(EDGES))
    assert (np.diff(curve, axis=1) <= 1e-6).all(), "survival falls along a row, over the threshold, too"
