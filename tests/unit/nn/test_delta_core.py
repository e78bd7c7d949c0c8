"""Deltas of every kind on every kind of model: attached together, scaled, composed, called, saved, refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graftwork.core.components import Component
from graftwork.core.errors import ComponentError, ConfigError, FileFormatError
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.nn.adapters import BottleneckAdapter
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.delta_set import DeltaSet
from graftwork.nn.foldable import plain_state
from graftwork.nn.grafts import own_tensors
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft, load_delta
from graftwork.nn.prompts import PromptedBlock
from graftwork.nn.side import SideNetwork
from graftwork.nn.weight_delta import CP, Dense, LowRank, Part, Sparse, WeightDelta, call_with, sum_deltas

ADAPTER = "graftwork.nn.adapters:BottleneckAdapter"


def convnet(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval()


def vit(seed: int = 0) -> ViTBackbone:
    torch.manual_seed(seed)
    return ViTBackbone(16, patch=8, width=8, depth=2, num_heads=2).eval()


PICTURES = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(3))
INPUTS = {"image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))}


def random_delta(model: nn.Module, seed: int) -> WeightDelta:
    """A CP difference of the kernel, a dense one of BatchNorm's statistics, a low-rank and a sparse one."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    state = plain_state(model)
    parts: dict[str, Part] = {
        "0.weight": CP((draw(4, 2), draw(3, 2), draw(3, 2), draw(3, 2)), 0.5),
        "1.running_mean": Dense(draw(4)),
        "4.weight": LowRank(draw(2, 36), draw(2, 2), 0.1),
        "4.bias": Sparse(torch.tensor([1]), draw(1)),
    }
    return WeightDelta(
        parts,
        {name: state[name].shape for name in parts},
        base_fingerprint=state_fingerprint(state),
        base_prints=tensor_prints(state),
    )


def adapter(model: nn.Module, place: str, seed: int, width: int = 8) -> ModuleDelta:
    torch.manual_seed(seed)
    made = BottleneckAdapter(nn.Identity(), width=width, bottleneck=2)
    nn.init.normal_(made.up.weight)  # type: ignore[arg-type]
    placed = PlacedGraft(place, Component(ADAPTER, made.settings), own_tensors(made))
    return ModuleDelta([placed], base_fingerprint=state_fingerprint(plain_state(model)))


def test_cp_factors_by_hand() -> None:
    part = CP((torch.tensor([[1.0, 0.0], [2.0, 1.0]]), torch.tensor([[3.0, 1.0], [4.0, 1.0]])), 2.0)
    # (1, 2) x (3, 4) + (0, 1) x (1, 1), twice
    assert part.expand(torch.Size([2, 2])).tolist() == [[6, 8], [14, 18]]
    kernel = CP(tuple(torch.randn(size, 3) for size in (4, 3, 2, 5)))
    expected = torch.einsum("ar,br,cr,dr->abcd", *kernel.factors)
    torch.testing.assert_close(kernel.expand(torch.Size([4, 3, 2, 5])), expected)
    with pytest.raises(ConfigError, match=r"does not fit a tensor of shape \[4, 3, 2, 6\]"):
        WeightDelta({"w": kernel}, {"w": torch.Size([4, 3, 2, 6])})


@settings(deadline=None, max_examples=20)
@given(first=st.floats(-2, 2), second=st.floats(-2, 2), seed=st.integers(0, 3))
def test_weight_deltas_are_a_vector_space(first: float, second: float, seed: int) -> None:
    model = convnet()
    one, two = random_delta(model, seed), random_delta(model, seed + 10)
    total = sum_deltas([one, two], [first, second])
    assert {name: type(part) for name, part in total.parts.items()} == {name: type(part) for name, part in one.parts.items()}
    for name in one.names():
        torch.testing.assert_close(total.tensor(name), first * one.tensor(name) + second * two.tensor(name), rtol=1e-4, atol=1e-5)
    for name in one.names():
        torch.testing.assert_close((one + -one).tensor(name), torch.zeros_like(one.tensor(name)), rtol=0, atol=1e-5)
        torch.testing.assert_close((one - two).tensor(name), one.tensor(name) - two.tensor(name), rtol=1e-4, atol=1e-5)


def test_every_kind_of_part_survives_its_file(tmp_path: Path) -> None:
    delta = random_delta(convnet(), 1)
    delta.save(tmp_path / "d.safetensors")
    again = load_delta(tmp_path / "d.safetensors")
    assert isinstance(again, WeightDelta)
    assert again.base_prints == delta.base_prints
    assert {name: type(part) for name, part in again.parts.items()} == {name: type(part) for name, part in delta.parts.items()}
    assert all(torch.equal(again.tensor(name), delta.tensor(name)) for name in delta.names())


