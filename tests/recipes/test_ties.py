from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.claims.experiment import ArmContext
from graftwork.core.errors import AccessError
from graftwork.recipes.merging.ties import (
    FROZEN,
    LENGTH,
    RECIPE,
    TASKS,
    NearestName,
    UpperLayers,
    _encoder,
    _points,
    _states,
    _world,
)


def make_context(name: str, folder: Path) -> ArmContext:
    return ArmContext(
        slug="ties",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=0,
        smoke=True,
        work=folder / name,
        shared=folder / "shared",
    )


def test_upper_layers_on_stored_states_are_the_whole_encoder() -> None:
    encoder = _encoder()
    ids = torch.tensor([[101, 3899, 102, 0], [101, 4937, 3899, 102]])
    inputs = {"token_ids": ids, "attention_mask": (ids != 0).long()}
    texts = type("Texts", (), {"inputs": {name: value.numpy() for name, value in inputs.items()}})()
    packed = torch.from_numpy(_states(texts, np.arange(2)))
    assert packed.shape == (2, LENGTH * encoder.feature_shape.width + LENGTH)
    with torch.no_grad():
        torch.testing.assert_close(UpperLayers()(packed), encoder(inputs), atol=1e-5, rtol=1e-4)
    assert len(UpperLayers().layers) == len(encoder.block_list()) - FROZEN


def test_all_of_a_model_is_merged(tmp_path: Path) -> None:
    data = make_context("ties", tmp_path).guard(_world("emoji", 0, make_context("ties", tmp_path)))
    model = NearestName(data.visible.tasks[0])
    assert {f"layers.{name}" for name in model.layers.state_dict()} == {name for name, _ in model.named_parameters()}
    assert list(model.task_parameters("kind")) == []
    before = UpperLayers().state_dict()["layers.0.output.dense.weight"].clone()
    with torch.no_grad():
        model.layers.state_dict()["layers.0.output.dense.weight"].zero_()
    assert torch.equal(UpperLayers().state_dict()["layers.0.output.dense.weight"], before), "the pretrained encoder stays"


def test_padding_of_a_whole_batch_changes_nothing(tmp_path: Path) -> None:
    data = make_context("ties", tmp_path).guard(_world("emoji", 0, make_context("ties", tmp_path)))
    rows = torch.from_numpy(data.visible.inputs["numeric"][data.visible.splits["train"]])
    shortest = rows[rows[:, -LENGTH:].sum(dim=1).argmin()][None]
    layers = UpperLayers()
    with torch.no_grad():
        alone, among = layers(shortest), layers(torch.cat([shortest, rows]))
    assert int(shortest[:, -LENGTH:].sum()) < LENGTH
    torch.testing.assert_close(alone, among[:1], atol=1e-5, rtol=1e-4)


def test_points_count_each_text_with_its_own_label(tmp_path: Path) -> None:
    context = make_context("ties", tmp_path)
    data = context.guard(_world("emoji", 0, context))
    model = NearestName(data.visible.tasks[0]).eval()
    rows = data.visible.splits["val"]
    with torch.no_grad():
        answers = model({"numeric": torch.from_numpy(data.visible.inputs["numeric"][rows])})["kind"].argmax(dim=1)
    right = answers.numpy() == data.visible.targets["kind"][rows]
    assert _points(model, data, "val") == pytest.approx(100.0 * right.mean())


def test_test_texts_are_questions(tmp_path: Path) -> None:
    context = make_context("ties", tmp_path)
    data = context.guard(_world("emoji", 0, context))
    with pytest.raises(AccessError):
        data.visible.splits["test"]
    assert set(_world("emoji", 0, context).splits) == {"train", "val", "test"}


def test_arms_differ_only_in_what_is_compared() -> None:
    ours = RECIPE.arm("ties-tuned").settings
    for name, option in (("no-trim", "trim"), ("no-elect", "elect"), ("plain-mean", "divide_by")):
        assert list(RECIPE.arm(name).settings["options"]) == [option]
    assert RECIPE.arm("ties").settings == {**ours, "conflicts": True}, "the untuned arm is at the paper's defaults"
    assert len(TASKS) == 8
