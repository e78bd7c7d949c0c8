"""Taps of ``distill``: several layers at once, each pair for all ways or for one, checked before anything trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError
from graftwork.data.suites.glyphs import glyphs
from graftwork.workflows.distill.plans import student_plan
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.distill.taps import Tap, read_tap
from graftwork.workflows.distill.ways import objectives_of

ONE: dict[str, Any] = {"teacher": "one", "entry": "/x/1", "tasks": ["kind"], "features": 8}
TWO: dict[str, Any] = {"teacher": "two", "entry": "/x/2", "tasks": [], "features": 4, "classes": 10}


def test_a_pair_is_read_with_and_without_a_way() -> None:
    assert read_tap(" a.b = c.0 ") == Tap("a.b", "c.0")
    assert read_tap("relations:a=b") == Tap("a", "b", "relations")
    assert str(Tap("a", "b", "relations")) == "relations:a=b"
    assert [read_tap(text) for text in ("a", "=b", "a=", ":a=b", "features:=b")] == [None] * 5


def test_several_modules_are_compared_at_once_and_share_the_weight_of_their_way() -> None:
    more: dict[str, Any] = {"temperature": 2.0, "strength": 1.0}
    big = {**ONE, "taps": ["low", "high"], "maps": ["low"]}
    other = {**TWO, "taps": ["high"], "maps": []}
    taps = [Tap("a", "low"), Tap("b", "high"), Tap("c", "high", "relations")]
    made = objectives_of(("features", "attention", "relations"), [big, other], [0.75, 0.25], **more, taps=taps)
    told = [
        (item.path.rpartition(":")[2], *(item.settings[key] for key in ("tap", "teacher_tap", "weight", "answers")))
        for item in made
    ]
    assert told == [
        ("FeatureDistillation", "a", "low", 0.5 * 0.75 / 2, ["/x/1"]),
        ("FeatureDistillation", "b", "high", 0.5 / 2, ["/x/1", "/x/2"]),
        ("AttentionTransfer", "a", "low", 1000 * 0.75, ["/x/1"]),
        ("RelationalDistillation", "a", "low", 0.75 / 3, ["/x/1"]),
        ("RelationalDistillation", "b", "high", 1 / 3, ["/x/1", "/x/2"]),
        ("RelationalDistillation", "c", "high", 1 / 3, ["/x/1", "/x/2"]),
    ]
    with pytest.raises(ConfigError, match="--tap a=low is compared in none of the ways logits. Ways that compare modules: feat"):
        objectives_of(("logits",), [big], [1.0], **more, taps=taps[:1])
    with pytest.raises(ConfigError, match="No tapped module of a teacher can be compared by attention.* The taps are b=high"):
        objectives_of(("features", "attention"), [big], [1.0], **more, taps=taps[1:2])


def test_several_layers_teach_at_once(tmp_path: Path) -> None:
    pictures = glyphs(num_train=24, num_val=8, num_test=8, num_classes=2, size=16)
    settings: dict[str, Any] = {
        "teachers": "vit-mini", "student": "scratch", "steps": 4, "seeds": 1, "workers": 0, "progress": False,
        "overrides": {"batch_size": 8},
    }  # fmt: skip
    student = find_paths("scratch", pictures)
    low, high = student[0], student[-1]
    taps = [f"attention:{low}=blocks.1", f"features:{high}=blocks.8", f"relations:{high}=blocks.8"]
    made = gw.distill(pictures, ways="features,attention,relations", tap=taps, out=tmp_path / "run", **settings)
    objectives = made.result["plans"]["distilled"]["plan"]["stages"][0]["objectives"]
    assert [
        (item["path"].rpartition(":")[2], item["settings"]["tap"], item["settings"]["teacher_tap"]) for item in objectives
    ] == [
        ("FeatureDistillation", high, "blocks.8"),
        ("AttentionTransfer", low, "blocks.1"),
        ("RelationalDistillation", high, "blocks.8"),
    ]
    assert made.result["settings"]["taps"] == taps
    with pytest.raises(ConfigError, match="has nothing to compare|places|one vector"):
        # Found before the student alone trains, although it shows only in a forward pass.
        gw.distill(pictures, ways="attention", tap="heads=blocks.1", out=tmp_path / "other", **settings)
    assert not (tmp_path / "other").exists()


def find_paths(student: str, suite: Any) -> list[str]:
    """Modules of a student that give maps, in the order in which they run."""
    import torch

    from graftwork.training.assembly import assemble

    plan, backbone = student_plan(DistillSettings(student=student), suite.kinds)
    model = assemble(plan, suite.tasks, suite.input_specs, backbone=backbone).model.eval()
    found: list[str] = []
    for name, module in model.named_modules():
        if name.startswith("backbone.") and name.count(".") <= 3:

            def keep(module: Any, given: Any, output: Any, name: str = name) -> None:
                if isinstance(output, torch.Tensor) and output.ndim == 4:
                    found.append(name)

            module.register_forward_hook(keep)
    with torch.inference_mode():
        model({"image": torch.from_numpy(np.array(suite.inputs["image"][:2]))})
    return list(dict.fromkeys(found))
