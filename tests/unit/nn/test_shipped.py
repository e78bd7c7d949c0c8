"""Backbones that ship: whole, small, credited, and the same wherever they are loaded; damage is an error that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from graftwork.core.errors import FileFormatError
from graftwork.core.files import hash_bytes
from graftwork.nn.backbones.catalog import build_backbone, default_backbone, list_backbones, modality_of
from graftwork.nn.backbones.shipped import LARGEST_FILE, METADATA_KEY, WEIGHTS, load_shipped, shipped_backbones

NAMES = sorted(shipped_backbones())


def test_some_ship_and_all_fit() -> None:
    assert NAMES
    files = [path for path in WEIGHTS.iterdir() if path.suffix == ".safetensors"]
    assert sorted(path.stem for path in files) == NAMES
    assert max(path.stat().st_size for path in files) <= LARGEST_FILE
    assert sum(path.stat().st_size for path in files) <= 60_000_000


@pytest.mark.parametrize("name", NAMES)
def test_what_ships_is_described_and_passed_its_check(name: str) -> None:
    shipped = shipped_backbones()[name]
    with safetensors.safe_open(shipped.file, "pt") as file:  # type: ignore[no-untyped-call]
        inside = json.loads(file.metadata()[METADATA_KEY])
    beside = dict(shipped.description)
    assert beside.pop("bytes") == shipped.file.stat().st_size
    assert beside.pop("sha256") == hash_bytes(shipped.file.read_bytes())
    assert inside == beside
    assert inside["check"]["passed"]
    assert inside["check"]["mean_gain"] >= inside["check"]["mean_margin"]
    assert set(inside["check"]["pretrained"]) == set(inside["held_out"])
    credits = [source["credit"] for source in inside["learned_from"]]
    assert sorted(inside["lineage"]["licences"].values()) == sorted(credits)
    # CC-BY asks for a line that names author and licence.
    assert all("licensed under CC-BY" in source["credit"] for source in inside["learned_from"] if "CC-BY" in source["licence"])


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_lists_and_builds_it(name: str) -> None:
    info = next(info for info in list_backbones() if info.name == name)
    assert info.ships
    assert info.pretrained
    assert info.available
    assert "Twemoji" in info.learned_from
    assert modality_of(f"{name}@64") == "image"
    backbone = build_backbone(f"{name}@32")
    assert sum(parameter.numel() for parameter in backbone.parameters()) == info.parameters
    assert backbone.feature_shape.width == info.width
    assert backbone.size == 32  # type: ignore[attr-defined]
    assert build_backbone(name, dense=True).feature_shape.layout == "map"
    first, second = (build_backbone(name).fingerprint() for _ in range(2))
    assert first == second != backbone.fingerprint()


def test_none_is_taken_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.nn.backbones import catalog

    monkeypatch.setattr(catalog, "has", lambda module: module == "torch")
    assert default_backbone(["image"]) is None


def copied(folder: Path) -> tuple[Path, dict[str, Any]]:
    name = NAMES[0]
    for suffix in (".json", ".safetensors"):
        shutil.copy(WEIGHTS / f"{name}{suffix}", folder)
    return folder / f"{name}.json", json.loads((folder / f"{name}.json").read_text())


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path, _ = copied(tmp_path)
    weights = path.with_suffix(".safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(FileFormatError, match=f"is damaged: its SHA-256.*backbones build {NAMES[0]}"):
        load_shipped(shipped_backbones(tmp_path)[NAMES[0]])
    weights.unlink()
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_shipped(shipped_backbones(tmp_path)[NAMES[0]])


def test_other_weights_under_a_right_hash_are_refused(tmp_path: Path) -> None:
    path, description = copied(tmp_path)
    weights = path.with_suffix(".safetensors")
    state = safetensors.torch.load_file(weights)
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = state[name] + 1
    content = safetensors.torch.save(state)
    weights.write_bytes(content)
    path.write_text(json.dumps({**description, "sha256": hash_bytes(content)}))
    with pytest.raises(FileFormatError, match="are not those that its description names"):
        load_shipped(shipped_backbones(tmp_path)[NAMES[0]])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, description = copied(tmp_path)
    description["component"]["settings"] = {"width": 96}
    path.write_text(json.dumps(description))
    with pytest.raises(FileFormatError, match="does not fit"):
        load_shipped(shipped_backbones(tmp_path)[NAMES[0]])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', '{"format": "graftwork-backbone-1", "name": "x"}'])
def test_damaged_descriptions_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"x\.json"):
        shipped_backbones(tmp_path)


def test_half_precision_is_widened_and_nothing_else() -> None:
    shipped = shipped_backbones()[NAMES[0]]
    stored = safetensors.torch.load_file(shipped.file)
    loaded = load_shipped(shipped).state_dict()
    assert set(stored) == set(loaded)
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in stored.items())
