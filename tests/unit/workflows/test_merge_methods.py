"""Methods of ``graftwork merge`` are found by their cards, and take their settings from their signatures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from graftwork.cli.main import main
from graftwork.core.cards import Card, load_cards
from graftwork.core.errors import ComponentError, ConfigError
from graftwork.core.tensor_files import TensorFile
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.ties import TiesConfig, TiesMerger
from graftwork.workflows.merge_methods import build_merger, find_merge_method, merge_methods

CARD = """
slug = "nudge"
title = "Nudge"
year = 2024
link = "https://example.org"
room = "merging"
kind = "method"
summary = "Adds a constant to the first model; it is here to be found."
claim = "It is found."
aliases = ["push"]
components = ["graftwork.methods.merging.nudge:NudgeMerger"]
recipe = "graftwork.recipes.merging.nudge"
seams = ["Merger"]
"""
MODULE = '''
"""Nudge."""
from typing import Literal
import numpy as np
from graftwork.interfaces.merger import Merger

class NudgeMerger(Merger):
    """Adds a constant."""
    def __init__(self, *, by: float = 1.0, towards: Literal["up", "down"] = "up", times: int = 1) -> None:
        self.by = by * times * (1 if towards == "up" else -1)
    def merge_tensor(self, name, base, experts):
        return np.asarray(experts[0], np.float32) + np.float32(self.by)
    def settings(self):
        return {"method": "nudge", "by": self.by}
'''


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Card]:
    """The package's cards and one of a temporary folder, which the command line sees too."""
    import graftwork.methods.merging as room

    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "nudge.toml").write_text(CARD)
    (folder / "nudge.py").write_text(MODULE)
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(folder)])
    together = {**load_cards(), **load_cards(folder)}
    monkeypatch.setattr("graftwork.workflows.merge_methods._merging_cards", lambda: together)
    return together


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"m{number}.safetensors" for number in range(3)]
    for number, path in enumerate(paths):
        save_file({"w": np.full(4, number, np.float32)}, path)
    return paths


def test_built_in_methods_and_cards_are_found_the_same_way() -> None:
    found = merge_methods()
    assert {"averaging", "task-arithmetic", "ties"} <= set(found)
    assert find_merge_method("linear").name == find_merge_method("soup").name == "averaging"
    assert find_merge_method("task_arithmetic").name == "task-arithmetic"
    for method in found.values():
        assert method.summary
        assert method.resolve()


def test_all_cards_of_the_room_are_found_without_reading_the_others() -> None:
    assert list(merge_methods()) == list(merge_methods(load_cards()))


