from __future__ import annotations

import copy

import pytest
import torch
from small_streams import make_backbone, make_stream, make_suite, pictures
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.methods.continual.class_head import ClassHead
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.training.config import LoopConfig
from graftwork.training.continual import learn_stream

TASKS = make_suite().tasks


@pytest.mark.parametrize("tune_backbone", [False, True])
def test_the_backbone_learns_only_if_asked(tune_backbone: bool) -> None:
    method = ClassHead(TASKS, make_backbone(), tune_backbone=tune_backbone)
    before = copy.deepcopy(method.model.state_dict())
    config = LoopConfig(max_steps=2, learning_rate=0.05, optimizer="adam")
    learn_stream(method, make_stream(), batch_size=4, config=config, seeds=Seeds(0))
    moved = {name for name, value in before.items() if not torch.equal(value, method.model.state_dict()[name])}
    assert bool(moved) == tune_backbone


def test_a_frozen_head_forgets_nothing_and_reads_the_features_at_length_one() -> None:
    method, stream = ClassHead(TASKS, make_backbone()), make_stream()
    answers = []
    learn_stream(
        method,
        stream,
        batch_size=4,
        config=LoopConfig(max_steps=2, learning_rate=0.05, optimizer="adam"),
        seeds=Seeds(0),
        after=lambda experience: answers.append(method.model(pictures())["objects"].detach()),
    )
    first = list(stream.groups[0])
    torch.testing.assert_close(answers[0][:, first], answers[-1][:, first])
    features = F.normalize(make_backbone()(pictures()), dim=1)
    torch.testing.assert_close(answers[-1][:, first], method.model.head.rows[0](features).detach())


def test_features_that_are_no_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match="reads vectors"):
        ClassHead(TASKS, ViTBackbone(16, width=8, depth=1, num_heads=2))
