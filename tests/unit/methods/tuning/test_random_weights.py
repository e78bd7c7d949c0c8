from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.bn_only import BatchNormOnly
from graftwork.methods.tuning.random_weights import RandomWeights
from graftwork.nn.backbones.cifar_resnet import CifarResNet
from graftwork.nn.weight_delta import Sparse


def test_as_many_weights_learn_as_batch_norm_has() -> None:
    one, two = CifarResNet(8, channels=(4, 5, 6)), CifarResNet(8, channels=(4, 5, 6))
    norms, weights = BatchNormOnly(), RandomWeights(per_filter=2)
    norms.attach(one)
    weights.attach(two)
    assert sum(item.numel() for item in norms.trainable()) == sum(item.numel() for item in weights.trainable())


def test_a_seed_draws_the_places_and_none_follows_the_global_generator() -> None:
    def places(seed: int | None) -> torch.Tensor:
        tuner = RandomWeights(seed=seed)
        tuner.attach(nn.Sequential(nn.Conv2d(3, 8, 3)))
        return tuner.layers["0"].places

    assert torch.equal(places(1), places(1))
    assert not torch.equal(places(1), places(2))
    assert not torch.equal(places(None), places(None))


def test_the_delta_is_sparse_but_for_running_statistics() -> None:
    model, tuner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), RandomWeights(per_filter=2)
    tuner.attach(model)
    with torch.no_grad():
        tuner.layers["0"].values.add_(0.5)
    model.train()(torch.randn(3, 1, 5, 5))
    delta = tuner.delta()
    assert set(delta.names()) == {"0.weight", "1.running_mean", "1.running_var"}
    part = delta.parts["0.weight"]
    assert isinstance(part, Sparse)
    assert len(part.values) == 8
    assert sorted(delta.tensor("0.weight").flatten().tolist(), reverse=True)[:8] == pytest.approx([0.5] * 8)
    tuner.fold()
    with pytest.raises(ConfigError, match="folded"):
        tuner.delta()


def test_faults_are_named() -> None:
    with pytest.raises(ConfigError, match="per_filter.*got 0"):
        RandomWeights(per_filter=0)
    with pytest.raises(ConfigError, match="needs convolutions"):
        RandomWeights().attach(nn.Sequential(nn.Linear(2, 2)))
    tuner = RandomWeights()
    tuner.attach(nn.Sequential(nn.Conv2d(1, 1, 1)))
    with pytest.raises(ConfigError, match="attached to a model already"):
        tuner.attach(nn.Sequential(nn.Conv2d(1, 1, 1)))
