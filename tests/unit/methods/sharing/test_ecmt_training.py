from __future__ import annotations

import numpy as np
import pytest
import torch
from sharing_models import LinearBackbone

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.sharing.ecmt import ECMT
from graftwork.methods.sharing.ecmt_training import ConfigurationTraining, feature_distance, sample_configurations
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.tasks.losses import task_loss

TASKS = (TaskSpec(name="price", kind="regression", size=1), TaskSpec(name="late", kind="binary", size=1))
SIZES = table_input(3, [3])


def build() -> ECMT:
    torch.manual_seed(0)
    return ECMT(TASKS, inputs=SIZES, channels=(16, 16), decoder_width=8)


def step(model: SharedModel, number: int = 0) -> ObjectiveInputs:
    generator = torch.Generator().manual_seed(7)
    inputs = {"numeric": torch.randn(6, 3, generator=generator), "categorical": torch.zeros(6, 1, dtype=torch.int64)}
    targets = {"price": torch.randn(6, 1, generator=generator), "late": torch.randint(0, 2, (6,), generator=generator)}
    features = model.encode(inputs)
    assert isinstance(features, torch.Tensor)
    outputs = model.decode(features)
    losses = torch.stack([task_loss(task, outputs[task.name], targets[task.name]) for task in TASKS])
    batch = Batch(inputs, targets, {}, torch.arange(6), torch.zeros(6, dtype=torch.int64))
    return ObjectiveInputs(batch, model, outputs, losses, features, number)


def value(tensor: torch.Tensor) -> float:
    return tensor.detach().item()


def test_the_loss_is_that_of_each_slice_and_its_distance_to_the_parent() -> None:
    model = build()
    inputs = step(model)
    objective = ConfigurationTraining(num_random=3, distill_weight=0.5, distill="leading")
    expected = torch.zeros(())
    for configuration in sample_configurations(model, np.random.default_rng([0, 0]), 3):
        network = model.slice(configuration)
        outputs = network(inputs.batch.inputs)
        for task in TASKS:
            expected = expected + task_loss(task, outputs[task.name], inputs.batch.targets[task.name])
        features = network.encode(inputs.batch.inputs)
        assert inputs.representation is not None
        expected = expected + 0.5 * feature_distance(features, inputs.representation)
    torch.testing.assert_close(objective.loss(inputs), expected)
    assert model.configuration == model.full


def test_the_parent_teaches_and_never_follows() -> None:
    model = build()
    inputs = step(model)
    assert inputs.representation is not None
    with model.configured(model.uniform(0.5)):
        slim = model.encode(inputs.batch.inputs)
        distance = feature_distance(model.project(slim), inputs.representation)
    (toward_parent, toward_slim) = torch.autograd.grad(distance, [inputs.representation, slim], allow_unused=True)
    assert toward_parent is None
    assert bool(toward_slim.any())


def test_distance_by_hand() -> None:
    slim = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    parent = torch.tensor([[6.0, 8.0, 99.0], [5.0, 0.0, 99.0]])
    assert float(feature_distance(slim, parent)) == pytest.approx((0.0 + 2.0) / 2)
    assert float(feature_distance(-slim[:1], parent[:1])) == pytest.approx(4.0)
    maps = slim.view(1, 2, 2, 1).transpose(1, 2)  # the two rows become two places
    places = parent.view(1, 2, 3, 1).transpose(1, 2)
    assert float(feature_distance(maps, places)) == pytest.approx(1.0)


def test_projections_and_all_norms_learn() -> None:
    model = build()
    objective = ConfigurationTraining(num_random=40)
    inputs = step(model)
    (inputs.losses.sum() + objective.loss(inputs)).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_draws_depend_on_seed_and_step_alone_and_cover_everything() -> None:
    model = build()
    objective = ConfigurationTraining()
    assert value(objective.loss(step(model, 3))) == value(objective.loss(step(model, 3)))
    assert value(objective.loss(step(model, 3))) != value(objective.loss(step(model, 4)))
    drawn = sample_configurations(model, np.random.default_rng(0), 2000, smallest=False)
    assert {configuration.key() for configuration in drawn} == {
        (encoder, (("late", late), ("price", price)))
        for encoder in model.ratios
        for late in model.ratios
        for price in model.ratios
    }
    common = sample_configurations(model, np.random.default_rng(0), 50, common_ratio=True)
    assert {configuration.key() for configuration in common} == {model.uniform(ratio).key() for ratio in model.ratios}
    assert common[-1] == model.uniform(0.25)


def test_without_configurations_nothing_is_added() -> None:
    model = build()
    assert value(ConfigurationTraining(num_random=0, smallest=False).loss(step(model))) == 0.0


def test_what_cannot_be_is_refused() -> None:
    for settings in ({"num_random": -1}, {"distill_weight": float("nan")}):
        with pytest.raises(ConfigError, match="at least 0"):
            ConfigurationTraining(**settings)
    with pytest.raises(ConfigError, match="projection or leading; got 'logits'"):
        ConfigurationTraining(distill="logits")
    other = SharedTrunk(TASKS, LinearBackbone, inputs=SIZES)
    with pytest.raises(ConfigError, match="this plan shares by SharedTrunk"):
        ConfigurationTraining().loss(step(other))
