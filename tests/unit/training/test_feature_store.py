"""The feature store: right numbers, computed once, never from other weights or inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.training.feature_store import cached_features, feature_key


class Counting(Backbone):
    """A backbone with everything that may go wrong in training mode; it counts its passes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
        self.feature_shape = FeatureShape("vector", 5)
        self.passes = 0

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        self.passes += 1
        return self.layers(inputs["numeric"])


def suite(rows: int = 10, shift: float = 0.0) -> Suite:
    numeric = np.linspace(-1, 1, rows * 3, dtype=np.float32).reshape(rows, 3) + np.float32(shift)
    return Suite.of_arrays(
        name="rows",
        input_specs={"table": InputSpec(kind="table")},
        tasks=[TaskSpec(name="y", kind="binary", size=1)],
        inputs={"numeric": numeric, "categorical": np.zeros((rows, 0), np.int64)},
        targets={"y": np.zeros(rows, np.int64)},
        splits={"train": np.arange(rows)},
    )


def test_features_are_those_of_the_backbone_in_evaluation_mode(tmp_path: Path) -> None:
    backbone, data = Counting().train(), suite()
    statistics = backbone.layers[1].running_mean.clone()
    done: list[tuple[int, int]] = []
    features = cached_features(backbone, data.inputs, tmp_path, 4, lambda finished, total: done.append((finished, total)))
    assert done == [(4, 10), (8, 10), (10, 10)]
    assert features.dtype == np.float32
    assert features.shape == (10, 5)
    assert all(module.training for module in backbone.modules())
    assert torch.equal(backbone.layers[1].running_mean, statistics)
    expected = backbone.eval()({"numeric": torch.from_numpy(data.inputs["numeric"])}).detach().numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-6)


def test_computed_once_for_equal_weights_and_inputs(tmp_path: Path) -> None:
    first, data = Counting(), suite()
    stored = cached_features(first, data.inputs, tmp_path, 5)
    again = Counting()
    np.testing.assert_array_equal(cached_features(again, data.inputs, tmp_path, 7), stored)
    assert (first.passes, again.passes) == (2, 0)
    for backbone, other in ((Counting(seed=1), data), (Counting(), suite(shift=1.0)), (Counting(), suite(rows=9))):
        found = cached_features(backbone, other.inputs, tmp_path, 100)
        assert backbone.passes == 1
        assert found.shape != stored.shape or not np.array_equal(found, stored)


def test_key_depends_on_every_input() -> None:
    data = suite()
    other = data.with_inputs({**data.inputs, "categorical": np.ones((10, 1), np.int64)})
    assert feature_key(Counting(), data.inputs) == feature_key(Counting(), suite().inputs)
    assert feature_key(Counting(), data.inputs) != feature_key(Counting(), other.inputs)


def test_a_damaged_file_is_computed_again_with_a_warning(tmp_path: Path) -> None:
    data = suite()
    stored = np.array(cached_features(Counting(), data.inputs, tmp_path))
    file = next(tmp_path.glob("features-*/features-*.npy"))
    file.write_bytes(file.read_bytes()[:-2])
    backbone = Counting()
    with pytest.warns(RuntimeWarning, match="damaged"):
        np.testing.assert_array_equal(cached_features(backbone, data.inputs, tmp_path), stored)
    assert backbone.passes == 1


def test_bad_settings_and_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`batch_size` must be at least 1; got 0"):
        cached_features(Counting(), suite().inputs, tmp_path, 0)
    broken = Counting()
    broken.layers[0].bias.data[2] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite for 10 of 10 rows"):
        cached_features(broken, suite().inputs, tmp_path)
    assert not list(tmp_path.glob("features-*"))


class MeanToken(Backbone):
    """The mean token number over the real tokens, which padding must not change; counts what it looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("vector", 1)
        self.seen = 0

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tokens, mask = inputs["token_ids"].float(), inputs["attention_mask"].float()
        self.seen += tokens.numel()
        return (tokens * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def test_texts_of_like_length_are_read_together_without_their_padding(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    lengths = np.array([1, 40, 2, 40, 3, 0])
    mask = (np.arange(40) < lengths[:, None]).astype(np.int64)
    tokens = draw.integers(1, 99, size=mask.shape) * mask
    backbone = MeanToken()
    features = cached_features(backbone, {"token_ids": tokens, "attention_mask": mask}, tmp_path, batch_size=2)
    np.testing.assert_allclose(features[:, 0], tokens.sum(axis=1) / np.maximum(lengths, 1), rtol=1e-6)
    assert backbone.seen == 2 * 1 + 2 * 3 + 2 * 40
    in_front = MeanToken()
    turned = {"token_ids": tokens[:, ::-1].copy(), "attention_mask": mask[:, ::-1].copy()}
    np.testing.assert_allclose(cached_features(in_front, turned, tmp_path, batch_size=2), features, rtol=1e-6)
    assert in_front.seen == 6 * 40
