"""Several documents in one YAML file: each is merged once what it needs is there, and nothing of them stays but the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import hash_file
from graftwork.core.tensor_files import open_tensors
from graftwork.workflows.mergekit import merge_from_yaml

NUM_LAYERS = 4
# The result stands first, and what it needs behind it: the order in the file does not count.
CHAIN = """merge_method: task_arithmetic
base_model: base
models:
  - model: turned
    parameters: {weight: 0.5}
  - model: c
    parameters: {weight: [0.0, 1.0]}
---
name: turned
merge_method: slerp
base_model: mean
models: [{model: b}]
parameters: {t: 0.25}
---
name: mean
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 3}}]
dtype: float64
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("base", "a", "b", "c"):
        (tmp_path / name).mkdir()
        tensors = {f"layers.{number}.weight": generator.normal(size=(8, 4)).astype(np.float32) for number in range(NUM_LAYERS)}
        save_file({**tensors, "norm.weight": generator.normal(size=4).astype(np.float32)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({"num_hidden_layers": NUM_LAYERS, "dtype": "float32"}))
        (tmp_path / name / "tokenizer.json").write_text("{}")
    return tmp_path


def write(world: Path, text: str) -> Path:
    path = world / "merge.yml"
    path.write_text(text)
    return path


def tensors_of(world: Path, name: str) -> dict[str, np.ndarray]:
    return {key: values.astype(np.float64) for key, values in load_file(world / name / "model.safetensors").items()}


def slerp(first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
    one, two = first.reshape(-1), second.reshape(-1)
    angle = np.arccos(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
    return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)  # type: ignore[no-any-return]


def test_results_feed_other_documents(world: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = merge_from_yaml(
        write(world, CHAIN), world / "out" / "merged", on_progress=lambda done, total: seen.append((done, total))
    )
    base, a, b, c = (tensors_of(world, name) for name in ("base", "a", "b", "c"))
    merged = load_file(world / "out" / "merged" / "model.safetensors")
    assert merged.keys() == base.keys()
    for name in base:
        turned = slerp((a[name] + 3 * b[name]) / 4, b[name], 0.25)
        share = int(name.split(".")[1]) / (NUM_LAYERS - 1) if name.startswith("layers") else 0.0
        expected = base[name] + 0.5 * (turned - base[name]) + share * (c[name] - base[name])
        np.testing.assert_allclose(merged[name], expected, rtol=2e-5, atol=2e-5, err_msg=name)
        assert merged[name].dtype == np.float32
    assert len(seen) == 3 * len(base)
    assert report.num_models == 4
    assert sorted(os.listdir(world / "out")) == ["merged"], "results that others were made from are gone"
    assert json.loads((world / "out" / "merged" / "config.json").read_text())["dtype"] == "float32"
    assert (world / "out" / "merged" / "mergekit_config.yml").read_text() == CHAIN


def test_the_lineage_has_the_inputs_of_all_documents(world: Path) -> None:
    merge_from_yaml(write(world, CHAIN), world / "merged.safetensors")
    metadata = open_tensors(world / "merged.safetensors").metadata
    assert metadata["base"] == "base"
    assert json.loads(metadata["models"]) == ["a", "b", "c"]
    assert json.loads(metadata["inputs_sha256"]) == {
        f"{name}/model.safetensors": hash_file(world / name / "model.safetensors") for name in ("base", "a", "b", "c")
    }
    assert json.loads(metadata["method"]) == {
        "method": "task_arithmetic",
        "file": "merge.yml",
        "models": ["base", "turned", "c"],
        "documents": {
            "mean": {"method": "linear", "models": ["a", "b"]},
            "turned": {"method": "slerp", "models": ["mean", "b"]},
        },
    }


def test_layers_of_results_are_stacked(world: Path) -> None:
    text = """name: mean
merge_method: linear
models: [{model: a}, {model: b}]
parameters: {weight: 1}
---
merge_method: passthrough
slices:
  - sources: [{model: mean, layer_range: [0, 3]}]
  - sources: [{model: c, layer_range: [1, 4]}]
"""
    assert main(["merge", str(write(world, text)), "--out", str(world / "out"), "--shard-size", "300B", "--quiet"]) == 0
    found = open_tensors(world / "out")
    a, b, c = (tensors_of(world, name) for name in ("a", "b", "c"))
    for number in range(6):
        name = f"layers.{number}.weight"
        other = f"layers.{number - 2}.weight"
        expected = (a[name] + b[name]) / 2 if number < 3 else c[other]
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6)
    assert json.loads((world / "out" / "config.json").read_text())["num_hidden_layers"] == 6
    assert len(found.files()) > 1


def test_all_may_have_names_and_some_may_feed_nothing(world: Path) -> None:
    text = """name: left
merge_method: linear
models: [{model: a, parameters: {weight: 1}}]
---
name: last
merge_method: linear
models: [{model: c, parameters: {weight: 1}}]
---
"""
    report = merge_from_yaml(write(world, text), world / "out")
    assert report.notes == ("line 1: nothing needs the document 'left'; it is not merged.",)
    np.testing.assert_array_equal(
        load_file(world / "out" / "model.safetensors")["norm.weight"], tensors_of(world, "c")["norm.weight"]
    )
    # One document may be called as its model is.
    merge_from_yaml(write(world, "{name: a, merge_method: linear, models: [{model: a, parameters: {weight: 1}}]}"), world / "out")
    np.testing.assert_array_equal(
        load_file(world / "out" / "model.safetensors")["norm.weight"], tensors_of(world, "a")["norm.weight"]
    )


LINEAR = "merge_method: linear\nparameters: {weight: 1}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"name: one\n{LINEAR}models:\n- model: two\n---\nname: two\n{LINEAR}models:\n- model: a\n- model: one\n---\n{LINEAR}models: [{{model: two}}]",
            r"merge.yml, line 5: 'two' needs 'one' needs 'two'; a document cannot be made from its own result",
        ),
        (
            f"name: one\n{LINEAR}models:\n- model: one\n---\n{LINEAR}models:\n- model: one\n",
            "line 5: 'one' needs 'one'; a document",
        ),
        (
            f"name: first\n{LINEAR}models: [{{model: a}}]\n---\n{LINEAR}models:\n- model: frist\n",
            r"line 9: there is no model at frist, .*nor a document of this name\. Did you mean 'first'\?",
        ),
        (
            f"name: one\n{LINEAR}models: [{{model: a}}]\n---\nname: one\n{LINEAR}models: [{{model: b}}]\n",
            "line 6, name: another document is called 'one', in line 1",
        ),
        (
            f"{LINEAR}models: [{{model: a}}]\n---\n{LINEAR}models: [{{model: b}}]\n",
            "line 5, name: another document has no name either, in line 1",
        ),
        (f"name: [x]\n{LINEAR}models: [{{model: a}}]\n", "line 1, name: must be a name"),
        (
            f"name: one\n{LINEAR}models: [{{model: a}}]\n---\nmerge_method: tis\ndtype: int4\nmodels: [{{model: one}}]\n",
            "(?s)line 6, merge_method: unknown method 'tis'.*line 7, dtype: must be one of",
        ),
        (
            f"name: one\n{LINEAR}models: [{{model: a, parameters: {{weight: much}}}}]\n---\n{LINEAR}models: [{{model: one}}]\n",
            r"line 4, models\[0\].parameters.weight: must be a number; got 'much'",
        ),
    ],
)
def test_faults_have_lines_and_nothing_is_merged(text: str, message: str, world: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        merge_from_yaml(write(world, text), world / "out")
    assert not (world / "out").exists()


def test_what_does_not_fit_in_the_last_document_is_found_before_the_first_is_merged(world: Path) -> None:
    (world / "wide").mkdir()
    save_file(
        {**load_file(world / "a" / "model.safetensors"), "norm.weight": np.ones(5, np.float32)},
        world / "wide" / "model.safetensors",
    )
    seen: list[int] = []
    text = f"name: one\n{LINEAR}models: [{{model: a}}]\n---\n{LINEAR}models: [{{model: one}}, {{model: wide}}]\n"
    with pytest.raises(DataError, match=r"'norm.weight' is \[4\] in one, \[5\] in wide"):
        merge_from_yaml(write(world, text), world / "out", on_progress=lambda done, total: seen.append(done))
    assert not seen
    save_file({**load_file(world / "a" / "model.safetensors"), "ids": np.arange(4)}, world / "wide" / "model.safetensors")
    save_file({**load_file(world / "a" / "model.safetensors"), "ids": np.arange(4) + 1}, world / "a" / "model.safetensors")
    with pytest.raises(DataError, match="'ids' holds integers that differ between the models"):
        merge_from_yaml(write(world, text), world / "out")
    assert sorted(os.listdir(world)) == ["a", "b", "base", "c", "merge.yml", "wide"]


def test_a_killed_merge_leaves_nothing_that_the_next_one_does_not_remove(world: Path) -> None:
    code = (
        "import os, sys; from graftwork.workflows.mergekit import merge_from_yaml\n"
        "calls = []\n"
        "merge_from_yaml(sys.argv[1], sys.argv[2], on_progress=lambda *_: calls.append(1) or len(calls) == 13 and os.kill(os.getpid(), 9))"
    )
    (world / "place").mkdir()
    recipe, out = write(world, CHAIN), world / "place" / "out"
    assert subprocess.run([sys.executable, "-c", code, str(recipe), str(out)], check=False).returncode == -9
    left = [name for name in os.listdir(out.parent) if name.endswith(".tmp")]
    assert len(left) == 1, "results of documents wait beside the place of the last"
    assert os.listdir(out.parent / left[0]) == ["1"], "and go once nothing needs them"
    merge_from_yaml(recipe, out)
    assert os.listdir(out.parent) == ["out"]
    assert not [name for name in os.listdir(out) if name.endswith(".tmp")]


def test_the_current_folder_may_be_the_place(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write(world, CHAIN)
    (world / "place" / "here").mkdir(parents=True)
    monkeypatch.chdir(world / "place" / "here")
    merge_from_yaml(recipe, ".")
    assert os.listdir("..") == ["here"]
    assert "model.safetensors" in os.listdir(".")
    # A merge may be made from its own earlier result only if that is elsewhere.
    with pytest.raises(ConfigError, match="also an input"):
        recipe.write_text(
            "name: one\nmerge_method: passthrough\nmodels: [{model: .}]\n---\nmerge_method: passthrough\nmodels: [{model: one}]\n"
        )
        merge_from_yaml(recipe, ".")


def test_nothing_stays_of_a_merge_that_fails(world: Path) -> None:
    calls: list[int] = []

    def fail(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 8:
            raise RuntimeError("on the way")

    (world / "place").mkdir()
    with pytest.raises(RuntimeError, match="on the way"):
        merge_from_yaml(write(world, CHAIN), world / "place" / "out", on_progress=fail)
    assert not os.listdir(world / "place")
