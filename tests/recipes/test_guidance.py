"""What the arms of guidance train."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from graftwork.core.components import Component
from graftwork.recipes.distillation.guidance import RECIPE, DeepPerceptron, PlainConv, shifted_letters, student_plan


def test_arms_of_a_network_differ_in_their_term_alone() -> None:
    settings = RECIPE.arm("mlp").settings
    term = Component("graftwork.methods.distillation.guidance:Guidance", {"guide": "conv-mini"})
    alone, guided = (student_plan("mlp", objectives, settings) for objectives in ((), (term,)))
    assert alone.train.backbone == guided.train.backbone
    assert alone.train.training == guided.train.training
    assert guided.train.objectives == (term,)
    assert len({arm.settings["rate"] for arm in RECIPE.arms}) == 1


def test_the_guided_networks_are_what_the_paper_guides() -> None:
    pictures = {"image": torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)}
    perceptron, plain = DeepPerceptron(), PlainConv()
    assert sum(isinstance(module, nn.Linear) for module in perceptron.modules()) == 8
    assert sum(isinstance(module, nn.Conv2d) for module in plain.modules()) == 24
    for network in (perceptron, plain):
        found = network(pictures)
        assert found.shape == (3, network.feature_shape.width)
        assert bool(found.isfinite().all())
    # Nothing skips a layer: with one convolution at zero, no picture gets through.
    with torch.no_grad():
        plain.layers[10].weight.zero_()  # type: ignore[union-attr]
        found = plain.eval()(pictures)
    assert torch.allclose(found, found[:1].expand_as(found))


def test_letters_stand_anywhere_on_the_canvas() -> None:
    suite = shifted_letters(0, num_train=200, num_val=10, num_test=10)
    dark = suite.inputs["image"][..., 0].astype(float)
    ground = np.median(dark, axis=(1, 2), keepdims=True)
    rows = (np.abs(dark - ground) > 80).any(axis=2)
    first = rows.argmax(axis=1)
    assert first.std() > 2.5
    assert suite.tasks[0].size == 10
