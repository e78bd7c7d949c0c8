from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.nn.delta_parts import CP, Decomposed, Dense, LowRank, change_of, rescaled_filters
from graftwork.nn.delta_set import DeltaSet
from graftwork.nn.updated_layer import UpdatedLayer, UpdateForm
from graftwork.nn.weight_delta import WeightDelta

FORMS: tuple[UpdateForm, ...] = get_args(UpdateForm)


def layers() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    return {
        "linear": (nn.Linear(5, 4), torch.randn(3, 5)),
        "convolution": (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1), torch.randn(2, 4, 7, 7)),
        "groups": (nn.Conv2d(4, 8, 3, groups=2, bias=False), torch.randn(2, 4, 5, 5)),
        "reflected": (nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"), torch.randn(2, 3, 5, 5)),
    }


def drawn(layer: UpdatedLayer) -> UpdatedLayer:
    """Set every factor to something, so that nothing is zero."""
    for parameter in (*layer.factors, *([] if layer.magnitude is None else [layer.magnitude])):
        parameter.data += torch.rand(parameter.shape)
    return layer


def written_out(layer: UpdatedLayer, base: Tensor) -> Tensor:
    """Return the weight by loops and plain matrix products."""
    if layer.form == "cp":
        difference = torch.zeros_like(base)
        for rank in range(layer.rank):
            vectors = [factor[:, rank] for factor in layer.factors]
            product = vectors[0]
            for vector in vectors[1:]:
                product = torch.tensordot(product, vector, dims=0)
            difference += product
    else:
        down, up = layer.factors
        difference = (up.flatten(1) @ down.flatten(1)).reshape(base.shape)
    weight = base + layer.scaling * difference
    if layer.magnitude is None:
        return weight
    return torch.stack([size * row / row.norm() for size, row in zip(layer.magnitude, weight)])


