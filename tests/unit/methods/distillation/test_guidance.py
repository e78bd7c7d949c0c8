from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suites.glyphs import glyphs
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.math.representation_similarity import linear_cka
from graftwork.methods.distillation.guidance import Guidance, evenly_paired, noise_like
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.cifar_resnet import CifarResNet
from graftwork.training.trainer import TrainConfig, Trainer

GUIDE: dict[str, Any] = {
    "path": "graftwork.nn.backbones.cifar_resnet:CifarResNet",
    "settings": {"depth": 8, "channels": [4, 4, 8]},
}


class Deep(Backbone):
    """Three linear layers on all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(12 * 12, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
        self.feature_shape = FeatureShape("vector", 16)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        states = inputs["image"][..., 0].flatten(1).float() / 255.0
        for layer in self.layers:
            states = torch.relu(layer(states))
        return states


def trainer(objective: Guidance, *, rate: float = 1e-2, steps: int = 8) -> Trainer:
    suite = glyphs(num_train=64, num_val=8, num_test=8, num_classes=4, size=12)
    torch.manual_seed(0)
    model = SharedTrunk(suite.tasks, Deep, inputs=suite.input_specs, head_hidden=0)
    config = TrainConfig(max_steps=steps, batch_size=16, learning_rate=rate, evaluations=0)
    stream = BatchStream(suite, suite.splits["train"], 16, 0)
    return Trainer(model, suite.tasks, stream, balancer=EqualWeights(), objectives=[objective], config=config, seeds=Seeds(0))


def guide_of(made: Trainer) -> Backbone:
    (objective,) = made.objectives
    assert isinstance(objective, Guidance)
    assert objective.guide is not None
    return objective.guide


def test_layers_are_paired_at_even_distances() -> None:
    assert evenly_paired(["g0", "g1", "g2", "g3"], ["s0", "s1"]) == [("g0", "s0"), ("g1", "s0"), ("g2", "s1"), ("g3", "s1")]
    assert evenly_paired(["g"], ["s0", "s1"]) == [("g", "s0")]
    assert [pair[1] for pair in evenly_paired(list("abcd"), list("0123456"))] == ["0", "2", "4", "6"]


def test_the_term_is_one_minus_the_alignment_of_each_pair() -> None:
    layers = ("backbone.layers.0", "backbone.layers.2")
    made = trainer(Guidance(GUIDE, weight=2.0, layers=layers, guide_layers=("stages.0", "stages.2")))
    (objective,) = made.objectives
    batch = made.stream.batch(0)
    with objective.watching(made.model):
        made.model(batch.inputs)
    found = objective.loss(_inputs(made, batch))
    guide = guide_of(made)
    assert all(not parameter.requires_grad for parameter in guide.parameters())
    states = [batch.inputs["image"][..., 0].flatten(1).float() / 255.0]
    for layer in made.model.backbone.layers:  # type: ignore[union-attr]
        states.append(layer(torch.relu(states[-1]) if len(states) > 1 else states[-1]))
    picture = batch.inputs["image"].permute(0, 3, 1, 2).float() / 127.5 - 1.0
    assert isinstance(guide, CifarResNet)
    maps = [torch.relu(guide.norm(guide.stem(picture)))]
    for stage in guide.stages:
        maps.append(stage(maps[-1]))
    expected = sum(
        1.0 - linear_cka(one.detach().numpy(), two.detach().flatten(1).numpy())
        for one, two in ((states[1], maps[1]), (states[3], maps[3]))
    )
    torch.testing.assert_close(float(found.detach()), 2.0 * expected, rtol=1e-3, atol=1e-4)


def _inputs(made: Trainer, batch: Any, step: int = 0) -> Any:
    from graftwork.interfaces.objective import ObjectiveInputs

    representation = made.model.encode(batch.inputs)
    assert isinstance(representation, Tensor)
    return ObjectiveInputs(batch, made.model, made.model.decode(representation), torch.zeros(1), representation, step)


def test_all_layers_of_both_networks_take_part_and_no_head() -> None:
    objective = Guidance(GUIDE)
    made = trainer(objective)
    own = [pair[1] for pair in objective.pairs]
    assert set(own) == {f"backbone.layers.{number}" for number in range(3)}
    # The stem, two convolutions a block and two shortcuts: the guide's layers, each once.
    assert len(objective.pairs) == 1 + 6 + 2
    assert objective.pairs[0] == ("stem", "backbone.layers.0")
    assert objective.pairs[-1][1] == "backbone.layers.2"
    assert all(not module._forward_hooks for module in made.model.modules())


def test_guided_layers_become_alike_and_the_guide_stays() -> None:
    made = trainer(Guidance(GUIDE, weight=20.0), steps=40)
    before = {name: value.clone() for name, value in guide_of(made).named_parameters()}
    (objective,) = made.objectives

    def term() -> float:
        batch = made.stream.batch(0)
        with objective.watching(made.model):
            made.model(batch.inputs)
        return float(objective.loss(_inputs(made, batch)).detach())

    first = term()
    made.train(40)
    assert term() < 0.7 * first
    assert all(torch.equal(value, before[name]) for name, value in guide_of(made).named_parameters())


def test_an_untrained_guide_takes_the_statistics_of_the_batch() -> None:
    """Running statistics of a network that never ran would be mean 0 and variance 1."""
    untrained = guide_of(trainer(Guidance(GUIDE)))
    assert all(module.training for module in untrained.modules() if isinstance(module, nn.BatchNorm2d))


def test_a_trained_guide_is_read_from_its_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = CifarResNet(8, channels=(4, 4, 8))
    safetensors.torch.save_file(network.state_dict(), tmp_path / "guide.safetensors")
    made = trainer(Guidance(GUIDE, weights=str(tmp_path / "guide.safetensors")))
    assert torch.equal(guide_of(made).state_dict()["stem.weight"], network.stem.weight)
    assert not any(module.training for module in guide_of(made).modules())
    with pytest.raises(FileFormatError, match="does not hold the weights of CifarResNet"):
        trainer(Guidance({**GUIDE, "settings": {"depth": 14}}, weights=str(tmp_path / "guide.safetensors")))
    with pytest.raises(FileFormatError, match="does not hold the weights"):
        trainer(Guidance(GUIDE, weights=str(tmp_path / "absent.safetensors")))


def test_after_its_steps_the_guide_is_gone() -> None:
    made = trainer(Guidance(GUIDE, steps=3))
    (objective,) = made.objectives
    for step, is_there in ((2, True), (3, False)):
        batch = made.stream.batch(step)
        with objective.watching(made.model):
            made.model(batch.inputs)
        assert bool(objective.loss(_inputs(made, batch, step)) > 0) == is_there


def test_noise_has_nothing_of_the_batch_and_is_the_same_for_the_same_step() -> None:
    inputs = {"image": torch.full((2, 4, 4, 3), 7, dtype=torch.uint8), "codes": torch.tensor([3, 9]), "x": torch.ones(5)}
    drawn, again = (noise_like(inputs, torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(drawn[name], again[name]) for name in inputs)
    assert {name: (value.shape, value.dtype) for name, value in drawn.items()} == {
        name: (value.shape, value.dtype) for name, value in inputs.items()
    }
    assert drawn["image"].float().std() > 30
    assert drawn["codes"].max() <= 9
    whole, noisy = trainer(Guidance(GUIDE)), trainer(Guidance(GUIDE, noise=True))
    whole.train(3)
    noisy.train(3)
    assert any(not torch.equal(one, two) for one, two in zip(whole.model.parameters(), noisy.model.parameters(), strict=True))


def test_a_training_goes_on_with_the_same_bits() -> None:
    whole, first, second = (trainer(Guidance(GUIDE, noise=True)) for _ in range(3))
    whole.train(8)
    first.train(3)
    second.load_state_dict(first.state_dict())
    second.train(8)
    assert all(torch.equal(one, two) for one, two in zip(whole.model.parameters(), second.model.parameters(), strict=True))


def test_what_cannot_guide_is_refused() -> None:
    with pytest.raises(ConfigError, match="No frozen network is named"):
        trainer(Guidance())
    with pytest.raises(ConfigError, match="'minilm' reads text data, and the rows hold image"):
        trainer(Guidance("minilm"))
    with pytest.raises(ConfigError, match=r"There is no backbone 'conv-minni'"):
        trainer(Guidance("conv-minni"))
    with pytest.raises(ConfigError, match=r"SharedTrunk has no module 'backbone.layers.9'"):
        trainer(Guidance(GUIDE, layers=("backbone.layers.9",)))
    with pytest.raises(ConfigError, match="steps must be a whole number"):
        Guidance(GUIDE, steps=-1)
    table: dict[str, Any] = {"path": "graftwork.nn.backbones.mlp:TableBackbone", "settings": {"num_numeric": 3}}
    with pytest.raises(ConfigError, match="The guide TableBackbone cannot read these rows"):
        trainer(Guidance(table))
