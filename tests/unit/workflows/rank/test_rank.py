"""Rank from data to report: sources by name and folder, controls, what is passed over, and what the result holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

import graftwork as gw
from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import write_json
from graftwork.core.input_spec import image_input, write_input_specs
from graftwork.core.plan import Plan
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.export.model_folder import FORMAT
from graftwork.training.assembly import assemble
from graftwork.workflows.rank.score_names import SCORES, chosen_scores
from graftwork.workflows.rank.sources import find_sources


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def pictures(rows: int = 120) -> Suite:
    """Bright or dark squares; how bright they are is a value, and one task has an answer a pixel."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=rows)
    images = np.clip(40 + 80 * labels[:, None, None, None] + random.normal(scale=25, size=(rows, 12, 12, 3)), 0, 255)
    targets: dict[str, Any] = {
        "level": labels,
        "bright": images.mean(axis=(1, 2, 3), keepdims=False)[:, None].astype(np.float32),
        "mask": np.zeros((rows, 12, 12), dtype=np.int64),
    }
    return Suite.of_arrays(
        name="squares",
        input_specs=image_input(12),
        tasks=[
            TaskSpec(name="level", kind="multiclass", size=3, classes=("low", "middle", "high")),
            TaskSpec(name="bright", kind="regression", size=1),
            TaskSpec(name="mask", kind="binary", size=1, positions="pixels"),
        ],
        inputs={"image": images.astype(np.uint8)},
        targets=targets,
        splits={"train": np.arange(90), "val": np.arange(90, 100), "test": np.arange(100, rows)},
    )


def own_run(folder: Path, suite: Suite, seed: int = 0) -> Path:
    """A run folder with a model of the suite's first task, as far as ``rank`` reads it."""
    torch.manual_seed(seed)
    plan = Plan(name="shared-trunk", title="One trunk", role="joint", modalities=("any",))
    model = assemble(plan, suite.tasks[:1], suite.input_specs).model
    (folder / "model").mkdir(parents=True)
    safetensors.torch.save_file(
        {key: tensor.contiguous() for key, tensor in model.state_dict().items()}, folder / "model" / "model.safetensors"
    )
    config = {
        "format": FORMAT,
        "plan": plan.to_json(),
        "tasks": [suite.tasks[0].to_json()],
        "backbone": "",
        "stored_features": False,
        "input_specs": write_input_specs(suite.input_specs),
    }
    write_json(folder / "model" / "config.json", config)
    return folder


def test_own_runs_are_ranked_beside_an_untrained_trunk(tmp_path: Path) -> None:
    suite = pictures()
    own_run(tmp_path / "runs" / "first", suite)
    own_run(tmp_path / "runs" / "second", suite, seed=1)
    broken = tmp_path / "runs" / "third"
    own_run(broken, suite, seed=2)
    (broken / "model" / "model.safetensors").write_bytes(b"no weights")
    events: list[Any] = []
    found = gw.rank(suite, sources="runs", draws=10, out=tmp_path / "out", on_event=events.append)
    names = {source["name"]: source for source in found.result["sources"]}
    assert set(names) == {"runs/first", "runs/second", "scratch"}
    assert names["scratch"]["control"]
    assert found.best in ("runs/first", "runs/second")
    assert [item["name"] for item in found.result["passed_over"]] == ["runs/third"]
    cells = names["runs/first"]["scores"]
    assert set(cells) == {"level", "bright"}
    assert set(cells["level"]) == {"logme", "hscore", "leep", "knn", "probe"}, "its predictions are classes of its own"
    assert set(cells["bright"]) == {"logme", "knn", "probe"}
    assert all(cell["low"] <= cell["value"] <= cell["high"] for task in cells.values() for cell in task.values())
    assert cells["level"]["probe"]["value"] > 0.8
    assert any("mask" in note for note in found.result["notes"])
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert stored["format"] == "graftwork-rank-1"
    assert stored["verdict"]["sentences"] == list(found.sentences)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "rank-costs" in page
    assert found.sentences[0].split("`")[1] in page
    assert {"rows", "features", "source", "passed_over"} <= {event["event"] for event in events}
    assert set(found.table()["task"]) == {"level", "bright"}
    assert found.best in found.summary(100)

    again = gw.rank(suite, sources=["runs/first", "runs/second"], draws=10, out=tmp_path / "out")  # features come from the store
    for source in again.result["sources"]:
        assert source["scores"] == names[source["name"]]["scores"]
        assert source["standing"] == names[source["name"]]["standing"]


@pytest.mark.parametrize("key", ["tasks", "plan", "backbone", "stored_features"])
def test_a_damaged_run_is_passed_over_with_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    suite = pictures()
    folder = own_run(tmp_path / "mine", suite)
    config = json.loads((folder / "model" / "config.json").read_text())
    del config[key]
    write_json(folder / "model" / "config.json", config)
    with pytest.raises(ConfigError, match=rf"(?s)No source could be judged.*mine.*config\.json is damaged: {key} is missing"):
        gw.rank(suite, sources=str(folder), draws=10, out=tmp_path / "out")


def test_a_run_names_no_backbone_elsewhere_unless_the_user_does_too(tmp_path: Path) -> None:
    suite = pictures()
    folder = own_run(tmp_path / "mine", suite)
    config = json.loads((folder / "model" / "config.json").read_text())
    stages = [{**stage, "tuning": None} for stage in config["plan"]["stages"]]
    config |= {"backbone": "hf:/models/other", "plan": {**config["plan"], "source": "pretrained", "stages": stages}}
    write_json(folder / "model" / "config.json", config)
    with pytest.raises(ConfigError, match=r"names the backbone 'hf:/models/other', a folder elsewhere.*--sources"):
        gw.rank(suite, sources=str(folder), draws=10, out=tmp_path / "out")

    [source] = [item for item in find_sources([str(folder)], ["image"])[0] if item.way == "run"]
    assert source.given == (str(folder),)


