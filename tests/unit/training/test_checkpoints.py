from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import CheckpointError, StorageError
from graftwork.training import checkpoints
from graftwork.training.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint

STATE: dict[str, Any] = {
    "step": 3,
    "none": None,
    "nested": {"weights": torch.arange(6.0).view(2, 3), "list": [torch.tensor(1), "text", [True, 2.5]]},
    "random": torch.arange(5, dtype=torch.uint8),
    "empty": {},
}


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for mine, theirs in zip(first, second, strict=True):
            assert_same(mine, theirs)
    else:
        assert first == second


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path / "here")
    save_checkpoint(tmp_path / "here", STATE)
    assert has_checkpoint(tmp_path / "here")
    assert_same(STATE, load_checkpoint(tmp_path / "here"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5), lambda c: st.lists(c, max_size=3), max_leaves=9
    )
)
def test_any_json_goes_through(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    save_checkpoint(folder, {"value": value})
    assert load_checkpoint(folder) == {"value": value}


def test_only_older_tensors_of_ours_are_removed(tmp_path: Path) -> None:
    mine = ["tensors.safetensors", "tensors-of-mine.safetensors"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    save_checkpoint(tmp_path, STATE)
    save_checkpoint(tmp_path, {**STATE, "nested": {"weights": torch.zeros(2)}})
    names = {path.name for path in tmp_path.iterdir()}
    assert set(mine) < names
    assert len(names) == len(mine) + 2


def test_tensors_that_share_memory_are_both_kept(tmp_path: Path) -> None:
    base = torch.arange(4.0)
    save_checkpoint(tmp_path, {"whole": base, "part": base[1:], "transposed": base.view(2, 2).t()})
    found = load_checkpoint(tmp_path)
    assert found["part"].tolist() == [1.0, 2.0, 3.0]
    assert found["transposed"].tolist() == [[0.0, 2.0], [1.0, 3.0]]


def test_a_newer_checkpoint_replaces_the_older_one(tmp_path: Path) -> None:
    for step in range(3):
        save_checkpoint(tmp_path, {"step": step, "weights": torch.full((3,), float(step))})
    assert load_checkpoint(tmp_path)["step"] == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kill_between_the_two_files_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, {"step": 1, "weights": torch.zeros(3)})

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, {"step": 2, "weights": torch.ones(3)})
    found = load_checkpoint(tmp_path)
    assert found["step"] == 1
    assert not found["weights"].any()


def test_damage_is_noticed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE)
    (tensors,) = tmp_path.glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256 is .* Remove .* and run again"):
        load_checkpoint(tmp_path)
    tensors.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path)


def test_damaged_values_are_noticed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE)
    index = json.loads((tmp_path / "checkpoint.json").read_text())
    index["state"]["step"] = 4
    (tmp_path / "checkpoint.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="is damaged: its values do not have the hash that it names"):
        load_checkpoint(tmp_path)
    del index["state_sha256"]  # as earlier versions wrote it
    (tmp_path / "checkpoint.json").write_text(json.dumps(index))
    assert load_checkpoint(tmp_path)["step"] == 4


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": "other"}', '{"format": "graftwork-checkpoint-1"}'])
def test_a_broken_index_is_an_error_of_its_own_kind(tmp_path: Path, content: str) -> None:
    save_checkpoint(tmp_path, STATE)
    (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(CheckpointError, match="run again"):
        load_checkpoint(tmp_path)


def test_the_index_never_leads_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    save_checkpoint(folder, STATE)
    index = json.loads((folder / "checkpoint.json").read_text())
    (folder / index["tensors"]).rename(tmp_path / "outside.safetensors")
    index["tensors"] = "../outside.safetensors"
    (folder / "checkpoint.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(folder)


def test_a_folder_without_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint in .* without --resume"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("state", [{"value": {1, 2}}, {1: "number"}, {"a": {"__tensor__": "x"}}])
def test_what_is_neither_tensor_nor_json_is_refused(tmp_path: Path, state: dict[Any, Any]) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, state)
    assert not has_checkpoint(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        save_checkpoint(tmp_path / "file" / "folder", STATE)
