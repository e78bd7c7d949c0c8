"""Layers kept as factors: which are found, and that balancing with them equals balancing with the whole matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.interfaces.balancer import BackwardContext
from graftwork.methods.optimization.jacobian import JacobianBalancer
from graftwork.methods.optimization.layer_factors import find_layers
from graftwork.methods.optimization.task_graph import loss_roots
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer


class ConvTrunk(nn.Module):
    """A strided convolution with more weights than outputs, a norm, and a convolution without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, 5, 3, stride=2, padding=1, dilation=1)
        self.norm = nn.GroupNorm(1, 5)
        self.second = nn.Conv2d(5, 4, 3, stride=3, padding=2, dilation=2, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(torch.tanh(self.norm(self.first(inputs)))).flatten(1)


class Tied(nn.Module):
    """A layer that is used twice, and one whose weight is used once more by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.twice, self.once = nn.Linear(9, 8), nn.Linear(8, 8), nn.Linear(8, 7)

    def forward(self, inputs: Tensor) -> Tensor:
        state = self.twice(torch.tanh(self.twice(torch.tanh(self.enter(inputs)))))
        return self.once(state) + self.once.weight.mean()


class TiedTranspose(nn.Module):
    """One transposed weight, read by two products."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 9))

    def forward(self, inputs: Tensor) -> Tensor:
        transposed = self.weight.t()
        return torch.mm(inputs, transposed) + torch.mm(inputs.flip(1), transposed)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 12), nn.Tanh(), nn.LayerNorm(12), nn.Linear(12, 10, bias=False), nn.Tanh())


TRUNKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "mlp": (mlp, (3, 9), ["0.weight", "3.weight"]),
    "tokens": (mlp, (2, 3, 9), ["0.weight", "3.weight"]),
    "convolutions": (ConvTrunk, (1, 6, 8, 8), ["first.weight", "second.weight"]),
    "tied": (Tied, (3, 9), ["enter.weight"]),
    "tied transpose": (TiedTranspose, (3, 9), []),
    "many rows": (mlp, (40, 9), []),
}


class Model:
    def __init__(self, name: str, num_tasks: int = 4, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(3)
        make, shape, self.expected = TRUNKS[name]
        self.trunk = make().to(dtype)
        self.inputs = torch.randn(shape, dtype=dtype)
        width = self.trunk(self.inputs).shape[-1]
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(num_tasks)).to(dtype)
        rows = self.trunk(self.inputs).flatten(0, -2).shape[0]
        self.targets = torch.randn(num_tasks, rows, 1, dtype=dtype) * torch.logspace(0, 1, num_tasks, dtype=dtype)[:, None, None]

    @property
    def shared(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.trunk.parameters() if parameter.requires_grad]

    def losses(self, absent: int | None = None) -> Tensor:
        state = self.trunk(self.inputs).flatten(0, -2)
        return torch.stack(
            [
                state.sum() * 0.0 if index == absent else F.mse_loss(head(state), self.targets[index])
                for index, head in enumerate(self.heads)
            ]
        )

    def gradients(self, balancer: JacobianBalancer, absent: int | None = None, earlier: float = 0.0) -> list[Tensor]:
        parameters = [*self.shared, *self.heads.parameters()]
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, earlier) if earlier else None
        losses = self.losses(absent)
        balancer.backward(losses, BackwardContext(self.shared, [list(head.parameters()) for head in self.heads], None, 0))
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def build(name: str, *, factored: bool) -> JacobianBalancer:
    balancer = jacobian_balancer(name, factored=factored)
    assert isinstance(balancer, JacobianBalancer)
    return balancer


@pytest.mark.parametrize("name", TRUNKS)
def test_finds_the_layers_that_are_worth_it(name: str) -> None:
    model = Model(name)
    names = {id(parameter): key for key, parameter in model.trunk.named_parameters()}
    found = find_layers(loss_roots(model.losses()), model.shared)
    assert sorted(names[id(layer.weight)] for layer in found) == sorted(model.expected)


