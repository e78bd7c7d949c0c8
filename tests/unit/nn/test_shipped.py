"""Backbones that ship: whole, small, credited, and the same wherever they are loaded; damage is an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_shipped import ship_tiny

from graftwork.core.errors import FileFormatError
from graftwork.core.files import hash_bytes
from graftwork.nn.backbones import catalog
from graftwork.nn.backbones.catalog import build_backbone, default_backbone, list_backbones, modality_of, split_names
from graftwork.nn.backbones.shipped import LARGEST_FILE, METADATA_KEY, WEIGHTS, load_shipped, shipped_backbones


def test_all_that_ship_are_whole_and_fit() -> None:
    names = sorted(shipped_backbones())
    files = [path for path in WEIGHTS.glob("*") if path.suffix == ".safetensors"]
    assert sorted(path.stem for path in files) == names
    assert all(path.stat().st_size <= LARGEST_FILE for path in files)
    assert sum(path.stat().st_size for path in files) <= 60_000_000
    for shipped in shipped_backbones().values():
        check_described(shipped.description, shipped.file)
        assert shipped.description["check"]["passed"]


def check_described(description: Any, path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
        inside = json.loads(file.metadata()[METADATA_KEY])
    beside = dict(description)
    assert beside.pop("bytes") == path.stat().st_size
    assert beside.pop("sha256") == hash_bytes(path.read_bytes())
    assert inside == beside
    assert inside["check"]["mean_gain"] >= inside["check"]["mean_margin"]
    assert set(inside["check"]["pretrained"]) == set(inside["held_out"])
    # CC-BY asks for a line that names author and licence.
    assert all("licensed under CC-BY" in source["credit"] for source in inside["learned_from"] if "CC-BY" in source["licence"])


def test_the_rule_for_descriptions_sees_what_is_wrong(tmp_path: Path) -> None:
    shipped = ship_tiny(tmp_path)["tiny-vit"]
    check_described(shipped.description, shipped.file)
    with pytest.raises(AssertionError):
        check_described({**shipped.description, "licence": "CC0-1.0"}, shipped.file)


def test_the_catalogue_lists_and_builds_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ship_tiny(tmp_path)
    monkeypatch.setattr(catalog, "shipped_backbones", lambda: found)
    info = next(info for info in list_backbones("image") if info.name == "tiny-vit")
    assert info.ships
    assert info.pretrained
    assert info.available
    assert (info.licence, info.learned_from) == ("CC-BY-4.0", "noise")
    assert modality_of("tiny-vit@64") == "image"
    assert split_names("minilm,tiny-vit@32") == ["minilm", "tiny-vit@32"]
    backbone = build_backbone("tiny-vit@32")
    assert sum(parameter.numel() for parameter in backbone.parameters()) == info.parameters
    assert backbone.feature_shape.width == info.width
    assert backbone.size == 32  # type: ignore[attr-defined]
    assert build_backbone("tiny-vit", dense=True).feature_shape.layout == "map"
    first, second = (build_backbone("tiny-vit").fingerprint() for _ in range(2))
    assert first == second != backbone.fingerprint()
    # Taken by name only.
    monkeypatch.setattr(catalog, "has", lambda module: module == "torch")
    assert default_backbone(["image"]) is None


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    shipped = ship_tiny(tmp_path)["tiny-vit"]
    content = bytearray(shipped.file.read_bytes())
    content[-1] ^= 1
    shipped.file.write_bytes(bytes(content))
    with pytest.raises(FileFormatError, match=r"is damaged: its SHA-256.*backbones build tiny-vit"):
        load_shipped(shipped)
    shipped.file.unlink()
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_shipped(shipped)


def rewritten(folder: Path, **changes: Any) -> None:
    path = folder / "tiny-vit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (folder / "again").mkdir()
    for name in ("tiny-vit.json", "tiny-vit.safetensors"):  # descriptions are read once a folder
        (folder / "again" / name).write_bytes((folder / name).read_bytes())


def test_other_weights_under_a_right_hash_are_refused(tmp_path: Path) -> None:
    shipped = ship_tiny(tmp_path)["tiny-vit"]
    state = safetensors.torch.load_file(shipped.file)
    state["norm.weight"] = state["norm.weight"] + 1
    shipped.file.write_bytes(safetensors.torch.save(state))
    rewritten(tmp_path, sha256=hash_bytes(shipped.file.read_bytes()))
    with pytest.raises(FileFormatError, match="are not those that its description names"):
        load_shipped(shipped_backbones(tmp_path / "again")["tiny-vit"])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    shipped = ship_tiny(tmp_path)["tiny-vit"]
    rewritten(tmp_path, component={**shipped.description["component"], "settings": {"width": 16, "depth": 2, "num_heads": 2}})
    with pytest.raises(FileFormatError, match="does not fit"):
        load_shipped(shipped_backbones(tmp_path / "again")["tiny-vit"])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', '{"format": "graftwork-backbone-1", "name": "x"}'])
def test_damaged_descriptions_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"x\.json"):
        shipped_backbones(tmp_path)


def test_half_precision_is_widened_and_nothing_else(tmp_path: Path) -> None:
    shipped = ship_tiny(tmp_path)["tiny-vit"]
    stored = safetensors.torch.load_file(shipped.file)
    loaded = load_shipped(shipped).state_dict()
    assert set(stored) == set(loaded)
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in stored.items())
