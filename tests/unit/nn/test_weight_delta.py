from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.weight_delta import Dense, LowRank, Sparse, WeightDelta


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def low_rank() -> WeightDelta:
    shape = torch.Size([4, 3])
    return WeightDelta({"0.weight": LowRank(torch.arange(6.0).view(2, 3), torch.ones(4, 2), 0.5)}, {"0.weight": shape})


def test_each_form_by_hand() -> None:
    shape = torch.Size([2, 2])
    assert Dense(torch.arange(4.0)).expand(shape).tolist() == [[0, 1], [2, 3]]
    assert LowRank(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]), 2.0).expand(shape).tolist() == [[6, 12], [8, 16]]
    assert Sparse(torch.tensor([1, 2]), torch.tensor([5.0, 6.0])).expand(shape).tolist() == [[0, 5], [6, 0]]
    kernel = LowRank(torch.ones(1, 2, 3, 3), torch.full((4, 1, 1, 1), 2.0))
    assert kernel.expand(torch.Size([4, 2, 3, 3])).unique().tolist() == [2.0]


def test_between_two_models_and_back() -> None:
    base, tuned = mlp(0), mlp(0)
    with torch.no_grad():
        tuned[2].weight += 1.0
    delta = WeightDelta.between(base.state_dict(), tuned.state_dict())
    assert list(delta.names()) == ["2.weight"]
    assert delta.count() == 8
    delta.attach(base)
    assert torch.equal(base[2].weight, tuned[2].weight)
    delta.fold()
    assert torch.equal(base[2].weight, tuned[2].weight)


def test_another_base_is_refused_unless_asked() -> None:
    base, tuned = mlp(0), mlp(1)
    delta = WeightDelta.between(base.state_dict(), tuned.state_dict())
    with pytest.raises(ConfigError, match="made for a base with fingerprint"):
        delta.attach(tuned)
    delta.attach(tuned, check=False)
    with pytest.raises(ConfigError, match="attached to a model already"):
        delta.attach(base)
    with pytest.raises(ConfigError, match="has no tensor '0.weight'"):
        WeightDelta.between(base.state_dict(), mlp(1).state_dict()).attach(nn.Linear(3, 4))


def test_sums_belong_to_one_base() -> None:
    first = WeightDelta.between(mlp(0).state_dict(), mlp(1).state_dict())
    with pytest.raises(ConfigError, match="different bases"):
        first + WeightDelta.between(mlp(2).state_dict(), mlp(1).state_dict())
    second = WeightDelta.between(mlp(0).state_dict(), mlp(3).state_dict())
    total = first + second
    for name in total.names():
        torch.testing.assert_close(total.tensor(name), first.tensor(name) + second.tensor(name))
    assert total.base_fingerprint == first.base_fingerprint


def test_low_rank_sums_stay_low_rank() -> None:
    total = low_rank() + low_rank().scale(-2.0)
    part = total.parts["0.weight"]
    assert isinstance(part, LowRank)
    assert len(part.down) == 4
    torch.testing.assert_close(total.tensor("0.weight"), -low_rank().tensor("0.weight"))


@settings(deadline=None, max_examples=30)
@given(density=st.floats(0.01, 1.0), seed=st.integers(0, 5))
def test_sparsify_keeps_the_largest_entries(density: float, seed: int) -> None:
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    delta = WeightDelta({"w": Dense(values)}, {"w": values.shape})
    kept = delta.sparsify(density).tensor("w")
    places = kept != 0
    assert int(places.sum()) == max(1, round(density * 30))
    assert torch.equal(kept[places], values[places])
    if bool((~places).any()):
        assert float(values[~places].abs().max()) <= float(values[places].abs().min())


def test_functional_calls_follow_the_coefficient() -> None:
    base = mlp(0)
    inputs = torch.randn(5, 3)
    factor = torch.tensor(0.0, requires_grad=True)
    weights = dict(base.named_parameters())
    output = functional_call(base, {**weights, **low_rank().substituted(weights, factor)}, (inputs,))
    assert torch.equal(output, base(inputs))
    output.sum().backward()
    assert factor.grad is not None
    assert bool(factor.grad != 0)


