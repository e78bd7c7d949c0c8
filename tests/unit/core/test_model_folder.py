"""Which files of a folder are the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from graftwork.core.errors import FileFormatError
from graftwork.core.model_folder import INDEX_NAME, model_files
from graftwork.core.tensor_files import open_tensors


def put(folder: Path, **files: float) -> None:
    for name, value in files.items():
        save_file({"w": np.full(3, value, np.float32)}, folder / f"{name}.safetensors")


def test_an_optimizer_beside_the_model_is_not_read(tmp_path: Path) -> None:
    put(tmp_path, model=1.0, optimizer=9.0)
    source = open_tensors(tmp_path)
    assert source["w"].tolist() == [1.0, 1.0, 1.0]
    assert [path.name for path in source.files()] == ["model.safetensors"]


def test_a_single_file_counts_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    put(tmp_path, model=1.0, part=2.0)
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {"w": "part.safetensors"}}))
    assert open_tensors(tmp_path)["w"][0] == 1.0


def test_a_model_with_another_name_is_found_if_it_is_alone(tmp_path: Path) -> None:
    put(tmp_path, weights=4.0)
    assert open_tensors(tmp_path)["w"][0] == 4.0


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    put(tmp_path, adapter_model=4.0)
    with pytest.raises(FileFormatError, match=r"holds an adapter \(adapter_model\.safetensors\), not a model"):
        open_tensors(tmp_path)
    put(tmp_path, model=1.0)
    assert open_tensors(tmp_path)["w"][0] == 1.0


def test_several_files_without_an_index_are_a_question(tmp_path: Path) -> None:
    put(tmp_path, first=1.0, second=2.0)
    with pytest.raises(FileFormatError, match=r"holds 2 safetensors files, none called model\.safetensors.*first\.safetensors"):
        open_tensors(tmp_path)


def test_shards_without_an_index_must_be_complete(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_file({f"w{number}": np.ones(1, np.float32)}, tmp_path / f"model-0000{number}-of-00003.safetensors")
    assert list(open_tensors(tmp_path)) == ["w1", "w2", "w3"]
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"missing model-00002-of-00003\.safetensors"):
        open_tensors(tmp_path)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"no \*\.safetensors file"):
        model_files(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "its weight_map is None"),
        ([], r"it holds \[\]"),
        (3, "it holds 3"),
        (None, "it holds None"),
        ({"weight_map": []}, r"its weight_map is \[\]"),
        ({"weight_map": {}}, r"its weight_map is \{\}"),
        ({"weight_map": "part.safetensors"}, "its weight_map is 'part"),
        ({"weight_map": {"w": 3}}, "'w' is in 3"),
        ({"weight_map": {"w": None}}, "'w' is in None"),
        ({"weight_map": {"w": ["part.safetensors"]}}, "'w' is in"),
        ({"weight_map": {"w": "../outside.safetensors"}}, "Files outside of the folder are not read"),
        ({"weight_map": {"w": "sub/../../outside.safetensors"}}, "Files outside of the folder are not read"),
        ({"weight_map": {"w": "/etc/passwd"}}, "Files outside of the folder are not read"),
        ({"weight_map": {"w": "..\\outside.safetensors"}}, "Files outside of the folder are not read"),
        ({"weight_map": {"w": ""}}, "no .safetensors file beside the index"),
        ({"weight_map": {"w": "."}}, "no .safetensors file beside the index"),
        ({"weight_map": {"w": "config.json"}}, "no .safetensors file beside the index"),
        ({"weight_map": {"w": "\0.safetensors"}}, "missing"),
        ({"weight_map": {"w": "gone.safetensors"}}, r"missing gone\.safetensors"),
        ({"weight_map": {"w": "part.safetensors", "v": "part.safetensors"}}, r"1 tensors .* does not hold "
        r"them: 'v' in part\.safetensors"),
    ],
)  # fmt: skip
def test_a_damaged_index_is_named(tmp_path: Path, index: Any, message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    put(folder, part=1.0)
    put(tmp_path, outside=2.0)
    (folder / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(FileFormatError, match=message):
        open_tensors(folder)


@pytest.mark.parametrize("text", ['{"weight_map": ', "[" * 100_000, '{"weight_map": ' + "9" * 5000 + "}", "\xff"])
def test_an_index_that_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    put(tmp_path, part=1.0)
    (tmp_path / INDEX_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(FileFormatError, match=r"index\.json is not valid JSON"):
        open_tensors(tmp_path)


def test_the_index_decides_where_a_tensor_is(tmp_path: Path) -> None:
    put(tmp_path, old=1.0, new=2.0)
    save_file({"v": np.zeros(1, np.float32), "w": np.full(3, 1.0, np.float32)}, tmp_path / "old.safetensors")
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {"v": "old.safetensors", "w": "new.safetensors"}}))
    assert open_tensors(tmp_path)["w"][0] == 2.0
    (tmp_path / INDEX_NAME).unlink()
    (tmp_path / "old.safetensors").rename(tmp_path / "m-1-of-2.safetensors")
    (tmp_path / "new.safetensors").rename(tmp_path / "m-2-of-2.safetensors")
    with pytest.raises(FileFormatError, match=r"'w' is in m-1-of-2\.safetensors and in m-2-of-2\.safetensors"):
        open_tensors(tmp_path)


def test_links_of_a_download_cache_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    put(tmp_path / "blobs", abc=5.0)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "part.safetensors").symlink_to(tmp_path / "blobs" / "abc.safetensors")
    (tmp_path / "snapshot" / INDEX_NAME).write_text(json.dumps({"weight_map": {"w": "part.safetensors"}}))
    assert open_tensors(tmp_path / "snapshot")["w"][0] == 5.0


def test_one_shard_of_several_is_no_whole_model(tmp_path: Path) -> None:
    save_file({"w": np.ones(1, np.float32)}, tmp_path / "model-00001-of-00003.safetensors")
    with pytest.raises(FileFormatError, match=r"missing model-00002-of-00003\.safetensors, model-00003-of-00003\.safetensors"):
        model_files(tmp_path)
    (tmp_path / "model-00001-of-00003.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    assert [path.name for path in model_files(tmp_path)[0]] == ["model-00001-of-00001.safetensors"]


def test_a_shard_whose_name_no_file_system_takes_is_missing(tmp_path: Path) -> None:
    for name in ("x" * 6_000, "x\0"):
        (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {"w": f"{name}.safetensors"}}))
        with pytest.raises(FileFormatError, match="no complete safetensors model: missing x") as caught:
            open_tensors(tmp_path)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(
        FileFormatError, match=rf"no \*.safetensors file.* {name} is pickled and was not opened.*safe_serialization=True"
    ):
        model_files(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileFormatError) as caught:
        model_files(tmp_path)
    assert "was not opened" not in str(caught.value)
