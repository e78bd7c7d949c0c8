"""Builds end with equal bytes, whole or in pieces, and with nothing if the check fails."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone, BlockBackbone
from graftwork.nn.backbones.shipped import METADATA_KEY, load_shipped, shipped_backbones
from graftwork.nursery import build
from graftwork.nursery.build import CheckFailedError, build_model, halved
from graftwork.nursery.check import AnswerBook, Check, answer
from graftwork.nursery.distill import Distillation, LessonSource, masked_tokens
from graftwork.nursery.questions import Question
from graftwork.nursery.recipe import Lessons, Pretraining, Source
from graftwork.training.config import LoopConfig

STEPS = 7


class Killed(Exception):  # noqa: N818
    """Stands for the end of a process."""


def lessons(backbone: Backbone, budget: Mapping[str, int], seeds: Seeds, cache: Path | None) -> Lessons:
    random = np.random.default_rng(0)
    arrays = {
        "image": random.integers(0, 256, size=(12, 32, 32, 3), dtype=np.uint8),
        "label": random.integers(-1, 3, size=12),
        "pooled": random.random(size=(12, 1280)).astype(np.float16),
        "map": random.normal(size=(12, 64, 112)).astype(np.float16),
    }
    assert isinstance(backbone, BlockBackbone)
    step = Distillation(backbone, masked_tokens(20, budget["steps"] - 2), widths=(8, 8), num_labels=3)
    return Lessons(step=step, source=LessonSource(arrays, 5, seeds), inputs={"pictures": "abc"})


def check(margin: float) -> Callable[[Backbone, Callable[[], Backbone], Mapping[str, int], AnswerBook], Check]:
    def run(backbone: Backbone, fresh: Callable[[], Backbone], budget: Mapping[str, int], book: AnswerBook) -> Check:
        random = np.random.default_rng(1)
        image = random.integers(0, 256, size=(12, 16, 16, 3), dtype=np.uint8)
        rows = {"train": np.arange(6), "val": np.arange(6, 9), "test": np.arange(9, 12)}
        question = Question(name="noise", image=image, label=np.arange(12) % 2, splits=(rows,))
        return answer(backbone, fresh, [question], book, epochs=1, mean_margin=margin, least_margin=margin)

    return run


RECIPE = Pretraining(
    name="tiny",
    modality="image",
    summary="for tests",
    story="For tests.",
    component=Component(
        "graftwork.nn.backbones.mini_vit:MiniViT",
        {"width": 8, "depth": 1, "num_heads": 1},
    ),
    sources=(Source(name="noise", what="pixels", licence="CC0-1.0", credit="drawn here"),),
    licence="CC0-1.0",
    held_out={"noise": "which is which"},
    budget={"steps": STEPS},
    config=lambda budget: LoopConfig(max_steps=budget["steps"], learning_rate=1e-2, schedule="wsd", warmup_steps=2),
    lessons=lessons,
    check=check(-1000.0),
)


def built(folder: Path, *, stop_at: int = 0, resume: bool = False) -> bytes:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == stop_at:
            raise Killed

    return build_model("tiny", folder, recipe=RECIPE, resume=resume, on_progress=progress).read_bytes()


def test_two_builds_and_a_resumed_one_are_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SAVE_EVERY", 2)
    first = built(tmp_path / "first")
    torch.rand(3)  # what others draw does not matter
    assert built(tmp_path / "second") == first
    with pytest.raises(Killed):
        built(tmp_path / "third", stop_at=5)
    assert not (tmp_path / "third" / "tiny.safetensors").exists()
    assert built(tmp_path / "third", resume=True) == first
    log = [json.loads(line) for line in (tmp_path / "third" / "log.jsonl").read_text().splitlines()]
    # Step 5 was never stored: the resumed build begins at 4.
    assert [entry["step"] for entry in log if "step" in entry] == [2, 4, 6, STEPS]


def test_what_is_written_is_whole_and_loads(tmp_path: Path) -> None:
    content = built(tmp_path)
    description = json.loads((tmp_path / "tiny.json").read_text())
    for other in ("answers.json", "build.json"):  # of the build; only the model's two files are copied into the package
        (tmp_path / other).unlink()
    with safetensors.safe_open(tmp_path / "tiny.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        inside = json.loads(file.metadata()[METADATA_KEY])
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.float16"}  # noqa: SIM118
    assert {**inside, "bytes": len(content), "sha256": description["sha256"]} == description
    assert inside["lineage"]["licences"] == {"noise": "drawn here"}
    assert inside["lineage"]["inputs"] == {"pictures": "abc"}
    assert inside["lineage"]["created"] == ""  # a date would make every build another
    assert set(inside["check"]["gains"]) == {"noise"}
    loaded = load_shipped(shipped_backbones(tmp_path)["tiny"], layout="tokens")
    stored = safetensors.torch.load(content)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, stored[name].float())


def test_a_model_that_fails_its_check_is_not_written(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, check=check(1000.0))
    with pytest.raises(CheckFailedError, match=r"tiny is not written.*tiny needs 1000.*each needs 1000"):
        build_model("tiny", tmp_path, recipe=recipe)
    assert not list(tmp_path.glob("tiny.*"))


def test_a_build_in_the_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        built(tmp_path / "one", stop_at=1)
    with pytest.raises(ConfigError, match="holds a build already. Go on with --resume"):
        built(tmp_path / "one")
    with pytest.raises(ConfigError, match=r"another build \(its budget differ\)"):
        build_model("tiny", tmp_path / "one", recipe=RECIPE, resume=True, budget={"steps": 3})
    with pytest.raises(ConfigError, match="has no 'stpes'; it has steps"):
        build_model("tiny", tmp_path / "two", recipe=RECIPE, budget={"stpes": 3})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not a build of a backbone"):
        built(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_model_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LARGEST_FILE", 1000)
    with pytest.raises(ConfigError, match=r"takes \d+ bytes; a model that ships has at most 1000"):
        built(tmp_path)
    assert not (tmp_path / "tiny.safetensors").exists()


def test_values_beyond_half_precision_are_named() -> None:
    assert halved({"count": torch.tensor(3)})["count"].dtype == torch.int64
    with pytest.raises(ConfigError, match="values of big are too large"):
        halved({"big": torch.tensor([1e6]), "small": torch.tensor([1.0])})


def test_the_threads_of_others_stay(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    built(tmp_path)
    assert torch.get_num_threads() == before
