"""The check: margins over the better comparison, probes that find what is there, answers that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nursery.check import AnswerBook, Check, answer, probe_accuracy
from graftwork.nursery.questions import Question


class Means(Backbone):
    """Mean colours, through a layer that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("vector", 3)
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return inputs["image"].float().mean(dim=(1, 2)) / 255.0 * self.scale


class Silent(Means):
    """Says nothing of its input."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return super().forward(inputs) * 0.0


def question(count: int = 120) -> Question:
    random = np.random.default_rng(0)
    label = random.integers(0, 2, size=count)
    image = random.integers(0, 100, size=(count, 8, 8, 3), dtype=np.uint8)
    image[label == 1, :, :, 0] += 60
    rows = np.arange(count)
    split = {"train": rows[:60], "val": rows[60:80], "test": rows[80:]}
    return Question(name="red", image=image, label=label.astype(np.int64), splits=(split, split))


def check(pretrained: dict[str, float], untrained: dict[str, float], scratch: dict[str, float]) -> Check:
    return Check(pretrained=pretrained, untrained=untrained, scratch=scratch, mean_margin=8.0, least_margin=2.0)


def test_probes_find_what_features_hold() -> None:
    assert probe_accuracy(Means(), question()) == 100.0
    assert probe_accuracy(Silent(), question()) < 75.0


@pytest.mark.parametrize(
    ("scratch", "passed"), [({"a": 52.0, "b": 60.0}, True), ({"a": 59.0, "b": 50.0}, False), ({"a": 55.0, "b": 63.0}, False)]
)
def test_both_margins_must_be_kept(scratch: dict[str, float], passed: bool) -> None:
    found = check({"a": 60.0, "b": 70.0}, {"a": 50.0, "b": 50.0}, scratch)
    assert found.is_passed is passed
    assert found.to_json()["passed"] is passed


def test_the_better_comparison_counts() -> None:
    found = check({"a": 60.0}, {"a": 50.0}, {"a": 55.0})
    assert found.gains == {"a": 5.0}
    assert found.to_json()["mean_gain"] == 5.0


def test_answers_compare_three_networks(tmp_path: Path) -> None:
    found = answer(
        Means(), Silent, [question()], AnswerBook(tmp_path / "a.json", "x"), epochs=2, mean_margin=0.0, least_margin=0.0
    )
    assert found.pretrained["red"] == 100.0
    assert max(found.untrained["red"], found.scratch["red"]) < 75.0
    learning = answer(
        Means(),
        Means,
        [question()],
        AnswerBook(tmp_path / "b.json", "x"),
        epochs=60,
        learning_rate=0.3,
        mean_margin=0,
        least_margin=0,
    )
    assert learning.scratch["red"] > 85.0


def test_answers_are_kept_for_the_same_model_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    assert AnswerBook(path, "first").get("a", lambda: 1.0) == 1.0
    assert AnswerBook(path, "first").get("a", lambda: 2.0) == 1.0
    assert AnswerBook(path, "second").get("a", lambda: 3.0) == 3.0