def test_a_new_merger_is_a_card_and_a_module(
    cards: dict[str, Card], files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    words = ["merge", "--base", str(files[0]), "--models", *map(str, files[1:]), "--out", str(out), "--quiet", "--method"]
    assert main([*words, "nudge"]) == 0
    assert TensorFile(out)["w"].tolist() == [2.0] * 4
    assert main([*words, "push", "--set", "by=0.5", "--set", "towards=down", "--set", "times=2"]) == 0
    assert TensorFile(out)["w"].tolist() == [0.0] * 4
    assert json.loads(TensorFile(out).metadata["method"]) == {"method": "nudge", "by": -1.0}
    assert main(["merge", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "nudge (also push)" in shown
    assert "Adds a constant to the first model" in shown
    for wrong, said in (
        ("byy=1", "unknown setting 'byy'. Did you mean 'by'? Settings of nudge: by, towards, times"),
        ("by=much", "by must be a finite number; got 'much'"),
        ("towards=left", "towards must be one of up, down; got 'left'"),
        ("times=1.5", "times must be an integer; got '1.5'"),
        ("by", "--set takes key=value; got 'by'"),
    ):
        assert main([*words, "nudge", "--set", wrong]) == 2
        assert said in capsys.readouterr().err
    assert main([*words, "nudge", "--density", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "magnitude-prune, ties, not to nudge. Leave --density out, or use one of these methods." in said


def test_cards_of_other_rooms_and_seams_and_planned_ones_are_no_methods(cards: dict[str, Card]) -> None:
    card = cards["nudge"]
    for changed in ({"room": "tuning"}, {"seams": ("Tuner",)}, {"components": ()}):
        assert "nudge" not in merge_methods({"nudge": dataclasses.replace(card, **changed)})  # type: ignore[arg-type]
    assert "nudge" in merge_methods({"nudge": card})


def test_methods_that_share_a_name_are_an_error(cards: dict[str, Card]) -> None:
    with pytest.raises(ConfigError, match="'averaging' and 'nudge' share the name 'soup'"):
        merge_methods({"nudge": dataclasses.replace(cards["nudge"], aliases=("soup",))})


def test_a_card_that_names_no_merger_is_said(cards: dict[str, Card]) -> None:
    card = dataclasses.replace(cards["nudge"], components=("graftwork.methods.merging.ties:TiesConfig",))
    with pytest.raises(ConfigError, match="'nudge' names no class that is a Merger or ModelMerger"):
        merge_methods({"nudge": card})["nudge"].resolve()


def test_dotted_paths_follow_the_rule_for_components() -> None:
    assert isinstance(build_merger("graftwork.methods.merging.averaging:AveragingMerger"), AveragingMerger)
    with pytest.raises(ComponentError, match="package is not allowed"):
        build_merger("os:system")
    with pytest.raises(ConfigError, match="names no class that is a Merger"):
        build_merger("graftwork.methods.merging.ties:TiesConfig")


def test_settings_of_ties_are_the_fields_of_its_record() -> None:
    merger = build_merger("ties", density=0.5, settings={"trim": "per-tensor", "weights": [1, 2]})
    assert isinstance(merger, TiesMerger)
    assert merger.config == TiesConfig(density=0.5, trim="per-tensor", weights=(1.0, 2.0))
    text = build_merger("ties", settings={"weights": "1,2", "density": "0.5", "trim": "per-tensor"}, from_text=True)
    assert isinstance(text, TiesMerger)
    assert text.config == merger.config
    with pytest.raises(ConfigError, match="trim must be one of global, per-tensor, none; got 'tensor'"):
        build_merger("ties", settings={"trim": "tensor"})
    with pytest.raises(ConfigError, match="`density` is given twice, as --density"):
        build_merger("ties", density=0.5, settings={"density": 0.2})


@pytest.mark.parametrize("way", ["flags", "yaml"])
@pytest.mark.parametrize("method", ["dare_linear", "della"])
def test_another_seed_drops_other_entries(
    method: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        (tmp_path / name).mkdir()
        save_file({"w": random.normal(size=(8, 8)).astype(np.float32)}, tmp_path / name / "model.safetensors")
    (tmp_path / "m.yml").write_text(
        f"merge_method: {method}\nbase_model: base\nmodels:\n- model: a\n- model: b\nparameters: {{density: 0.5, weight: 1}}\n"
    )
    flags = ["--base", "base", "--models", "a", "b", "--method", method, "--density", "0.5"]
    words = ["merge", *(flags if way == "flags" else ["m.yml"])]

    def merged(*more: str) -> np.ndarray:
        assert main([*words, "--out", "out.safetensors", "--quiet", *more]) == 0
        return np.array(TensorFile("out.safetensors")["w"])

    np.testing.assert_array_equal(merged("--seed", "0"), merged())
    np.testing.assert_array_equal(merged("--seed", "7"), merged("--seed", "7"))
    assert np.any(merged("--seed", "7") != merged())
    if way == "flags":
        np.testing.assert_array_equal(merged("--set", "seed=7"), merged("--seed", "7"))
        np.testing.assert_array_equal(merged("--set", "seed=7", "--seed", "3"), merged("--seed", "7"))
    else:
        merged("--seed", "7")
        assert json.loads(TensorFile("out.safetensors").metadata["method"])["seed"] == 7
        # What a file cannot say is refused, and not left out.
        assert main([*words, "--out", "out.safetensors", "--buffers", "base"]) == 2
        assert "leave --buffers out" in capsys.readouterr().err
