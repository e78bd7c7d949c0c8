"""Lean functions: the same values as the exact ones, gradients as close as codes allow, and bytes as few as they promise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.evaluation.memory_meter import MemoryMeter
from graftwork.nn.freeze import fix_mode
from graftwork.nn.lean_activations import CURVES
from graftwork.nn.lean_backward import LeanFunctions, LeanKind, make_exact, make_lean

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "sigmoid": lambda x: x.sigmoid(),
}
CORNERS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.ReLU(inplace=True),
    "relu6": F.relu6,
    "ReLU6": nn.ReLU6(inplace=True),
    "hardtanh": nn.Hardtanh(-0.5, 2.0),
    "torch.relu": torch.relu,
}


def gradients(function: Callable[..., Tensor], *inputs: Tensor, kind: LeanKind | None = None) -> tuple[Tensor, list[Tensor], int]:
    """Return the value, the gradients of a fixed weighing of it, and the bytes that were held."""
    own = [item.detach().clone().requires_grad_(item.requires_grad) for item in inputs]
    with MemoryMeter(own) as meter:
        if kind is None:
            output = function(*own)
        else:
            with LeanFunctions(kind):
                output = function(*own)
    output.backward(torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view(output.shape))
    return output.detach(), [item.grad for item in own if item.grad is not None], meter.held_bytes


def wave(*shape: int, scale: float = 4.0) -> Tensor:
    torch.manual_seed(0)
    return (scale * torch.randn(shape)).requires_grad_()


@pytest.mark.parametrize("name", list(SMOOTH))
def test_smooth_functions_hold_their_derivative_in_half_a_byte(name: str) -> None:
    x = wave(4, 250)
    exact, (slope,), _ = gradients(SMOOTH[name], x)
    value, (found,), held = gradients(SMOOTH[name], x, kind="codes")
    assert torch.equal(value, exact), "the forward pass is exact"
    assert held == 500
    plain: dict[str, Any] = {"gelu-tanh": F.gelu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
    curve = CURVES[plain.get(name, SMOOTH[name])]
    # Half a step of the quantiser, times the gradient that comes in (at most 1).
    assert (found - slope).abs().max() <= (curve.high - curve.low) / 30 + 1e-3


@pytest.mark.parametrize(("function", "curve"), CURVES.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_ranges_hold_every_derivative_and_no_more(function: Callable[..., Tensor], curve: Any) -> None:
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(function(x).sum(), x)
    torch.testing.assert_close(curve.derivative(x.detach()), slope, rtol=1e-6, atol=1e-9)
    assert curve.low - 1e-3 <= slope.min()
    assert slope.max() <= curve.high + 1e-3
    assert slope.max() - slope.min() >= 0.95 * (curve.high - curve.low)


@pytest.mark.parametrize("kind", ["codes", "masks", "input-codes"])
@pytest.mark.parametrize("name", list(CORNERS))
def test_functions_with_corners_are_exact_with_a_bit_a_value(name: str, kind: LeanKind) -> None:
    x = wave(4, 250)
    exact, (slope,), _ = gradients(lambda item: CORNERS[name](item * 1), x)
    value, (found,), held = gradients(lambda item: CORNERS[name](item * 1), x, kind=kind)
    assert torch.equal(value, exact)
    assert torch.equal(found, slope)
    assert held == 125


def test_masks_take_the_derivative_of_smooth_functions_for_a_step() -> None:
    x = wave(4, 250)
    for function in (F.hardswish, F.silu, F.gelu):
        value, (found,), held = gradients(function, x, kind="masks")
        assert torch.equal(value, function(x.detach()))
        weights = torch.cos(torch.arange(1000.0)).view(4, 250)
        assert torch.equal(found, weights * (x.detach() > 0))
        assert held == 125


def test_codes_of_inputs_are_further_from_the_gradient_than_codes_of_derivatives() -> None:
    x = wave(64, 64, scale=2.0)
    _, (slope,), _ = gradients(F.gelu, x)
    errors = {}
    for kind in ("codes", "input-codes"):
        value, (found,), held = gradients(F.gelu, x, kind=kind)  # type: ignore[arg-type]
        assert torch.equal(value, F.gelu(x.detach()))
        assert held <= 64 * 64 // 2 + 16
        errors[kind] = (found - slope).norm() / slope.norm()
    assert errors["codes"] < 0.05
    assert errors["input-codes"] > 2 * errors["codes"]


def test_layer_norm_holds_codes_and_its_shift_learns() -> None:
    x, bias = wave(6, 5, 64), torch.zeros(64, requires_grad=True)
    weight = torch.linspace(0.5, 1.5, 64)

    def norm(states: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(states, (64,), weight, shift)

    exact, (on_x, on_bias), _ = gradients(norm, x, bias)
    value, (found, found_bias), held = gradients(norm, x, bias, kind="codes")
    assert torch.equal(value, exact)
    torch.testing.assert_close(found_bias, on_bias)
    assert F.cosine_similarity(found.flatten(), on_x.flatten(), dim=0) > 0.995
    # Codes, three numbers a row, and the weight, which is a parameter elsewhere.
    assert held == 6 * 5 * (32 + 3 * 4) + 64 * 4
    weight.requires_grad_(True)
    _, (on_x, on_weight), _ = gradients(lambda states, scale: F.layer_norm(states, (64,), scale), x, weight)
    _, (found, found_weight), _ = gradients(lambda states, scale: F.layer_norm(states, (64,), scale), x, weight, kind="codes")
    assert torch.equal(found, on_x), "a scale that learns leaves it exact"
    assert torch.equal(found_weight, on_weight)


@pytest.mark.parametrize("shape", [(8, 6), (4, 6, 5, 5)])
def test_batch_norm_with_frozen_scale_holds_nothing_of_its_input(shape: tuple[int, ...]) -> None:
    x, bias = wave(*shape), torch.zeros(6, requires_grad=True)
    mean, variance, weight = torch.randn(6), torch.rand(6) + 0.5, torch.randn(6)

    def norm(states: Tensor, shift: Tensor, training: bool = False) -> Tensor:
        return F.batch_norm(states, mean.clone(), variance.clone(), weight, shift, training)

    exact, (on_x, on_bias), _ = gradients(norm, x, bias)
    for kind in ("codes", "masks"):
        value, (found, found_bias), held = gradients(norm, x, bias, kind=kind)  # type: ignore[arg-type]
        assert torch.equal(value, exact)
        torch.testing.assert_close(found, on_x)
        torch.testing.assert_close(found_bias, on_bias)
        assert held == 6 * 4
    batch = gradients(lambda states, shift: norm(states, shift, True), x, bias)
    assert torch.equal(gradients(lambda states, shift: norm(states, shift, True), x, bias, kind="codes")[1][0], batch[1][0])


def test_softmax_works_from_codes_of_its_output() -> None:
    x = wave(5, 32, scale=1.0)
    exact, (on_x,), _ = gradients(lambda item: F.softmax(item, dim=-1), x)
    for function in (lambda item: F.softmax(item, dim=-1), lambda item: item.softmax(-1), nn.Softmax(dim=-1)):
        value, (found,), held = gradients(function, x, kind="codes")
        assert torch.equal(value, exact)
        assert F.cosine_similarity(found.flatten(), on_x.flatten(), dim=0) > 0.99
        assert held == 5 * (16 + 4)
    assert torch.equal(
        gradients(lambda item: F.softmax(item, dim=0), x, kind="codes")[1][0],
        gradients(lambda item: F.softmax(item, dim=0), x)[1][0],
    )


@pytest.mark.parametrize("mask", ["none", "bool", "additive"])
def test_attention_holds_codes_in_place_of_probabilities(mask: str) -> None:
    query, key, value = (wave(2, 3, 16, 8, scale=1.0) + number for number in range(3))
    inputs = [item.detach().requires_grad_() for item in (query, key, value)]
    hidden = torch.zeros(2, 1, 1, 16, dtype=torch.bool)
    hidden[:, :, :, 12:] = True
    given = {"none": None, "bool": ~hidden, "additive": torch.zeros(2, 1, 1, 16).masked_fill(hidden, -1e9)}[mask]

    def attend(*parts: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=given)

    exact, wanted, _ = gradients(attend, *inputs)
    output, found, held = gradients(attend, *inputs, kind="codes")
    torch.testing.assert_close(output, exact, rtol=1e-4, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.95
    rows = 2 * 3 * 16
    assert held == rows * (8 + 4), "queries, keys and values are leaves here: codes of 16 keys and the highest share of a row"


def test_dropped_values_have_gradients_of_the_kept_ones() -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, requires_grad=True)
    with LeanFunctions("codes"), MemoryMeter([x]) as meter:
        output = F.dropout(x, 0.25)
    output.sum().backward()
    assert meter.held_bytes == 125
    assert x.grad is not None
    assert torch.equal(x.grad, output.detach())
    torch.testing.assert_close(output.unique(), torch.tensor([0.0, 4.0 / 3.0]))
    assert 650 < int((output > 0).sum()) < 850


def test_dropped_shares_of_attention_have_the_gradients_of_the_kept_ones() -> None:
    inputs = [(wave(2, 2, 16, 8, scale=1.0) + number / 4).detach().requires_grad_() for number in range(3)]
    torch.manual_seed(1)
    output, found, _ = gradients(
        lambda *parts: F.scaled_dot_product_attention(parts[0], parts[1], parts[2], dropout_p=0.5), *inputs, kind="codes"
    )

    def exact(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(1)
        shares = torch.softmax(query @ key.transpose(-2, -1) / 8**0.5, dim=-1)
        kept = torch.rand_like(shares) >= 0.5
        return (2 * shares * kept) @ value

    expected, wanted, _ = gradients(exact, *inputs)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        assert F.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.95


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2, "padding": (1, 2)}])
def test_a_frozen_convolution_holds_its_weight_alone(settings: dict[str, Any]) -> None:
    x, bias = wave(2, 4, 9, 9), torch.zeros(6, requires_grad=True)
    weight = torch.randn(6, 4 // settings.get("groups", 1), 3, 3)

    def convolve(pictures: Tensor, shift: Tensor) -> Tensor:
        return F.conv2d(pictures, weight, shift, **settings)

    exact, wanted, _ = gradients(convolve, x, bias)
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = x.detach().contiguous(memory_format=layout).requires_grad_()
        value, found, held = gradients(convolve, laid, bias, kind="masks")
        torch.testing.assert_close(value, exact)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert held == weight.numel() * 4
    learns = weight.clone().requires_grad_()
    _, (_, on_weight), held = gradients(lambda pictures, kernel: F.conv2d(pictures, kernel, **settings), x, learns, kind="masks")
    assert on_weight.shape == weight.shape
    assert held == 0, "an exact one, whose input and weight are leaves here"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 2))


def test_a_lean_module_differs_in_what_it_holds_alone() -> None:
    plain, x = network(), torch.randn(32, 8)
    lean = copy.deepcopy(plain)
    make_lean(lean, "codes")
    assert list(lean.state_dict()) == list(plain.state_dict())
    assert type(lean).__name__ == "Sequential"
    assert isinstance(lean, nn.Sequential)
    assert torch.equal(lean(x), plain(x))
    for model in (plain, lean):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
    held = {}
    for name, model in {"plain": plain, "lean": lean, "copy": copy.deepcopy(lean)}.items():
        with MemoryMeter(model.parameters()) as meter:
            model(x).sum().backward()
        held[name] = meter.held_bytes
    assert held == {"plain": 2 * 32 * 16 * 4, "lean": 32 * 16, "copy": 32 * 16}
    with MemoryMeter(lean.parameters()) as meter:
        lean.eval()(x).sum().backward()
    assert meter.held_bytes == held["plain"], "in evaluation it is exact"
    with pytest.raises(ConfigError, match="holds less for its backward pass already"):
        make_lean(lean, "masks")
    fix_mode(lean)
    with pytest.raises(ConfigError, match="Release its mode first"):
        make_exact(lean)


def test_make_exact_gives_the_class_back() -> None:
    model = network()
    make_exact(model)  # nothing to undo
    make_lean(model, "masks")
    assert type(model) is not nn.Sequential
    make_exact(model)
    assert type(model) is nn.Sequential


def test_what_learns_nothing_is_left_alone() -> None:
    x = torch.randn(4, 6)
    with LeanFunctions("codes"):
        assert F.gelu(x).grad_fn is None
        layer = nn.Linear(6, 6)
        output = F.gelu(layer(x))
    assert "Coded" in type(output.grad_fn).__name__
    with torch.no_grad(), LeanFunctions("codes"):
        assert F.gelu(layer(x)).grad_fn is None


def test_half_precision_passes_through() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8).eval(),
        nn.GELU(),
        nn.Flatten(2),
        nn.LayerNorm(16),
        nn.Linear(16, 16),
        nn.Softmax(dim=-1),
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    pictures = torch.randn(4, 3, 6, 6)
    learned: list[dict[str, Tensor]] = []
    for kind in (None, "codes"):
        twin = copy.deepcopy(model)
        if kind is not None:
            make_lean(twin, kind)  # type: ignore[arg-type]
        with torch.autocast("cpu", torch.bfloat16):
            output = twin(pictures)
        (output.float() * torch.linspace(-1, 1, 16)).sum().backward()
        learned.append({name: parameter.grad for name, parameter in twin.named_parameters() if parameter.grad is not None})
    assert set(learned[0]) == set(learned[1])
    for name, gradient in learned[0].items():
        assert gradient.dtype == learned[1][name].dtype
        assert F.cosine_similarity(gradient.flatten(), learned[1][name].flatten(), dim=0) > 0.9


def test_attention_in_half_precision_has_gradients_in_half_precision() -> None:
    inputs = [(wave(1, 2, 8, 4, scale=1.0) + number).detach().bfloat16().requires_grad_() for number in range(3)]
    with LeanFunctions("codes"), torch.autocast("cpu", torch.bfloat16):
        output = F.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], attn_mask=torch.zeros(1, 1, 1, 8))
    assert output.dtype == torch.bfloat16
    output.sum().backward()
    assert all(item.grad is not None and item.grad.dtype == torch.bfloat16 for item in inputs)


def test_a_norm_whose_shift_alone_learns_holds_nothing() -> None:
    x, bias = torch.randn(5, 8), torch.zeros(8, requires_grad=True)
    _, (exact,), _ = gradients(lambda states, shift: F.layer_norm(states, (8,), None, shift), x, bias)
    _, (found,), held = gradients(lambda states, shift: F.layer_norm(states, (8,), None, shift), x, bias, kind="codes")
    torch.testing.assert_close(found, exact)
    assert held == 0
