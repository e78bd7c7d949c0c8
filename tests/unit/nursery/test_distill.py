"""What students read and learn: masked patches, mirrored targets, batches as a function of the step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nn.backbones.mini_vit import MiniViT
from graftwork.nursery import distill
from graftwork.nursery.distill import Distillation, Lesson, LessonSource, masked_tokens, whole_maps

VIT: dict[str, Any] = {"width": 8, "depth": 2, "num_heads": 2}


def arrays(count: int = 10) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, size=(count, 16, 16, 3), dtype=np.uint8),
        "label": np.arange(count),
        "pooled": (3.0 + 2.0 * random.random(size=(count, 1280))).astype(np.float16),
        "map": (5.0 + 0.5 * random.normal(size=(count, 64, 112))).astype(np.float16),
    }


def test_masked_patches_are_read_alone() -> None:
    torch.manual_seed(0)
    model = MiniViT(**VIT).eval()
    image = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    states = masked_tokens(5, until=2)(model, image, 1)
    assert states.read is not None
    assert states.read.shape == (3, 5)
    assert all(len(set(row)) == 5 for row in states.read.tolist())
    # The same patches alone, by hand.
    tokens = torch.stack([model.embed({"image": image})[row, states.read[row]] for row in range(3)])
    for block in model.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(states.places, model.final_norm(tokens))
    torch.testing.assert_close(states.pooled, states.places.mean(dim=1))


def test_all_patches_are_read_in_the_end() -> None:
    torch.manual_seed(0)
    model = MiniViT(**VIT).eval()
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    states = masked_tokens(5, until=2)(model, image, 2)
    assert states.read is None
    torch.testing.assert_close(states.pooled, model({"image": image}))


def test_maps_of_a_convolutional_student_are_places() -> None:
    model = MiniConv(width=8).eval()
    states = whole_maps(2)(model, torch.zeros(2, 64, 64, 3, dtype=torch.uint8), 0)
    assert states.places.shape == (2, 64, 40)
    assert states.pooled.shape == (2, 8)


@settings(max_examples=20, deadline=None)
@given(step=st.integers(0, 40))
def test_batches_are_a_function_of_the_step(step: int) -> None:
    jumping, other = (LessonSource(arrays(), 3, Seeds(1)) for _ in range(2))
    other.batch(7)
    first, again = jumping.batch(step), other.batch(step)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.places, again.places)


def test_an_epoch_shows_every_picture_once_in_another_order() -> None:
    source = LessonSource(arrays(9), 3, Seeds(1))
    epochs = [[source.batch(3 * epoch + step).label.tolist() for step in range(3)] for epoch in range(2)]
    assert [sorted(np.concatenate(epoch).tolist()) for epoch in epochs] == [list(range(9))] * 2
    assert epochs[0] != epochs[1]


def test_targets_are_standardised_by_channel() -> None:
    values = arrays()
    lesson = LessonSource(values, 10, Seeds(1)).batch(0)
    assert lesson.pooled.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(lesson.places.std(dim=(0, 1), correction=0), torch.ones(112), atol=1e-3, rtol=0)
    assert LessonSource(values, 64, Seeds(1)).batch_size == 10  # at most all


def test_targets_of_mirrored_pictures_are_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "JITTER", 0.0)
    torch.manual_seed(0)
    columns = torch.arange(8.0).repeat(8)  # each place says in which column it lies
    places = columns.view(1, 64, 1).expand(40, 64, 112)
    image = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1).expand(40, 8, 8, 3)
    seen, told = distill._augmented(image, places)
    assert torch.equal(seen[:, :, :, 0].flatten(1).float(), told[:, :, 0])
    mirrored = seen[:, 0, 0, 0] == 7
    assert 5 < int(mirrored.sum()) < 35


def test_pictures_without_a_label_teach_none() -> None:
    torch.manual_seed(0)
    model = MiniViT(**VIT)
    step = Distillation(model, masked_tokens(64, 0), widths=(8, 8), num_labels=3)
    lesson = Lesson(
        torch.zeros(4, 64, 64, 3, dtype=torch.uint8), torch.zeros(4, 1280), torch.zeros(4, 64, 112), torch.full((4,), -1)
    )
    losses = step.backward(lesson, 0)
    assert losses[2] == 0
    assert torch.isfinite(losses).all()
    heads = step.modules()["heads"]
    assert not heads.label.weight.grad.any()  # type: ignore[union-attr]
    assert heads.pooled.weight.grad.any()  # type: ignore[union-attr]