@pytest.mark.parametrize("decompose", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", list(layers()))
def test_a_layer_computes_its_base_then_the_written_out_weight_and_folds(kind: str, form: UpdateForm, decompose: bool) -> None:
    base, inputs = layers()[kind]
    plain: Any = copy.deepcopy(base)
    layer = UpdatedLayer(base, form=form, rank=3, scaling=0.5, decompose=decompose)
    torch.testing.assert_close(layer(inputs), plain(inputs))
    drawn(layer)
    before = plain.weight.detach().clone()
    plain.weight.data = written_out(layer, before)
    torch.testing.assert_close(layer(inputs), plain(inputs), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(before + change_of(layer.part(), before), plain.weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.folded()(inputs), plain(inputs), rtol=1e-5, atol=1e-5)


class Scaled(nn.Conv2d):
    """A layer with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_layers_with_a_forward_of_their_own_keep_it() -> None:
    torch.manual_seed(0)
    base, inputs = Scaled(3, 4, 3), torch.randn(2, 3, 5, 5)
    expected = base(inputs)
    layer = UpdatedLayer(base, form="cp", rank=2, scaling=1.0)
    torch.testing.assert_close(layer(inputs), expected)
    drawn(layer)
    found = layer(inputs)
    torch.testing.assert_close(found, layer.folded()(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_exactly_one_factor_begins_at_zero_and_gets_the_first_gradient(form: UpdateForm) -> None:
    base, inputs = layers()["convolution"]
    layer = UpdatedLayer(base, form=form, rank=2, scaling=1.0)
    assert [bool(factor.any()) for factor in layer.factors].count(False) == 1
    layer(inputs).square().sum().backward()
    moved = [factor.grad is not None and bool(factor.grad.any()) for factor in layer.factors]
    assert moved == [not bool(factor.any()) for factor in layer.factors], "the others move from the second step on"


def test_numbers_of_parameters() -> None:
    """For 6 x 4 x 3 x 2 and rank 5: 5 (6 + 4 + 3 + 2); 5 (6 + 4 * 3 * 2); 5 * 2 (6 * 3 + 4 * 2)."""
    counts = {}
    for form in FORMS:
        layer = UpdatedLayer(layers()["convolution"][0], form=form, rank=5, scaling=1.0)
        counts[form] = sum(factor.numel() for factor in layer.factors)
    assert counts == {"cp": 75, "lora-c": 150, "conv-lora": 260}


@pytest.mark.parametrize("decompose", [False, True])
def test_the_low_rank_convolution_of_peft_computes_and_learns_the_same(decompose: bool) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 1, bias=False))
    ours = nn.Sequential(
        UpdatedLayer(copy.deepcopy(model[0]), form="lora-c", rank=3, scaling=2.0, decompose=decompose),
        nn.ReLU(),
        UpdatedLayer(copy.deepcopy(model[2]), form="lora-c", rank=3, scaling=2.0, decompose=decompose),
    )
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"], use_dora=decompose)
    theirs = peft.get_peft_model(model, config)
    pairs = []
    for place in ("0", "2"):
        own: Any = ours.get_submodule(place)
        other: Any = theirs.get_submodule(f"base_model.model.{place}")
        drawn(own)
        down, up = other.lora_A["default"].weight, other.lora_B["default"].weight
        for one, two in zip(own.factors, (down, up)):
            two.data.copy_(one.data)
            pairs.append((one, two))
        if decompose:
            magnitude = other.lora_magnitude_vector["default"].weight
            magnitude.data.copy_(own.magnitude.data.view(magnitude.shape))
            pairs.append((own.magnitude, magnitude))
    inputs = torch.randn(3, 4, 8, 8)
    found, expected = ours(inputs), theirs(inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for outputs in (found, expected):
        (outputs * torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)).sum().backward()
    for one, two in pairs:
        torch.testing.assert_close(one.grad, two.grad.view(one.shape), rtol=1e-3, atol=1e-3)
    merged = theirs.merge_and_unload()
    for number in (0, 2):
        torch.testing.assert_close(merged[number].weight, ours[number].weight, rtol=1e-4, atol=1e-5)


def test_a_decomposed_linear_layer_is_that_of_peft() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 4))
    own = drawn(UpdatedLayer(copy.deepcopy(model[0]), form="lora-c", rank=2, scaling=1.5, decompose=True))
    theirs = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0"], use_dora=True))
    other: Any = theirs.get_submodule("base_model.model.0")
    other.lora_A["default"].weight.data.copy_(own.factors[0].data)
    other.lora_B["default"].weight.data.copy_(own.factors[1].data)
    assert own.magnitude is not None
    other.lora_magnitude_vector["default"].weight.data.copy_(own.magnitude.data)
    inputs = torch.randn(6, 5)
    torch.testing.assert_close(own(inputs), theirs(inputs), rtol=1e-5, atol=1e-5)


def test_conv_lora_is_the_product_of_loralib() -> None:
    """loralib keeps ``A [r k, in k]`` and ``B [out k, r k]`` and views ``B A`` as the kernel."""
    base = nn.Conv2d(4, 6, 3, padding=1)
    layer = drawn(UpdatedLayer(copy.deepcopy(base), form="conv-lora", rank=2, scaling=0.25))
    down, up = layer.factors
    assert (tuple(down.shape), tuple(up.shape)) == ((2 * 3, 4 * 3), (6 * 3, 2 * 3))
    inputs = torch.randn(2, 4, 6, 6)
    kernel = base.weight + (up @ down).view(base.weight.shape) * 0.25
    torch.testing.assert_close(layer(inputs), F.conv2d(inputs, kernel, base.bias, padding=1), rtol=1e-5, atol=1e-5)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(1, 6),
    st.floats(-2, 2, allow_subnormal=False),
    st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_cp_factors_expand_as_the_sum_of_products_of_vectors(shape: list[int], rank: int, factor: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrices = tuple(torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in shape)
    letters = "abcd"[: len(shape)]
    expected = factor * torch.einsum(",".join(f"{letter}r" for letter in letters) + "->" + letters, *matrices)
    torch.testing.assert_close(CP(matrices, factor).expand(torch.Size(shape)), expected)


def decomposed_delta() -> tuple[nn.Module, WeightDelta]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    parts = {
        "0.weight": Decomposed(CP(tuple(torch.randn(size, 2) for size in (3, 2, 3, 3)), 0.5), torch.rand(3) + 0.5),
        "2.weight": Decomposed(LowRank(torch.randn(1, 12), torch.randn(2, 1)), torch.rand(2), 0.5),
    }
    return model, WeightDelta(parts, {name: model.state_dict()[name].shape for name in parts})


def test_a_decomposed_delta_attaches_scales_saves_and_takes_itself_away(tmp_path: Path) -> None:
    model, delta = decomposed_delta()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    delta.save(tmp_path / "delta.safetensors")
    loaded = WeightDelta.load(tmp_path / "delta.safetensors")
    assert loaded.count() == delta.count() == 2 * (3 + 2 + 3 + 3) + 3 + 12 + 2 + 2
    inputs = torch.randn(2, 2, 4, 4)
    called = loaded.call(model, inputs, 0.5)
    loaded.attach(model)
    moved = before["0.weight"] + delta.parts["0.weight"].direction.expand(before["0.weight"].shape)  # type: ignore[union-attr]
    expected = rescaled_filters(moved, delta.parts["0.weight"].magnitude)  # type: ignore[union-attr]
    torch.testing.assert_close(model.state_dict()["0.weight"], expected)
    half = (model.state_dict()["2.weight"] + before["2.weight"]) / 2
    loaded.detach()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    loaded.scale(0.5).attach(model)
    torch.testing.assert_close(model.state_dict()["2.weight"], half)
    torch.testing.assert_close(model(inputs), called)


def test_decomposed_deltas_are_measured_from_the_base_even_beside_others() -> None:
    model, delta = decomposed_delta()
    other = WeightDelta({"2.weight": Dense(torch.ones(2, 12))}, {"2.weight": torch.Size([2, 12])})
    base = model.state_dict()["2.weight"].clone()
    deltas = DeltaSet(model)
    deltas.add("dora", delta)
    deltas.add("ones", other)
    deltas.enable({"ones": 1.0, "dora": 0.5})
    expected = base + 1.0 + 0.5 * delta.change("2.weight", base)
    torch.testing.assert_close(model.state_dict()["2.weight"], expected)
    deltas.disable()
    assert torch.equal(model.state_dict()["2.weight"], base)


def test_what_depends_on_the_base_is_refused_until_it_is_made_dense() -> None:
    model, delta = decomposed_delta()
    for wrong in (lambda: delta.tensor("2.weight"), lambda: delta + delta, lambda: delta.sparsify(0.5)):
        with pytest.raises(ConfigError, match=r"depends on the base tensor.*delta\.dense\(model\)"):
            wrong()
    dense = delta.dense(model)
    torch.testing.assert_close((dense + dense).tensor("2.weight"), 2 * delta.change("2.weight", model.state_dict()["2.weight"]))
    with pytest.raises(ConfigError, match="does not fit"):
        WeightDelta({"w": Decomposed(Dense(torch.ones(4)), torch.ones(3))}, {"w": torch.Size([2, 2])})


def test_a_filter_of_zeros_stays_finite_and_a_nested_decomposition_is_damage(tmp_path: Path) -> None:
    assert rescaled_filters(torch.zeros(2, 3), torch.zeros(2)).tolist() == [[0.0] * 3] * 2
    nested: Any = Decomposed(Decomposed(Dense(torch.ones(2, 2)), torch.ones(2)), torch.ones(2))  # type: ignore[arg-type]
    WeightDelta({"w": nested}, {"w": torch.Size([2, 2])}).save(tmp_path / "delta.safetensors")
    with pytest.raises(FileFormatError, match="depends on the base itself"):
        WeightDelta.load(tmp_path / "delta.safetensors")


def test_low_rank_parts_of_two_layouts_add_up_dense() -> None:
    shape = torch.Size([2, 3, 2, 2])
    whole = LowRank(torch.randn(1, 3, 2, 2), torch.randn(2, 1, 1, 1))
    column = LowRank(torch.randn(2, 6), torch.randn(4, 2))
    one, two = (WeightDelta({"w": part}, {"w": shape}) for part in (whole, column))
    torch.testing.assert_close((one + two).tensor("w"), whole.expand(shape) + column.expand(shape))


def test_wrong_settings_are_named() -> None:
    layer = nn.Linear(2, 2)
    for keywords, message in (
        ({"form": "tucker", "rank": 1}, "must be one of cp, lora-c, conv-lora; got 'tucker'"),
        ({"form": "cp", "rank": 0}, "at least 1; got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            UpdatedLayer(layer, scaling=1.0, **keywords)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Linear and Conv2d layers; got LayerNorm"):
        UpdatedLayer(nn.LayerNorm(2), form="cp", rank=1, scaling=1.0)