def test_what_a_killed_ranking_left_is_swept(tmp_path: Path) -> None:
    suite = pictures()
    folder = own_run(tmp_path / "mine", suite)
    gw.rank(suite, sources=str(folder), draws=10, out=tmp_path / "out")
    left = tmp_path / "out" / ".result.json.graftwork-abcdefgh.tmp"
    left.write_text("{")
    gw.rank(suite, sources=str(folder), draws=10, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "result.json"]


def test_models_that_timm_saved_are_found_and_bring_their_classes(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    folder = tmp_path / "resnet"
    folder.mkdir()
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {
        "input_size": [3, 32, 32],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    write_json(folder / "config.json", {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": cfg})
    found = gw.rank(
        pictures(), sources=str(folder), targets="level", rows=40, draws=10, scores="leep,nce,logme", out=tmp_path / "out"
    )
    source = next(row for row in found.result["sources"] if not row["control"])
    assert source["has_classes"]
    assert set(source["scores"]["level"]) == {"leep", "nce", "logme"}
    assert found.result["columns"] == [["level", "logme"]]
    assert any("LEEP, NCE: shown" in note for note in found.result["notes"])
    assert found.result["suite"]["judged_rows"] == 40


def test_the_command_ranks_runs_on_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(200, 3)).round(3), columns=["a", "b", "c"])
    frame["label"] = np.where(frame["a"] + frame["b"] > 0, "yes", "no")
    frame.to_csv("rows.csv", index=False)
    suite = gw.open_suite("rows.csv", targets="label")
    own_run(tmp_path / "mine", suite)
    # Another order of columns gets another encoder; the run's own one reads the raw rows.
    frame[["c", "label", "b", "a"]].assign(extra=1.5 * frame["c"]).to_csv("more.csv", index=False)
    assert main(["rank", "more.csv", "--targets", "label", "--sources", "mine", "--draws", "10", "--out", "r", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in told["sources"]} == {"mine", "scratch"}
    assert main(["rank", "rows.csv", "--targets", "label", "--sources", "mine", "--draws", "10", "--out", "r", "--quiet"]) == 0
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sources", "nothing"], "no backbone 'nothing'"),
        (["--sources", "some/folder"], "no folder some/folder"),
        (["--sources", "minilm"], "reads text data"),
        (["--sources", "empty"], "holds no model"),
        (["--scores", "logmi"], "Did you mean"),
        (["--scores", ","], "names no score"),
        (["--rows", "few"], "--rows is a number"),
        (["--rows", "3"], "at least 10"),
        (["--draws", "2"], "at least 10"),
        (["--out", "taken"], "taken"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_computed(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pd.DataFrame({"a": [1.5, 2.0, 3.0, 1.0, 7.0] * 10, "b": [0.0, 4.0] * 25, "label": [0, 1, 1, 0, 0] * 10}).to_csv(
        "rows.csv", index=False
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    assert main(["rank", "rows.csv", "--targets", "label", *words]) == 2
    assert message in capsys.readouterr().err


def test_kinds_without_a_pretrained_backbone_say_what_to_name() -> None:
    with pytest.raises(ConfigError, match="own runs with --sources"):
        find_sources("all", ["table"])


def test_all_finds_what_is_installed_and_names_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found, passed = find_sources("all", ["image"])
    known = {source.name for source in found} | {item["name"] for item in passed}
    assert "efficientnet_lite0" in known
    assert found[-1].is_control
    named, _ = find_sources("efficientnet_lite0@64,efficientnet_lite0@96", ["image"])
    assert [source.name for source in named] == ["efficientnet_lite0@64", "efficientnet_lite0@96", "scratch"]


def test_scores_are_named_once() -> None:
    assert chosen_scores("all") == list(SCORES)
    assert chosen_scores("knn, logme,knn") == ["knn", "logme"]


def test_suites_that_no_score_reads_are_refused() -> None:
    with pytest.raises(DataError, match="can be scored"):
        gw.rank(pictures(), targets="mask", sources="efficientnet_lite0")


def test_sets_are_chosen_of_sources_with_classes(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    for seed in range(3):
        torch.manual_seed(seed)
        model = timm.create_model("test_resnet", pretrained=False, num_classes=5 + seed)
        folder = tmp_path / "pool" / f"resnet{seed}"
        folder.mkdir(parents=True)
        safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
        cfg = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0, "interpolation": "bilinear"}
        write_json(folder / "config.json", {"architecture": "test_resnet", "num_classes": 5 + seed, "pretrained_cfg": cfg})
    found = gw.rank(
        pictures(), sources="pool", targets="level", rows=40, draws=10, scores="logme", set_size=2, out=tmp_path / "out"
    )
    sets = {row["score"]: row for row in found.result["sets"]}
    assert set(sets) == {"osborn", "e-leep"}
    for row in sets.values():
        assert len(set(row["members"])) == 2
        assert set(row["members"]) <= {f"pool/resnet{seed}" for seed in range(3)}
        assert 0.0 <= row["same"] <= 1.0
    assert "Sets of sources" in (tmp_path / "out" / "report.html").read_text()
    few = gw.rank(
        pictures(), sources="pool/resnet0", targets="level", rows=40, draws=10, scores="logme", set_size=2, out=tmp_path / "few"
    )
    assert few.result["sets"] == []
    assert any("Sets of 2 need" in note for note in few.result["notes"])
    with pytest.raises(ConfigError, match="at least 2 sources"):
        gw.rank(pictures(), sources="pool", set_size=1, out=tmp_path / "one")
