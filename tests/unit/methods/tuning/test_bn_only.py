from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.bn_only import BatchNormOnly, draw_scales_, small_scale_share, zero_small_scales_


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)
    )


def test_scales_and_shifts_learn_and_nothing_else() -> None:
    model, tuner = network(), BatchNormOnly()
    tuner.attach(model)
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
        "1.weight",
        "1.bias",
        "4.weight",
        "4.bias",
    ]
    assert sum(parameter.numel() for parameter in tuner.trainable()) == 2 * (4 + 2)


def test_running_statistics_follow_the_data_and_are_part_of_the_delta() -> None:
    model, tuner = network(), BatchNormOnly()
    tuner.attach(model)
    model.train()(torch.randn(8, 1, 5, 5) + 3.0)
    delta = tuner.delta()
    assert set(delta.names()) == {"1.running_mean", "1.running_var", "4.running_mean", "4.running_var"}
    assert not bool((delta.tensor("1.running_mean") == 0).all())


def test_a_model_without_batch_norm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs BatchNorm layers.*It normalises with LayerNorm"):
        BatchNormOnly().attach(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))


def test_layers_without_a_scale_are_left_out() -> None:
    model, tuner = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3)), BatchNormOnly()
    tuner.attach(model)
    assert len(list(tuner.trainable())) == 2


def test_the_paper_draws_scales_from_zero_to_one() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2000))
    draw_scales_(model, torch.Generator().manual_seed(0))
    scale = model[0].weight.detach()
    assert 0.0 <= float(scale.min()) < float(scale.max()) < 1.0
    assert float(scale.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(model[0].bias.abs().max()) == 0.0
    assert small_scale_share(model) == pytest.approx(0.01, abs=0.008)
    with torch.no_grad():
        model[0].weight[:500] = -0.005
    assert small_scale_share(model) > 0.25
    with pytest.raises(ConfigError, match="no BatchNorm layer"):
        small_scale_share(nn.Linear(2, 2))


def test_small_scales_are_set_to_zero_and_no_others() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(2, affine=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.009, -0.009, 0.011, -1.0]))
    zero_small_scales_(model, 0.01)
    assert model[0].weight.tolist() == pytest.approx([0.0, 0.0, 0.011, -1.0])
    assert model[0].bias.tolist() == [0.0] * 4