@pytest.mark.parametrize("aggregator", ["UPGrad", "MGDA", "CAGrad", "AlignedMTL", "IMTLG", "Sum"])
@pytest.mark.parametrize("name", TRUNKS)
def test_equals_the_whole_matrix(name: str, aggregator: str) -> None:
    model = Model(name)
    expected = model.gradients(build(aggregator, factored=False))
    for found, wanted in zip(model.gradients(build(aggregator, factored=True)), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "convolutions"])
def test_a_task_without_labels_is_left_out(name: str) -> None:
    model = Model(name)
    expected = model.gradients(build("UPGrad", factored=False), absent=1)
    for found, wanted in zip(model.gradients(build("UPGrad", factored=True), absent=1), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)


def test_adds_to_gradients_that_are_there() -> None:
    model = Model("mlp")
    fresh = model.gradients(build("UPGrad", factored=True))
    for found, wanted in zip(model.gradients(build("UPGrad", factored=True), earlier=2.0), fresh, strict=True):
        torch.testing.assert_close(found, wanted + 2.0)


def test_two_calls_without_clearing_add_up() -> None:
    model, balancer = Model("mlp"), build("UPGrad", factored=True)
    once = model.gradients(balancer)
    losses = model.losses()
    balancer.backward(losses, BackwardContext(model.shared, [list(head.parameters()) for head in model.heads], None, 0))
    for parameter, wanted in zip([*model.shared, *model.heads.parameters()], once, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 2 * wanted)


def test_frozen_parameters_stay_without_gradient() -> None:
    model = Model("mlp")
    model.trunk.get_parameter("0.weight").requires_grad_(False)
    found = find_layers(loss_roots(model.losses()), model.shared)
    assert [layer.weight.shape for layer in found] == [(10, 12)]
    expected = model.gradients(build("UPGrad", factored=False))
    for mine, wanted in zip(model.gradients(build("UPGrad", factored=True)), expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-7, atol=1e-10)
    assert model.trunk.get_parameter("0.weight").grad is None


def test_works_under_bfloat16_autocast() -> None:
    model = Model("mlp", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model.gradients(build("UPGrad", factored=False))
        found = model.gradients(build("UPGrad", factored=True))
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0.05, atol=0.02)


def test_works_with_bfloat16_weights() -> None:
    model = Model("mlp", dtype=torch.bfloat16)
    expected = model.gradients(build("Mean", factored=False))
    found = model.gradients(build("Mean", factored=True))
    for mine, wanted in zip(found, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, wanted, rtol=0.05, atol=0.05)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 12),
    width=st.integers(2, 16),
    num_tasks=st.integers(2, 5),
    bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_inner_products_and_sums_of_any_linear_layer(rows: int, width: int, num_tasks: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(width, 6, bias=bias).double()
    output = layer(torch.randn(rows, width, dtype=torch.float64))
    losses = torch.stack([(output * torch.randn_like(output)).sum() for _ in range(num_tasks)])
    found = find_layers(loss_roots(losses), list(layer.parameters()))
    assert len(found) == (rows < width)
    if not found:
        return
    jacobian = torch.stack(
        [torch.cat([g.flatten() for g in torch.autograd.grad(loss, layer.parameters(), retain_graph=True)]) for loss in losses]
    )
    outputs = torch.empty(num_tasks, *found[0].shape, dtype=torch.float64)
    for row, loss in zip(outputs, losses, strict=True):
        found[0].write(row, torch.autograd.grad(loss, output, retain_graph=True)[0])
    torch.testing.assert_close(found[0].inner_products(outputs), jacobian @ jacobian.T)
    weights = torch.randn(num_tasks, dtype=torch.float64)
    summed = torch.cat([gradient.flatten() for _, gradient in found[0].weighted_sum(outputs, weights)])
    torch.testing.assert_close(summed, weights @ jacobian)
