"""The folder of a YAML merge: what is the user's stays, what a kill left is swept, and no link leads out of a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from graftwork.core.errors import ConfigError
from graftwork.workflows.merge_folder import MERGE_KIND
from graftwork.workflows.mergekit import merge_from_yaml

TEXT = "{merge_method: linear, models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 3}}]}"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for name, value in (("a", 0.0), ("b", 4.0)):
        (tmp_path / name).mkdir()
        tensors = {f"layers.{number}.weight": np.full((64, 64), value + number, np.float32) for number in range(6)}
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({"num_hidden_layers": 6}))
        (tmp_path / name / "tokenizer.json").write_text("{}")
    path = tmp_path / "merge.yml"
    path.write_text(TEXT)
    return path


def test_a_killed_merge_is_swept_and_done_again(recipe: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from graftwork.workflows.mergekit import merge_from_yaml\n"
        "merge_from_yaml(sys.argv[1], sys.argv[2], on_progress=lambda done, total: done == 3 and os.kill(os.getpid(), 9))"
    )
    out = tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", code, str(recipe), str(out)], check=False).returncode == -9
    (left,) = [name for name in os.listdir(out) if name.endswith(".tmp")]
    assert json.loads((out / MERGE_KIND.marker).read_text())["state"] == "writing"
    report = merge_from_yaml(recipe, out)
    assert any(left in note for note in report.notes)
    assert sorted(os.listdir(out)) == [
        "config.json",
        MERGE_KIND.marker,
        "mergekit_config.yml",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert json.loads((out / MERGE_KIND.marker).read_text())["state"] == "whole"
    assert load_file(out / "model.safetensors")["layers.2.weight"] == pytest.approx(5.0)


def test_a_folder_that_mergekit_made_is_the_users(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "theirs"
    out.mkdir()
    for name in ("mergekit_config.yml", "model.safetensors"):
        (out / name).write_text("theirs")
    with pytest.raises(ConfigError, match="not empty and is not a merge of graftwork"):
        merge_from_yaml(recipe, out)
    assert {name: (out / name).read_text() for name in os.listdir(out)} == dict.fromkeys(
        ("mergekit_config.yml", "model.safetensors"), "theirs"
    )


def test_files_of_an_earlier_merge_go_and_those_of_the_user_stay(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "vocab.txt").write_text("one")
    merge_from_yaml(recipe, tmp_path / "out")
    assert (tmp_path / "out" / "vocab.txt").read_text() == "one"
    (tmp_path / "a" / "vocab.txt").unlink()
    (tmp_path / "out" / "README.md").write_text("mine")
    marker = tmp_path / "out" / MERGE_KIND.marker
    # A marker that came from elsewhere cannot name the user's files.
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps({**content, "files": [*content["files"], "README.md", "../merge.yml", "../a/config.json"]}))
    merge_from_yaml(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "vocab.txt").exists()
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    assert recipe.exists()
    assert (tmp_path / "a" / "config.json").exists()


def test_nothing_stays_of_a_merge_that_fails(recipe: Path, tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        merge_from_yaml(recipe, tmp_path / "out", on_progress=fail)
    assert not (tmp_path / "out").exists()
    # What was there before stays.
    merge_from_yaml(recipe, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in os.listdir(tmp_path / "out") if name != MERGE_KIND.marker}
    with pytest.raises(RuntimeError, match="on the way"):
        merge_from_yaml(recipe, tmp_path / "out", on_progress=fail)
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in before}


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "generation_config.json", "vocab.txt"])
def test_a_link_out_of_the_model_is_refused_before_anything_is_written(name: str, recipe: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "secret"}')
    (tmp_path / "a" / name).unlink(missing_ok=True)
    (tmp_path / "a" / name).symlink_to(secret)
    with pytest.raises(ConfigError, match=f"{name} is a link to .*secret.json, outside of the model's folder"):
        merge_from_yaml(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_of_a_download_cache_are_followed(recipe: Path, tmp_path: Path) -> None:
    home = tmp_path / "models--org--a" / "snapshots" / "0123"
    (home.parent.parent / "blobs").mkdir(parents=True)
    home.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / "a" / name).rename(home.parent.parent / "blobs" / name)
        (home / name).symlink_to(Path("../../blobs") / name)
    recipe.write_text(TEXT.replace("model: a,", f"model: {home},"))
    merge_from_yaml(recipe, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    # The cache of another model is elsewhere.
    other = tmp_path / "models--org--b" / "blobs" / "x"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    (home / "tokenizer.json").unlink()
    (home / "tokenizer.json").symlink_to(other)
    with pytest.raises(ConfigError, match="outside of the model's folder"):
        merge_from_yaml(recipe, tmp_path / "again")