def test_another_base_is_refused_with_the_names_of_what_differs() -> None:
    base, other = convnet(), convnet()
    with torch.no_grad():
        other.state_dict()["4.weight"] += 1.0
    delta = random_delta(base, 1)
    with pytest.raises(ConfigError, match=r"1 of 9 tensors have other values: '4\.weight'\. Load the base"):
        delta.attach(other)
    other[1] = nn.Identity()
    with pytest.raises(ConfigError, match=r"this one has no tensor '1\.running_mean'"):
        delta.attach(other)
    first, second = random_delta(base, 1), random_delta(convnet(1), 1)
    with pytest.raises(ConfigError, match=r"The bases differ in '0\.bias', '0\.weight', '4\.bias', '4\.weight'\. Tune both"):
        first + second


def test_a_functional_call_leaves_the_model_alone_and_learns_coefficients() -> None:
    model = convnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, two = random_delta(model, 1), random_delta(model, 2)
    factors = torch.tensor([0.5, -1.0], requires_grad=True)
    output = call_with(model, [(one, factors[0]), (two, factors[1])], PICTURES)
    output.sum().backward()
    assert factors.grad is not None
    assert bool((factors.grad != 0).all())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    sum_deltas([one, two], [0.5, -1.0]).attach(model)
    torch.testing.assert_close(model(PICTURES), output, rtol=1e-4, atol=1e-4)


def test_a_functional_call_changes_tied_weights_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    shape = torch.Size([2, 2])
    delta = WeightDelta({f"{n}.weight": Dense(torch.ones(2, 2)) for n in (0, 1)}, {f"{n}.weight": shape for n in (0, 1)})
    called = delta.call(model, torch.ones(1, 2))
    delta.attach(model)
    torch.testing.assert_close(called, model(torch.ones(1, 2)))


def test_several_deltas_are_enabled_at_once_and_the_base_comes_back_bit_for_bit() -> None:
    model = convnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = model(PICTURES)
    deltas = DeltaSet(model)
    first, second = random_delta(model, 1), random_delta(model, 2)
    deltas.add("first", first)
    deltas.add("second", second)
    assert torch.equal(model(PICTURES), plain)
    deltas.enable("first", {"second": -0.5})
    expected = call_with(convnet(), [(first, 1.0), (second, -0.5)], PICTURES)
    torch.testing.assert_close(model(PICTURES), expected, rtol=1e-4, atol=1e-4)
    assert deltas.enabled == {"first": 1.0, "second": -0.5}
    with deltas.using("second"):
        torch.testing.assert_close(model(PICTURES), second.call(convnet(), PICTURES), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(PICTURES), expected, rtol=1e-4, atol=1e-4)
    assert deltas.remove("first") is first
    assert deltas.enabled == {"second": -0.5}
    deltas.disable()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ConfigError, match=r"no delta 'secnd'\. Did you mean 'second'\? Loaded: second"):
        deltas.enable("secnd")
    with pytest.raises(ConfigError, match="other values"):
        deltas.add("third", random_delta(convnet(4), 1))


def test_switching_touches_only_what_the_deltas_change() -> None:
    model = convnet()
    deltas = DeltaSet(model)
    for number in range(50):
        deltas.add(str(number), random_delta(model, number))
    untouched = model.state_dict()["0.bias"].data_ptr()
    for number in (3, 49):
        deltas.enable(str(number))
        assert len(deltas._before) == 4
    assert model.state_dict()["0.bias"].data_ptr() == untouched
    deltas.fold()
    assert len(deltas) == 0
    torch.testing.assert_close(model(PICTURES), random_delta(convnet(), 49).call(convnet(), PICTURES))


def test_adapters_attach_nested_scale_compose_and_leave_in_any_order(tmp_path: Path) -> None:
    model = vit()
    plain, names = model(INPUTS), list(model.state_dict())
    outer, inner = adapter(model, "blocks.0", 1), adapter(model, "blocks.0.feed", 2)
    outer.attach(model)
    inner.attach(model)  # the place has another name now
    both = model(INPUTS)
    assert not torch.equal(both, plain)
    assert state_fingerprint(plain_state(model)) == outer.base_fingerprint
    outer.detach()
    assert not torch.equal(model(INPUTS), plain)
    inner.detach()
    assert torch.equal(model(INPUTS), plain)
    assert list(model.state_dict()) == names
    composed = outer.compose(inner)
    composed.save(tmp_path / "d.safetensors")
    again = load_delta(tmp_path / "d.safetensors")
    again.attach(model)
    assert torch.equal(model(INPUTS), both)
    again.detach()
    with pytest.raises(FileFormatError, match="holds modules"):
        WeightDelta.load(tmp_path / "d.safetensors")
    added = [copy.deepcopy(model) for _ in range(3)]
    outer.attach(added[0])
    outer.detach()
    last = adapter(model, "norm", 3)
    last.attach(added[1])
    last.scale(-2.0).attach(added[2])
    torch.testing.assert_close(added[2](INPUTS) - plain, -2.0 * (added[1](INPUTS) - plain), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="cannot be written into weights"):
        last.fold()


