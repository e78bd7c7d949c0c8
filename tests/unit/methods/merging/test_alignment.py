"""Alignment of units: shuffled copies are put back, answers never change, and what is not followed is said."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, DataError
from graftwork.methods.merging.alignment import match_weights, permuted
from graftwork.methods.merging.batch_norm import estimate_statistics
from graftwork.methods.merging.neuron_groups import NeuronGroups, groups_of_network, groups_of_pairs


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.deep = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 6, 1)
        self.wise, self.head = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Linear(6 * 4, 7)
        self.last = nn.Linear(7, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        state = torch.relu(self.norm(self.stem(pictures)))
        state = state + self.deep(torch.relu(self.inner(state)))
        state = nn.functional.max_pool2d(self.wise(state), 2)
        return self.last(nn.functional.gelu(self.head(state.flatten(1))))  # type: ignore[no-any-return]


def seeded(seed: int, make: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: nn.Module = make()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return network.eval()


def state_of(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def with_state(network: nn.Module, state: dict[str, np.ndarray], seed: int, make: Any) -> nn.Module:
    other = seeded(seed, make)
    other.load_state_dict({name: torch.from_numpy(value) for name, value in {**state_of(network), **state}.items()})
    return other.eval()


def shuffled(groups: NeuronGroups, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.permutation(size) for name, size in groups.sizes.items()}


def test_groups_of_a_residual_network() -> None:
    found = groups_of_network(seeded(0, Residual))
    assert found.sizes == {"stem": 6, "inner": 5, "head": 7}
    assert found.fixed == {"last": "it is an output"}
    stem = {(axis.tensor, axis.axis) for axis in found.groups["stem"]}
    assert {("stem.weight", 0), ("stem.bias", 0), ("norm.running_var", 0), ("inner.weight", 1), ("deep.weight", 0)} <= stem
    assert {("deep.bias", 0), ("wise.weight", 0), ("head.weight", 1)} <= stem
    assert not any(axis.tensor == "norm.num_batches_tracked" for axis in found.groups["stem"])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_shuffled_copy_answers_alike_and_is_put_back(seed: int) -> None:
    network = seeded(seed, Residual)
    groups, state = groups_of_network(network), state_of(network)
    copy = {**state, **permuted(state, groups, shuffled(groups, seed))}
    pictures = torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(with_state(network, copy, 0, Residual)(pictures), network(pictures), rtol=1e-4, atol=1e-5)
    orders = match_weights(state, copy, groups, seed=seed)
    for name, value in permuted(copy, groups, orders).items():
        np.testing.assert_array_equal(value, state[name])


def test_an_assignment_is_the_best_of_all() -> None:
    make = lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))  # noqa: E731
    first, second = (state_of(seeded(seed, make)) for seed in (1, 2))
    groups = groups_of_network(seeded(1, make))

    def agreement(order: np.ndarray) -> float:
        moved = permuted(second, groups, {"0": order})
        return sum(float((first[name] * value).sum()) for name, value in moved.items())

    best = max(agreement(np.array(order)) for order in itertools.permutations(range(4)))
    assert agreement(match_weights(first, second, groups)["0"]) == pytest.approx(best, rel=1e-6)


def test_averages_of_aligned_copies_answer_as_the_original() -> None:
    make = lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))  # noqa: E731
    network = seeded(0, make)
    groups, state = groups_of_network(network), state_of(network)
    random = np.random.default_rng(0)
    noisy = {name: (value + 0.01 * random.normal(size=value.shape)).astype(np.float32) for name, value in state.items()}
    copy = {**noisy, **permuted(noisy, groups, shuffled(groups, 3))}
    rows = torch.randn(50, 3)

    def error(other: dict[str, np.ndarray]) -> float:
        mean = {name: 0.5 * (state[name] + other[name]) for name in state}
        with torch.no_grad():
            return float((with_state(network, mean, 0, make)(rows) - network(rows)).abs().mean())

    aligned = {**copy, **permuted(copy, groups, match_weights(state, copy, groups))}
    assert error(aligned) < 0.1 * error(copy)


def test_pairs_name_what_belongs_together() -> None:
    network = seeded(0, Residual)
    shapes = {name: value.shape for name, value in state_of(network).items()}
    found = groups_of_pairs(shapes, [("head", "last")])
    assert {(axis.tensor, axis.axis) for axis in found.groups["head"]} == {
        ("head.weight", 0),
        ("head.bias", 0),
        ("last.weight", 1),
    }
    norm = groups_of_pairs(shapes, [("stem", "norm"), ("stem", "inner")]).groups["stem"]
    assert ("norm.running_mean", 0) in {(axis.tensor, axis.axis) for axis in norm}
    with pytest.raises(ConfigError, match="There is no layer 'heat'.*head"):
        groups_of_pairs(shapes, [("heat", "last")])
    with pytest.raises(DataError, match="head makes 7 units, and axis 1 of inner.weight has 6"):
        groups_of_pairs(shapes, [("head", "inner")])


def test_what_is_not_followed_keeps_its_place() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(8, 4)
            self.norm, self.d = nn.GroupNorm(2, 4), nn.Linear(4, 2)

        def forward(self, rows: Tensor) -> Tensor:
            return self.d(self.norm(self.c(torch.cat([self.a(rows), self.b(rows)], dim=1))))  # type: ignore[no-any-return]

    found = groups_of_network(Odd())
    assert not found.groups
    assert "cat" in found.fixed["a"]
    assert found.fixed["c"] == "norm (GroupNorm) is not followed"

    flat = groups_of_network(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(4, 4), nn.Flatten(), nn.Linear(64, 2)))
    assert not flat.groups
    assert flat.fixed["0"] == "2 (Linear) reads places and not units"
    whole = groups_of_network(nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)))
    assert whole.sizes == {"0": 4}

    class Branching(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return rows if rows.sum() > 0 else -rows

    with pytest.raises(ConfigError, match="Branching cannot be traced"):
        groups_of_network(Branching())


def test_other_shapes_are_named() -> None:
    groups = groups_of_pairs({"a.weight": (4, 3), "b.weight": (2, 4)}, [("a", "b")])
    first = {"a.weight": np.zeros((4, 3)), "b.weight": np.zeros((2, 4))}
    with pytest.raises(DataError, match=r"'b.weight' is \[2, 4\] and missing"):
        match_weights(first, {"a.weight": np.zeros((4, 3))}, groups)


def test_statistics_are_those_of_the_rows_and_the_network_stays() -> None:
    network = seeded(0, Residual)
    before = state_of(network)
    batches = list(torch.randn(4, 8, 2, 4, 4))
    found = estimate_statistics(network, batches, network)
    assert set(found) == {"norm.running_mean", "norm.running_var"}
    with torch.no_grad():
        maps = [network.get_submodule("stem")(batch).transpose(0, 1).flatten(1) for batch in batches]
    np.testing.assert_allclose(
        found["norm.running_mean"], torch.stack([one.mean(1) for one in maps]).mean(0), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found["norm.running_var"], torch.stack([one.var(1) for one in maps]).mean(0), rtol=1e-4)
    for name, value in state_of(network).items():
        np.testing.assert_array_equal(value, before[name])
    assert not network.training
    assert estimate_statistics(nn.Linear(2, 2), [torch.zeros(1, 2)], nn.Linear(2, 2)) == {}
    assert estimate_statistics(network, [], network) == {}


class Stream(nn.Module):
    """Layers whose outputs are added to their inputs, so that a weight has the units of the stream on both of its axes."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.end = nn.Linear(5, 12), nn.Linear(12, 3)
        self.blocks = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        states = self.begin(rows)
        for block in self.blocks:
            states = states + torch.relu(block(states))
        return self.end(states)  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(4))
def test_units_are_found_again_where_a_weight_has_them_on_both_axes(seed: int) -> None:
    torch.manual_seed(seed)
    network = Stream()
    groups = groups_of_network(network)
    (group,) = groups.groups
    assert [axis.axis for axis in groups.groups[group] if axis.tensor == "blocks.0.weight"] == [1, 0]
    reference = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    random = np.random.default_rng(seed)
    moved = permuted(reference, groups, {group: random.permutation(12)})
    noisy = {name: (values + 0.02 * random.standard_normal(values.shape)).astype(np.float32) for name, values in moved.items()}
    found = permuted(noisy, groups, match_weights(reference, noisy, groups))
    for name, values in found.items():
        assert np.abs(values - reference[name]).max() < 0.15, name
