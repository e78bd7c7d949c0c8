"""A folder as the result of a merge by flags: the numbers of a file, and a model that transformers loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError
from graftwork.core.tensor_files import open_tensors
from graftwork.workflows.merge import merge
from graftwork.workflows.merge_folder import MERGE_KIND
from graftwork.workflows.mergekit import merge_from_yaml

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "red": 1, "blue": 2}, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    for number, name in enumerate(("base", "a", "b")):
        torch.manual_seed(number)
        config = transformers.LlamaConfig(vocab_size=20, max_position_embeddings=8 + number, **sizes)
        transformers.LlamaForCausalLM(config).save_pretrained(root / name)
        transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>").save_pretrained(root / name)
    return root


@pytest.mark.parametrize("shard_size", [None, 4_000])
@pytest.mark.parametrize("method", ["ties", "task-arithmetic", "dare", "slerp"])
def test_it_has_the_numbers_of_a_file(method: str, shard_size: int | None, world: Path, tmp_path: Path) -> None:
    settings = {"t": 0.3} if method == "slerp" else {}
    call: dict[str, Any] = {"method": method, "settings": settings}
    merge(world / "base", [world / "a", world / "b"], tmp_path / "m.safetensors", **call)
    report = merge(world / "base", [world / "a", world / "b"], tmp_path / "out", shard_size=shard_size, **call)
    assert report.path == tmp_path / "out"
    assert report.notes == ()
    expected, found = load_file(tmp_path / "m.safetensors"), open_tensors(tmp_path / "out")
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert len(found.files()) == (
        1 if shard_size is None else len([name for name in os.listdir(tmp_path / "out") if name.startswith("model-")])
    )
    assert (len(found.files()) > 1) == (shard_size is not None)
    assert found.metadata["inputs_sha256"] == open_tensors(tmp_path / "m.safetensors").metadata["inputs_sha256"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name], err_msg=name)
    assert model.config.max_position_embeddings == 8, "the configuration is that of the base"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("red blue")["input_ids"] == [1, 2]


def test_ties_at_the_threshold_are_written_into_the_right_shard(tmp_path: Path) -> None:
    """Of equal changes at the threshold the method knows only after the last tensor which are kept."""
    from safetensors.numpy import save_file

    for number in range(3):
        (tmp_path / str(number)).mkdir()
        tensors = {name: np.full((4, 4), 0.5 * number, np.float32) for name in ("w.0", "w.1", "w.2")}
        save_file(tensors, tmp_path / str(number) / "model.safetensors")
    paths = [tmp_path / str(number) for number in range(3)]
    merge(paths[0], paths[1:], tmp_path / "m.safetensors", method="ties", density=0.3)
    report = merge(paths[0], paths[1:], tmp_path / "out", method="ties", density=0.3, shard_size=64)
    found, expected = open_tensors(tmp_path / "out"), load_file(tmp_path / "m.safetensors")
    assert len(found.files()) == 3
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert any(values.any() for values in expected.values())
    assert any("has no config.json" in note for note in report.notes)


def test_the_command_line(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--models", str(world / "a"), str(world / "b"), "--method", "averaging"]
    out = tmp_path / "new" / "merged"
    assert main(["merge", *models, "--out", f"{out}/", "--shard-size", "4KB", "--quiet"]) == 0
    assert (out / "model.safetensors.index.json").is_file()
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 9, "without a base that of the first model"
    transformers.AutoModelForCausalLM.from_pretrained(out)
    # An earlier merge is replaced, with its index.
    assert main(["merge", *models, "--out", str(out), "--quiet"]) == 0
    assert sorted(name for name in os.listdir(out) if name.startswith("model")) == ["model.safetensors"]
    capsys.readouterr()
    assert main(["merge", *models, "--out", str(tmp_path / "m.safetensors"), "--shard-size", "4KB"]) == 2
    assert "--shard-size parts the weights of a folder" in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_adapters_with_their_base(world: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(world / "base"),
        peft.LoraConfig(init_lora_weights=False, target_modules=["q_proj"], r=2),
    )
    model.save_pretrained(tmp_path / "adapter")
    folded = model.merge_and_unload().state_dict()
    merge(world / "base", [tmp_path / "adapter"], tmp_path / "out", scaling=1.0)
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in folded.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=2e-6)
    with pytest.raises(ConfigError, match="--shard-size needs whole models"):
        merge(None, [tmp_path / "adapter"], tmp_path / "again", shard_size=100)


def test_folders_of_others_stay(world: Path, tmp_path: Path) -> None:
    models = [world / "a", world / "b"]
    with pytest.raises(ConfigError, match="is not empty and is not a merge of graftwork"):
        merge(world / "base", models, world / "a")
    merge(world / "base", models, tmp_path / "first")
    with pytest.raises(ConfigError, match="also an input|lies in the folder of"):
        merge(tmp_path / "first", models, tmp_path / "first")
    (tmp_path / "own").mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / "own" / name).symlink_to(world / "base" / name)
    (tmp_path / "own" / "config.json").write_text(json.dumps({"format": "graftwork-model-1"}))
    with pytest.raises(ConfigError, match="tokenizer.json is a link to .* outside of the model's folder"):
        merge(tmp_path / "own", models, tmp_path / "out")
    (tmp_path / "own" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"own is a model folder of graftwork, .*ends in \.safetensors"):
        merge(tmp_path / "own", models, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "own" / "config.json").unlink()
    (tmp_path / "own" / "tokenizer.json").write_text("{}")
    report = merge(tmp_path / "own", models, tmp_path / "out")
    assert any("has no config.json" in note for note in report.notes)
    assert any("are not the same; the result has that of the base" in note for note in report.notes)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_a_killed_merge_is_swept(world: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from graftwork.workflows.merge import merge\n"
        "merge(sys.argv[1], sys.argv[2:4], sys.argv[4], on_progress=lambda done, total: done == 3 and os.kill(os.getpid(), 9))"
    )
    out = tmp_path / "out"
    paths = [str(world / name) for name in ("base", "a", "b")]
    assert subprocess.run([sys.executable, "-c", code, *paths, str(out)], check=False).returncode == -9
    (left,) = [name for name in os.listdir(out) if name.endswith(".tmp")]
    assert json.loads((out / MERGE_KIND.marker).read_text())["state"] == "writing"
    report = merge(paths[0], paths[1:], out)
    assert any(left in note for note in report.notes)
    assert not [name for name in os.listdir(out) if name.endswith(".tmp")]
    assert json.loads((out / MERGE_KIND.marker).read_text())["state"] == "whole"


def test_only_a_merge_is_replaced(world: Path, tmp_path: Path) -> None:
    """A name that is given by mistake must not cost somebody's model: merged files say what wrote them."""
    models = [world / "a", world / "b"]
    own = tmp_path / "own.safetensors"
    own.write_bytes((world / "base" / "model.safetensors").read_bytes())
    (tmp_path / "notes.txt").write_text("not mine")
    for out in (own, tmp_path / "notes.txt"):
        before = out.read_bytes()
        with pytest.raises(ConfigError, match="is there already, and it is no earlier result"):
            merge(None, models, out, method="averaging")
        assert out.read_bytes() == before
    (tmp_path / "m.safetensors").touch()
    for _ in range(2):  # an empty file, then a merge
        merge(None, models, tmp_path / "m.safetensors", method="averaging")
    # What transformers asks of a file before it loads it.
    assert open_tensors(tmp_path / "m.safetensors").metadata["format"] == "pt"


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "m.GGUF"])
def test_a_folder_is_not_called_like_a_file(name: str, world: Path, tmp_path: Path) -> None:
    (tmp_path / "m.yml").write_text(f"merge_method: linear\nmodels:\n- model: {world / 'a'}\n  parameters: {{weight: 1}}\n")
    for call in (
        lambda: merge(None, world / "a", tmp_path / name, method="averaging"),
        lambda: merge_from_yaml(tmp_path / "m.yml", tmp_path / name),
    ):
        with pytest.raises(ConfigError, match=r"Name it .*m\.safetensors, or give a folder a name without"):
            call()
    assert not (tmp_path / name).exists()
    assert merge(None, str(world / "a"), tmp_path / "m-v1.5", method="averaging").num_models == 1, "a text is one model"
