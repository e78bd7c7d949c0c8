"""Backbones that ship, from the command line's arguments to predictions: found offline, tuned, exported, named in the lineage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graftwork
from graftwork.core.optional import has
from graftwork.nn.backbones import catalog
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.taps import blocks_of
from graftwork.serving.predict import Predictor


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny backbone that the catalogue takes for one that ships."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "contracts"))
    from tiny_shipped import ship_tiny

    found = ship_tiny(tmp_path / "weights")
    monkeypatch.setattr(catalog, "shipped_backbones", lambda: found)
    return "tiny-vit"


@pytest.mark.slow
@pytest.mark.skipif(not (has("onnxruntime") and has("PIL")), reason="needs the packages that read pictures and run models")
def test_a_run_starts_from_a_backbone_that_ships(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        backbone=f"{name}@32",
    )
    run = json.loads((out / "run.json").read_text())
    assert run["backbone"] == f"{name}@32"
    assert all(estimate["kept"] for estimate in run["estimates"].values())
    lineage = json.loads((out / "model" / "lineage.json").read_text())
    weights = json.loads((out / "result.json").read_text())["model"]["weights"]
    if "frozen-features" in weights:
        assert lineage["bases"] == {f"{name}@32": build_backbone(f"{name}@32").fingerprint()}
        assert "CC-BY-4.0" in json.dumps(lineage["licences"])
    assert len(Predictor(out, threads=1).predict(table)) == len(table)


def test_operators_that_work_on_blocks_take_it(name: str) -> None:
    backbone = blocks_of(build_backbone(name, dense=True), "This test")
    assert len(backbone.block_list()) == len(backbone.block_shapes()) == 2
    assert backbone.feature_shape.layout == "map"