def test_files_keep_everything(tmp_path: Path) -> None:
    delta = WeightDelta(
        {"a": Dense(torch.randn(2, 3)), "b": Sparse(torch.tensor([0, 4]), torch.randn(2)), **low_rank().parts},
        {"a": torch.Size([2, 3]), "b": torch.Size([5]), **low_rank().shapes},
        base_fingerprint="abc",
        lineage={"tuner": "mixed"},
    )
    delta.save(tmp_path / "d.safetensors")
    again = WeightDelta.load(tmp_path / "d.safetensors")
    assert (again.base_fingerprint, again.lineage, again.count()) == ("abc", {"tuner": "mixed"}, delta.count())
    assert all(torch.equal(again.tensor(name), delta.tensor(name)) for name in delta.names())


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.safetensors").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"d\.safetensors is a damaged delta"):
        WeightDelta.load(tmp_path / "d.safetensors")


def test_a_model_is_no_delta(tmp_path: Path) -> None:
    (tmp_path / "d.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(FileFormatError, match=r"d\.safetensors is not a delta") as caught:
        WeightDelta.load(tmp_path / "d.safetensors")
    assert "damaged" not in str(caught.value)


def test_wrong_parts_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no shape"):
        WeightDelta({"a": Dense(torch.ones(2))}, {})
    with pytest.raises(ConfigError, match=r"does not fit a tensor of shape \[3\]"):
        WeightDelta({"a": Dense(torch.ones(2))}, {"a": torch.Size([3])})
    with pytest.raises(ConfigError, match="does not fit"):
        WeightDelta({"a": Sparse(torch.tensor([7]), torch.ones(1))}, {"a": torch.Size([3])})
    with pytest.raises(ConfigError, match="`density` must be in"):
        low_rank().sparsify(0.0)
    with pytest.raises(ConfigError, match="different tensors"):
        WeightDelta.between({"a": torch.ones(1)}, {})
    with pytest.raises(ConfigError, match="attached to no model"):
        low_rank().detach()


def test_fingerprints_see_names_types_and_values() -> None:
    state = mlp().state_dict()
    assert state_fingerprint(state) == state_fingerprint(dict(reversed(list(state.items()))))
    other = copy.deepcopy(state)
    other["0.bias"][0] += 1e-6
    assert state_fingerprint(other) != state_fingerprint(state)
    assert state_fingerprint({"a": torch.zeros(2)}) != state_fingerprint({"b": torch.zeros(2)})
    assert state_fingerprint({"a": torch.zeros(2)}) != state_fingerprint({"a": torch.zeros(2, dtype=torch.float64)})


class Tied(nn.Module):
    """One weight under two names, as input and output embeddings often are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight


def test_tied_weights_change_once_and_come_back() -> None:
    base, tuned = Tied(), Tied()
    with torch.no_grad():
        tuned.first.weight += 1.0
    delta = WeightDelta.between(base.state_dict(), tuned.state_dict())
    assert sorted(delta.names()) == ["first.weight", "second.weight"]
    before = base.first.weight.detach().clone()
    delta.attach(base)
    assert torch.equal(base.second.weight, tuned.first.weight)
    delta.detach()
    assert torch.equal(base.first.weight, before)
    assert base.first.weight is base.second.weight
    half = WeightDelta({"second.weight": delta.parts["second.weight"]}, delta.shapes)
    half.attach(base)
    assert torch.equal(base.first.weight, tuned.first.weight)


def test_two_differences_of_one_tensor_are_refused() -> None:
    model = Tied()
    parts = {"first.weight": Dense(torch.ones(3, 3)), "second.weight": Dense(torch.zeros(3, 3))}
    delta = WeightDelta(parts, {name: torch.Size([3, 3]) for name in parts})
    before = model.first.weight.detach().clone()
    with pytest.raises(ConfigError, match=r"'first.weight' and 'second.weight' are one tensor in this model"):
        delta.attach(model)
    assert torch.equal(model.first.weight, before)
    delta.attach(nn.ModuleDict({"first": nn.Linear(3, 3, bias=False), "second": nn.Linear(3, 3, bias=False)}))
