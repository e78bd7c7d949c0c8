"""Sources with classes of their own: runs of graftwork judged by their predictions, and image models that transformers saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transferability_formulas as formulas
from test_rank import own_run, pictures

import graftwork as gw
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.training.model_loading import load_model
from graftwork.workflows.rank import rank_data
from graftwork.workflows.rank.loading import load_source
from graftwork.workflows.rank.seen_rows import telling_head
from graftwork.workflows.rank.sources import RankSource, find_sources, knows_rows
from graftwork.workflows.teachers.asking import open_teacher


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_own_runs_are_judged_by_what_they_predict(tmp_path: Path) -> None:
    suite = pictures()
    for seed in range(2):
        own_run(tmp_path / "runs" / f"run{seed}", suite, seed=seed)
    found = gw.rank(suite, sources="runs", draws=10, scores="leep,nce,logme", out=tmp_path / "out")
    for seed in range(2):
        source = next(row for row in found.result["sources"] if row["name"] == f"runs/run{seed}")
        assert source["has_classes"]
        assert source["classes_of"] == {}, "it has one task of classes"
        model = load_model(tmp_path / "runs" / f"run{seed}" / "model")[0]
        with torch.inference_mode():
            answers = model({"image": torch.from_numpy(np.array(suite.inputs["image"][:90]))})["level"].softmax(dim=1)
        labels = np.asarray(suite.targets["level"][:90])
        for name, formula in (("leep", formulas.leep), ("nce", formulas.nce)):
            wanted = formula(answers.numpy().astype(np.float64), labels)
            assert source["scores"]["level"][name]["value"] == pytest.approx(wanted, abs=1e-6)
        assert set(source["scores"]["bright"]) == {"logme"}, "a value has no classes"


def test_a_run_that_learned_from_the_data_is_named(tmp_path: Path) -> None:
    suite = pictures()
    folder = own_run(tmp_path / "mine", suite)
    [source] = [item for item in find_sources([str(folder)], ["image"])[0] if item.way == "run"]
    assert knows_rows(source, suite) == "", "no lineage"
    write_json(folder / "model" / "lineage.json", {"inputs": {"suite": "another"}})
    assert knows_rows(source, suite) == ""
    write_json(folder / "model" / "lineage.json", {"inputs": {"suite": suite.fingerprint()}})
    found = gw.rank(suite, sources="mine", targets="level", draws=10, scores="logme", out=tmp_path / "out")
    assert any("mine learned from this data" in note for note in found.result["notes"]) is False, (
        "one task of it is another suite"
    )
    whole = gw.rank(suite, sources="mine", draws=10, scores="logme", out=tmp_path / "out")
    assert any("mine learned from this data" in note for note in whole.result["notes"])


def test_the_task_that_says_most_answers_for_a_run_with_several() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=200)
    useless, useful = np.full((200, 2), 0.5), np.eye(3)[(labels + 1) % 3]
    answers = np.concatenate([useless, useful], axis=1).astype(np.float32)
    heads = {"weather": slice(0, 2), "turned": slice(2, 5)}
    assert telling_head(answers, heads, labels) == "turned"
    assert telling_head(answers, heads, np.full(200, -1)) == "weather", "nothing can be judged"
    assert telling_head(answers, {"only": slice(0, 5)}, labels) == "only"


def vit(folder: Path, **more: Any) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=32, patch_size=16, **more
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]})
    return folder


def resnet(folder: Path, *, base: bool = False) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=4)
    (transformers.ResNetModel if base else transformers.ResNetForImageClassification)(config).save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", {"size": {"shortest_edge": 32}})
    return folder


def test_image_models_that_transformers_saved_are_ranked_with_their_classes(tmp_path: Path) -> None:
    vit(tmp_path / "hub" / "vit", num_labels=5)
    resnet(tmp_path / "hub" / "resnet")
    resnet(tmp_path / "hub" / "trunk", base=True)
    found = gw.rank(pictures(), sources="hub,conv-mini", targets="level", draws=10, scores="leep,nce,logme", out=tmp_path / "out")
    assert found.result["passed_over"] == []
    rows = {row["name"]: row for row in found.result["sources"]}
    assert {"hub/vit", "hub/resnet", "hub/trunk", "conv-mini", "scratch"} == set(rows)
    assert (rows["hub/vit"]["width"], rows["hub/resnet"]["width"], rows["hub/trunk"]["width"]) == (16, 12, 12)
    assert {"leep", "nce", "logme"} == set(rows["hub/vit"]["scores"]["level"]) == set(rows["hub/resnet"]["scores"]["level"])
    assert set(rows["hub/trunk"]["scores"]["level"]) == {"logme"}


def test_features_and_classes_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    suite = pictures()
    images = torch.from_numpy(np.array(suite.inputs["image"][:6]))
    for folder, mean, std, size in (
        (vit(tmp_path / "vit", num_labels=5), [0.4, 0.5, 0.6], 0.2, 32),
        (resnet(tmp_path / "resnet"), [0.5, 0.5, 0.5], 0.5, 32),
    ):
        [source] = [item for item in find_sources([str(folder)], ["image"])[0] if not item.is_control]
        assert (source.way, source.kind) == ("transformers", "image")
        loaded = load_source(source, suite)
        whole = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
        pixels = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2) / 255.0, size=(size, size), mode="bilinear")
        with torch.inference_mode():
            wanted = whole((pixels - torch.tensor(mean).reshape(1, 3, 1, 1)) / std).logits.softmax(dim=1)
            features = loaded.backbone({"image": images}).numpy()
        assert loaded.probabilities is not None
        np.testing.assert_allclose(loaded.probabilities(features), wanted.numpy(), atol=1e-5)


def test_an_image_model_of_transformers_teaches(tmp_path: Path) -> None:
    suite = pictures()
    folder = str(vit(tmp_path / "vit", num_labels=5))
    network = open_teacher(folder, suite, seed=0).network
    assert network is not None
    # The second block: how versions of transformers call it differs.
    path = next(name for name, _ in network.named_modules() if name.endswith(".1"))
    said = open_teacher(folder, suite, taps=[path], seed=0).ask(np.arange(4))
    assert said["classes"].shape == (4, 5)
    assert said["features"].shape == said[f"vectors/{path}"].shape == (4, 16)
    assert said[f"maps/{path}"].shape[0] == 4


def test_texts_stay_texts_and_damage_is_named(tmp_path: Path) -> None:
    folder = vit(tmp_path / "vit", num_labels=5)
    assert [item.kind for item in find_sources([str(folder)], ["image"])[0]] == ["image", "image"]
    write_json(tmp_path / "bert" / "config.json", {"model_type": "bert", "vocab_size": 9, "patch_size": 2})
    assert [item.kind for item in find_sources([str(tmp_path / "bert")], ["text"])[0]] == ["text", "text"]
    with pytest.raises(ConfigError, match="reads image data"):
        find_sources([str(folder)], ["text"])
    source = RankSource("vit", "transformers", "image", str(folder))
    write_json(folder / "preprocessor_config.json", {"image_std": [0.2, 0.0, 0.2]})
    with pytest.raises(FileFormatError, match=r"image_std is \[0.2, 0.0, 0.2\]"):
        load_source(source, pictures())
    write_json(folder / "preprocessor_config.json", {})
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "image_size": "large"})
    with pytest.raises(FileFormatError, match="the size of pictures is 'large'"):
        load_source(source, pictures())
    write_json(folder / "config.json", {**config, "hidden_size": 32})
    with pytest.raises((ConfigError, FileFormatError), match="vit"):
        load_source(source, pictures())


def test_a_folder_called_like_the_demo_is_not_ranked_on(tmp_path: Path) -> None:
    (tmp_path / "emoji").mkdir()
    with pytest.raises(ConfigError, match=r"No data was named.*graftwork rank \./emoji"):
        gw.rank()
    with pytest.raises(ConfigError, match=r"No data was named.*graftwork rank \./emoji"):
        rank_data(data="sources.csv")
    assert not (tmp_path / "runs").exists()


def test_a_run_whose_model_has_no_features_is_told_what_can_teach(tmp_path: Path) -> None:
    """Linear models, trees and averages; and finalists that were not chosen, which are kept as graphs alone."""
    suite = pictures()
    folder = own_run(tmp_path / "mine", suite)
    (folder / "model" / "model.safetensors").unlink()
    config = read_json(folder / "model" / "config.json")
    remedy = "graftwork predict mine DATA --probabilities --out teacher.csv"
    with pytest.raises(ConfigError, match=f"mine holds the graph of its model and no model.safetensors.*{remedy}"):
        find_sources(["mine"], ["image"])
    with pytest.raises(ConfigError, match="The model of mine is 'linear', which is no network"):
        write_json(folder / "model" / "config.json", {**config, "format": "graftwork-linear-1", "plan": {"name": "linear"}})
        open_teacher("mine", suite)
    own_run(tmp_path / "runs" / "net", suite)
    folder.rename(tmp_path / "runs" / "line")
    found, passed = find_sources(["runs"], ["image"])
    assert [source.name for source in found if not source.is_control] == ["runs/net"]
    assert [item["name"] for item in passed] == ["runs/line"]
    assert "no network" in passed[0]["reason"]


@pytest.mark.parametrize("config", [{"architecture": "resnet18"}, {"model_type": "vit", "image_size": 8}])
def test_a_model_with_pickled_weights_is_told_how_to_save_it(config: dict[str, Any], tmp_path: Path) -> None:
    """timm's save_for_hf writes pickles by default: "save it again" would change nothing."""
    (tmp_path / "net").mkdir()
    write_json(tmp_path / "net" / "config.json", config)
    (tmp_path / "net" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(
        ConfigError, match=r"net holds no model.safetensors.* pytorch_model.bin is pickled.*safe_serialization=True"
    ):
        find_sources(["net"], ["image"])
