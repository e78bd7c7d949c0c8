"""Backbones that ship, from the command line's arguments to predictions: found offline, tuned, exported, named in the lineage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graftwork
from graftwork.core.optional import has
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.shipped import shipped_backbones
from graftwork.nn.taps import blocks_of
from graftwork.serving.predict import Predictor

NAME = sorted(shipped_backbones())[-1]


@pytest.mark.slow
@pytest.mark.skipif(not (has("onnxruntime") and has("PIL")), reason="needs the packages that read pictures and run models")
def test_a_run_starts_from_a_backbone_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    random = np.random.default_rng(0)
    rows = []
    for number in range(48):
        red = number % 2
        picture = random.integers(0, 120, size=(32, 32, 3), dtype=np.uint8)
        picture[:, :, 0] += np.uint8(120 * red)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        rows.append({"picture": str(tmp_path / f"{number}.png"), "red": ["no", "yes"][red], "light": float(picture.mean())})
    table, out = pd.DataFrame(rows), tmp_path / "run"
    graftwork.fit(
        table,
        targets="red,light",
        image_column="picture",
        image_size=32,
        out=out,
        steps=4,
        seeds=1,
        workers=0,
        plans="frozen-features",
        backbone=f"{NAME}@32",
    )
    run = json.loads((out / "run.json").read_text())
    assert run["backbone"] == f"{NAME}@32"
    assert all(estimate["kept"] for estimate in run["estimates"].values())
    lineage = json.loads((out / "model" / "lineage.json").read_text())
    weights = json.loads((out / "result.json").read_text())["model"]["weights"]
    if "frozen-features" in weights:
        assert lineage["bases"] == {f"{NAME}@32": build_backbone(f"{NAME}@32").fingerprint()}
        assert shipped_backbones()[NAME].description["licence"] in json.dumps(lineage["licences"])
    assert len(Predictor(out, threads=1).predict(table)) == len(table)


@pytest.mark.parametrize("name", sorted(shipped_backbones()))
def test_operators_that_work_on_blocks_take_it(name: str) -> None:
    backbone = blocks_of(build_backbone(name, dense=True), "This test")
    assert len(backbone.block_list()) == len(backbone.block_shapes()) >= 6
    assert backbone.feature_shape.layout == "map"