def test_modules_and_weights_are_one_delta() -> None:
    model = vit()
    names = ["norm.weight"]
    weights = WeightDelta({"norm.weight": Dense(torch.ones(8))}, {"norm.weight": torch.Size([8])})
    modules = adapter(model, "blocks.1", 1)
    mixed = weights.compose(modules)
    assert isinstance(mixed, ModuleDelta)
    assert list(mixed.weights.names()) == names
    assert mixed.count() == weights.count() + modules.count()
    assert list(mixed.names()) == []
    deltas = DeltaSet(model)
    deltas.add("mixed", mixed)
    plain = model(INPUTS)
    deltas.enable("mixed")
    changed = model(INPUTS)
    assert not torch.allclose(changed, plain)
    deltas.disable()
    assert torch.equal(model(INPUTS), plain)
    mixed.attach(model)
    assert torch.equal(model(INPUTS), changed)


def test_prompts_are_read_and_masks_follow() -> None:
    seen: list[Tensor | None] = []

    class Block(nn.Module):
        def forward(self, states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
            seen.append(attention_mask)
            return (states + states.mean(dim=1, keepdim=True),)

    block = PromptedBlock(Block(), width=4, num_tokens=2)
    states, mask = torch.ones(3, 5, 4), torch.zeros(3, 1, 1, 5)
    (output,) = block(states, mask)
    assert output.shape == states.shape
    assert seen[-1] is not None
    assert seen[-1].shape == (3, 1, 1, 7)
    block(states, attention_mask=torch.ones(3, 1, 5, 5, dtype=torch.bool))
    assert seen[-1] is not None
    assert seen[-1].shape == (3, 1, 7, 7)
    assert bool(seen[-1].all())
    with pytest.raises(ConfigError, match="cannot be multiplied"):
        PromptedBlock.scaled({}, 2.0)


class MeanSide(SideNetwork):
    """Adds a linear map of the first block's states."""

    def __init__(self, trunk: nn.Module, *, width: int) -> None:
        super().__init__()
        self.depths, self.width = (0,), width
        self.map = nn.Linear(width, width)

    @property
    def settings(self) -> dict[str, object]:
        return {"width": self.width}

    def forward(self, states: dict[int, Tensor], features: Tensor) -> Tensor:  # type: ignore[override]
        return features.detach() + self.map(states[0].detach())


def test_a_side_network_answers_for_the_trunk_and_copies_are_independent() -> None:
    model = vit()
    plain, kind = model(INPUTS), type(model)
    side = MeanSide(model, width=8)
    placed = PlacedGraft("", Component(f"{__name__}:MeanSide", side.settings), own_tensors(side))
    delta = ModuleDelta([placed], base_fingerprint=state_fingerprint(plain_state(model)))
    with pytest.raises(ComponentError):
        delta.attach(model)  # its package is not allowed
    assert torch.equal(model(INPUTS), plain)
    from graftwork.core.components import components_allowed

    with components_allowed(__name__):
        delta.attach(model)
    twin = copy.deepcopy(model)
    changed = twin(INPUTS)
    assert not torch.equal(changed, plain)
    changed.sum().backward()
    assert {name for name, parameter in twin.named_parameters() if parameter.grad is not None} == {
        "side_network.map.weight",
        "side_network.map.bias",
    }
    assert state_fingerprint(plain_state(model)) == delta.base_fingerprint
    delta.detach()
    assert type(model) is kind
    assert torch.equal(model(INPUTS), plain)
    assert torch.equal(twin(INPUTS), changed)


def test_a_file_that_names_foreign_code_is_refused(tmp_path: Path) -> None:
    model = vit()
    delta = adapter(model, "blocks.0", 1)
    foreign = ModuleDelta([PlacedGraft("blocks.0", Component("os:system"), delta.grafts[0].tensors)])
    foreign.save(tmp_path / "d.safetensors")
    with pytest.raises(ComponentError, match="os:system"):
        load_delta(tmp_path / "d.safetensors")


def test_weights_that_are_attached_elsewhere_leave_the_model_as_it_was() -> None:
    model, other = vit(), vit()
    before = list(model.state_dict())
    weights = WeightDelta({"norm.weight": Dense(torch.ones(8))}, {"norm.weight": torch.Size([8])})
    delta = ModuleDelta(adapter(model, "blocks.0", 1).grafts, weights)
    weights.attach(other)
    with pytest.raises(ConfigError, match="attached"):
        delta.attach(model)
    assert list(model.state_dict()) == before
    weights.detach()
    delta.attach(model)
    delta.detach()
    assert list(model.state_dict()) == before


def test_a_module_that_does_not_fit_leaves_the_model_as_it_was() -> None:
    model = vit()
    before = list(model.state_dict())
    good, bad = adapter(model, "blocks.0", 1), adapter(model, "blocks.1", 1, width=6)
    wrong = PlacedGraft("blocks.1", good.grafts[0].component, bad.grafts[0].tensors)
    with pytest.raises(ConfigError, match=r"at blocks\.1 does not fit: 'down\.weight' is \[2, 6\] in the delta, \[2, 8\] here"):
        ModuleDelta([good.grafts[0], wrong]).attach(model)
    assert list(model.state_dict()) == before
    with pytest.raises(ConfigError, match=r"no module 'blocks\.7'"):
        adapter(model, "blocks.7", 1).attach(model)
