"""Models in several files: transformers reads them, sizes keep the limit, and nothing is there before all are whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.model_folder import INDEX_NAME
from graftwork.core.shards import split_layout, write_model
from graftwork.core.tensor_files import open_tensors

LAYOUT = {name: ("F32", (3, number)) for number, name in enumerate("abcdef", start=1)}
VALUES = {name: np.random.default_rng(0).standard_normal(shape, np.float32) for name, (_, shape) in LAYOUT.items()}


def test_files_keep_the_limit_and_larger_tensors_stand_alone() -> None:
    parts = split_layout(LAYOUT, 72)
    assert [list(part) for part in parts.values()] == [["a", "b", "c"], ["d"], ["e"], ["f"]]
    assert list(parts)[1] == "model-00002-of-00004.safetensors"
    assert list(split_layout(LAYOUT, 1)) == [f"model-{number:05}-of-00006.safetensors" for number in range(1, 7)]
    assert split_layout(LAYOUT, None) == split_layout(LAYOUT, 10**9) == {"model.safetensors": LAYOUT}
    with pytest.raises(ConfigError, match="makes 500 files of weights"):
        split_layout({f"t{number}": ("F32", (1,)) for number in range(500)}, 4)


def test_shards_are_read_back_whatever_the_order(tmp_path: Path) -> None:
    write_model(tmp_path, split_layout(LAYOUT, 72), reversed(VALUES.items()), {"x": "0"}, lambda: {"x": "1"})
    source = open_tensors(tmp_path)
    assert {name: source[name].tolist() for name in source} == {name: value.tolist() for name, value in VALUES.items()}
    assert source.metadata["x"] == "1"
    index = json.loads((tmp_path / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in VALUES.values())
    assert {file.name: set(load_file(file)) for file in tmp_path.glob("*.safetensors")} == {
        file: {name for name, place in index["weight_map"].items() if place == file} for file in set(index["weight_map"].values())
    }


def test_nothing_is_there_before_all_files_are_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no values came for f"):
        write_model(tmp_path, split_layout(LAYOUT, 72), ((name, VALUES[name]) for name in "abcde"))
    assert os.listdir(tmp_path) == []


def test_a_merge_in_shards_is_a_model_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, **sizes)
        transformers.BertModel(config).save_pretrained(tmp_path / name)
    models = [{"model": name, "parameters": {"weight": 1}} for name in "ab"]
    file, out = tmp_path / "merge.yml", tmp_path / "out"
    file.write_text(json.dumps({"merge_method": "linear", "models": models}))
    words = ["merge", str(file), "--out", str(out), "--quiet"]
    assert main(words) == 0
    assert main([*words, "--shard-size", "4kB"]) == 0
    assert not (out / "model.safetensors").exists()
    assert len(list(out.glob("model-*.safetensors"))) > 3
    found = transformers.BertModel.from_pretrained(out).state_dict()
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name in first:
        torch.testing.assert_close(found[name], (first[name] + second[name]) / 2)
    # One file again: shards and index go.
    assert main(words) == 0
    assert sorted(path.name for path in out.glob("model*")) == ["model.safetensors"]
    assert main([*words[:-3], "--out", str(tmp_path / "x.safetensors"), "--shard-size", "4kB"]) == 2
    save_file(first, tmp_path / "m.safetensors")
    assert (
        main(
            [
                "merge",
                "--models",
                str(tmp_path / "m.safetensors"),
                "--method",
                "averaging",
                "--out",
                "x.safetensors",
                "--shard-size",
                "4kB",
            ]
        )
        == 2
    )
