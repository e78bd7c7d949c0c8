"""OT fusion: shuffled copies are put back, soft maps, other widths, policies, and what it does not know."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import zscore
from torch import nn

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.suite import Suite
from graftwork.data.suites.glyphs import glyphs
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.merging.ot_fusion import OTFusion, OTFusionConfig, _standardized, combine_maps, unit_transport
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.workflows.merge_kinds import merge_context


@pytest.fixture(scope="module")
def suite() -> Suite:
    return glyphs(num_train=40, num_val=4, num_test=4, num_classes=3, size=8, seed=0)


@pytest.fixture
def context(suite: Suite) -> MergeContext:
    return merge_context(suite, {})


def build(suite: Suite, width: int = 8, seed: int = 0, depth: int = 2) -> SharedTrunk:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SharedTrunk(
            suite.tasks,
            lambda: ViTBackbone(8, patch=4, width=width, depth=depth, num_heads=2, hidden=2 * width),
            inputs=suite.input_specs,
            head_hidden=0,
        )
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data += 0.3 * torch.randn(parameter.shape)
    return model


def model_of(suite: Suite, state: dict[str, np.ndarray] | None = None, **options: Any) -> MergeModel:
    make = functools.partial(build, suite, **options)
    state = {name: value.numpy() for name, value in make().state_dict().items()} if state is None else state

    def network() -> nn.Module:
        found = make()
        found.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in state.items()})
        return found

    return MergeModel(name=f"m{options.get('seed', 0)}", tensors=state, network=network)


def shuffled(state: dict[str, np.ndarray], width: int, hidden: int, seed: int) -> dict[str, np.ndarray]:
    """Return the same function with units of the stream, of values and of the feed-forward networks in another order."""
    random = np.random.default_rng(seed)
    stream = random.permutation(width)
    found = {name: value.copy() for name, value in state.items()}
    for name, value in state.items():
        if name in ("backbone.patches.weight", "backbone.patches.bias") or "norm" in name:
            found[name] = value[stream]
        elif name == "backbone.positions" or (name.startswith("heads.") and value.ndim == 2):
            found[name] = value[..., stream]
    for block in range(2):
        prefix = f"backbone.blocks.{block}"
        # Within each head: attention looks at one head at a time.
        values = np.concatenate([head * (width // 2) + random.permutation(width // 2) for head in range(2)])
        keys = np.concatenate([head * (width // 2) + random.permutation(width // 2) for head in range(2)])
        rows = np.concatenate([keys, width + keys, 2 * width + values])
        inner = random.permutation(hidden)
        found[f"{prefix}.attention.project.weight"] = state[f"{prefix}.attention.project.weight"][rows][:, stream]
        found[f"{prefix}.attention.project.bias"] = state[f"{prefix}.attention.project.bias"][rows]
        found[f"{prefix}.attention.output.weight"] = state[f"{prefix}.attention.output.weight"][stream][:, values]
        found[f"{prefix}.attention.output.bias"] = state[f"{prefix}.attention.output.bias"][stream]
        found[f"{prefix}.feed.0.weight"] = state[f"{prefix}.feed.0.weight"][inner][:, stream]
        found[f"{prefix}.feed.0.bias"] = state[f"{prefix}.feed.0.bias"][inner]
        found[f"{prefix}.feed.3.weight"] = state[f"{prefix}.feed.3.weight"][stream][:, inner]
        found[f"{prefix}.feed.3.bias"] = state[f"{prefix}.feed.3.bias"][stream]
    return found


def outputs(model: MergeModel, state: dict[str, np.ndarray], suite: Suite) -> torch.Tensor:
    network = model.build()
    network.load_state_dict({name: torch.from_numpy(np.array(value, np.float32)) for name, value in state.items()})
    with torch.no_grad():
        return network({"image": torch.from_numpy(suite.inputs["image"])})["letter"]  # type: ignore[no-any-return]


def test_the_shuffled_copy_answers_alike(suite: Suite) -> None:
    anchor = model_of(suite)
    copy = shuffled(dict(anchor.tensors), 8, 16, 1)
    torch.testing.assert_close(outputs(anchor, copy, suite), outputs(anchor, dict(anchor.tensors), suite), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cost", ["activations", "weights"])
@pytest.mark.parametrize("policy", ["mean", "residual", "weighted"])
def test_exact_maps_put_a_shuffled_copy_back(cost: Any, policy: Any, suite: Suite, context: MergeContext) -> None:
    if cost == "weights" and policy == "weighted":
        with pytest.raises(ConfigError, match="weighs by activations"):
            OTFusionConfig(cost=cost, policy=policy)
        return
    anchor = model_of(suite)
    copy = model_of(suite, shuffled(dict(anchor.tensors), 8, 16, 1))
    fused = OTFusion(OTFusionConfig(solver="exact", cost=cost, policy=policy)).merge(None, [copy, anchor], context)
    assert set(fused) == set(anchor.tensors)
    for name, value in anchor.tensors.items():
        np.testing.assert_allclose(fused[name], value, rtol=1e-4, atol=1e-5)


def test_standardized_activations_are_z_scores_and_put_a_shuffled_copy_back(suite: Suite, context: MergeContext) -> None:
    values = np.random.default_rng(0).normal(loc=3.0, scale=5.0, size=(4, 30))
    np.testing.assert_allclose(_standardized(values), zscore(values, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(_standardized(np.full((2, 5), 7.0)), 0.0)
    anchor = model_of(suite)
    copy = model_of(suite, shuffled(dict(anchor.tensors), 8, 16, 1))
    fused = OTFusion(OTFusionConfig(solver="exact", standardize=True)).merge(None, [copy, anchor], context)
    for name, value in anchor.tensors.items():
        np.testing.assert_allclose(fused[name], value, rtol=1e-4, atol=1e-5)


def test_soft_maps_are_nearer_to_the_anchor_than_the_plain_mean(suite: Suite, context: MergeContext) -> None:
    anchor = model_of(suite)
    copy = model_of(suite, shuffled(dict(anchor.tensors), 8, 16, 1))
    expected = outputs(anchor, dict(anchor.tensors), suite)
    soft = OTFusion(OTFusionConfig(regularization=0.02)).merge(None, [copy, anchor], context)
    plain = {name: 0.5 * (value + copy.tensors[name]) for name, value in anchor.tensors.items()}
    assert (outputs(anchor, soft, suite) - expected).norm() < 0.5 * (outputs(anchor, plain, suite) - expected).norm()


@pytest.mark.parametrize("solver", ["sinkhorn", "exact"])
def test_a_wide_model_goes_into_a_narrow_one(solver: Any, suite: Suite, context: MergeContext) -> None:
    narrow, wide = model_of(suite, seed=1), model_of(suite, width=12, seed=2)
    fused = OTFusion(OTFusionConfig(solver=solver)).merge(None, [wide, narrow], context)
    assert {name: value.shape for name, value in fused.items()} == {name: value.shape for name, value in narrow.tensors.items()}
    assert all(np.isfinite(value).all() for value in fused.values())
    assert context.costs["samples"] == 80
    only = OTFusion(OTFusionConfig(solver=solver, anchor_share=1.0)).merge(None, [wide, narrow], context)
    for name, value in narrow.tensors.items():
        np.testing.assert_allclose(only[name], value, rtol=1e-6)


def test_maps_are_transports_with_columns_of_sum_one() -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(size=(6, 9)), random.normal(size=(6, 9))
    distance = np.linalg.norm(first[:, None] - second[None], axis=2)
    exact = unit_transport(first, second, OTFusionConfig(solver="exact"))
    rows, columns = linear_sum_assignment(distance)
    expected = np.zeros((6, 6))
    expected[rows, columns] = 1.0
    np.testing.assert_allclose(exact, expected)
    soft = unit_transport(first, second[:4], OTFusionConfig())
    np.testing.assert_allclose(soft.sum(axis=0), 1.0, atol=1e-6)
    np.testing.assert_allclose(soft.sum(axis=1), 4 / 6, atol=1e-3)


def test_policies_by_hand() -> None:
    residual, branch = np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]])
    assert combine_maps(residual, branch, None, "residual").tolist() == residual.tolist()
    assert combine_maps(residual, branch, None, "mean").tolist() == [[0.5, 0.5], [0.5, 0.5]]
    sizes = (np.array([3.0, 1.0]), np.array([1.0, 1.0]))
    assert combine_maps(residual, branch, sizes, "weighted").tolist() == [[0.75, 0.5], [0.25, 0.5]]


def test_what_it_does_not_know_is_named(suite: Suite, context: MergeContext) -> None:
    anchor = model_of(suite)
    with pytest.raises(ConfigError, match="there are 3 models. Give two"):
        OTFusion().merge(None, [anchor] * 3, context)
    with pytest.raises(DataError, match="m0 has 2 blocks and answers letter, m1 has 1"):
        OTFusion().merge(None, [anchor, model_of(suite, seed=1, depth=1)], context)
    other = MergeModel(name="line", tensors={}, network=lambda: nn.Linear(3, 3))
    with pytest.raises(DataError, match="line is no vision transformer that OT fusion knows"):
        OTFusion().merge(None, [other, anchor], context)
    with pytest.raises(ConfigError, match="`regularization` must be above 0"):
        OTFusionConfig(regularization=0.0)
