from __future__ import annotations

import torch
from torch import nn

from graftwork.training.replay import frozen_statistics, get_random_state, replaying, tracking_layers

CPU = torch.device("cpu")


def layers_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True, track_running_stats=True), nn.Dropout(0.5)
    )


def test_statistics_stay_and_outputs_are_those_of_training() -> None:
    model, twin = layers_model(), layers_model()
    inputs = torch.randn(3, 2, 5)
    tracked = tracking_layers(model)
    assert [type(layer).__name__ for layer in tracked] == ["BatchNorm1d", "InstanceNorm1d"]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(1)
    with frozen_statistics(tracked):
        frozen = model(inputs)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    torch.manual_seed(1)
    assert torch.equal(twin(inputs), frozen)
    model(inputs)
    assert not torch.equal(model[1].running_mean, before["1.running_mean"]), "afterwards they are followed again"
    assert int(model[1].num_batches_tracked) == 1
    assert torch.equal(model[2].running_mean, twin[2].running_mean)


def test_layers_in_evaluation_mode_keep_using_their_statistics() -> None:
    model = layers_model().eval()
    model[1].running_mean.fill_(3.0)
    inputs = torch.randn(3, 2, 5)
    with frozen_statistics(tracking_layers(model)):
        frozen = model(inputs)
    assert torch.equal(frozen, model(inputs))


def test_the_same_masks_again_and_the_random_state_goes_on() -> None:
    model = layers_model()
    inputs = torch.randn(3, 2, 5)
    states = get_random_state(CPU)
    first = model(inputs)
    after = torch.get_rng_state()
    other = model(inputs)
    torch.set_rng_state(after)
    for _ in range(2):
        with replaying(CPU, states, tracking_layers(model)):
            assert torch.equal(model(inputs), first)
        assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(other, first)
