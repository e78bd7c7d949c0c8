from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import FeatureShape
from graftwork.nn.heads import DenseHead, build_head, output_size

SHAPES = {
    "vector": (FeatureShape("vector", 6), (4, 6)),
    "tokens": (FeatureShape("tokens", 6, (5,)), (4, 5, 6)),
    "map": (FeatureShape("map", 6, (2, 3)), (4, 6, 2, 3)),
}


@pytest.mark.parametrize("layout", sorted(SHAPES))
@pytest.mark.parametrize("hidden", [None, 0, 3])
def test_one_prediction_a_row_from_every_layout(layout: str, hidden: int | None) -> None:
    shape, size = SHAPES[layout]
    head = build_head(shape, TaskSpec(name="stars", kind="ordinal", size=5), hidden=hidden)
    assert head(torch.randn(size)).shape == (4, 4)


def test_maps_are_pooled_by_mean_and_maximum() -> None:
    head = build_head(FeatureShape("map", 2, (4, 4)), TaskSpec(name="ink", kind="regression", size=1), hidden=0)
    spot = torch.zeros(1, 2, 4, 4)
    spot[0, 0, 1, 2] = 16.0  # mean 1, maximum 16: one without the other could not tell a spot from a tint
    tint = torch.ones(1, 2, 4, 4)
    tint[0, 1] = 0.0
    assert not torch.allclose(head(spot), head(tint))
    torch.testing.assert_close(head(spot), head(spot.flip(2)))


def test_a_dense_head_reaches_the_targets_size_and_is_smooth() -> None:
    task = TaskSpec(name="depth", kind="dense_regression", size=1)
    head = build_head(FeatureShape("map", 4, (2, 2)), task, size=(8, 6)).double()
    assert isinstance(head, DenseHead)
    features = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert head(features).shape == (1, 1, 8, 6)
    assert torch.autograd.gradgradcheck(lambda x: head(x).square().mean(), (features,))


def test_a_dense_task_needs_a_map_and_a_size() -> None:
    task = TaskSpec(name="depth", kind="dense_regression", size=1)
    with pytest.raises(ConfigError, match="'depth' asks for one prediction per pixel, but the backbone gives 'vector' features"):
        build_head(FeatureShape("vector", 4), task, size=(8, 8))
    with pytest.raises(ConfigError, match="'depth' asks for one prediction per pixel, but no input of the suite is a picture"):
        build_head(FeatureShape("map", 4, (2, 2)), task)


def test_the_size_of_dense_targets() -> None:
    assert output_size(image_input(32)) == (32, 32)
    assert output_size({**table_input(3), **image_input(16)}) == (16, 16)
    assert output_size(table_input(3)) is None


@pytest.mark.parametrize("positions", ["points", "steps", "nodes"])
def test_other_positions_get_one_answer_a_token_and_tokens_do_not_mix(positions: str) -> None:
    task = TaskSpec(name="load", kind="regression", size=2, positions=positions)
    head = build_head(FeatureShape("tokens", 6, (5,)), task)
    features = torch.randn(3, 5, 6)
    changed = features.clone()
    changed[:, 1] = torch.randn(3, 6)
    first, second = head(features), head(changed)
    assert first.shape == (3, 2, 5)
    torch.testing.assert_close(first[:, :, [0, 2, 3, 4]], second[:, :, [0, 2, 3, 4]])
    assert not torch.allclose(first[:, :, 1], second[:, :, 1])
    with pytest.raises(ConfigError, match="one prediction for each of its"):
        build_head(FeatureShape("vector", 6), task)
