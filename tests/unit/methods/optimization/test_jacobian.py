from __future__ import annotations

import pytest
import torch
from balancing_models import TinyModel
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.methods.optimization import jacobian
from graftwork.methods.optimization.aggregator import WeightedAggregator
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.gradient_rows import GradientRows
from graftwork.methods.optimization.jacobian import JacobianBalancer, RepresentationBalancer
from graftwork.methods.optimization.task_graph import add_gradients, loss_roots, outside_of


class Seen:
    """An aggregator that keeps a copy of the matrix and returns a chosen combination."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.matrix = torch.empty(0)

    def __call__(self, matrix: Tensor) -> Tensor:
        self.matrix = matrix.clone()
        return self.weights.to(matrix) @ matrix


WEIGHTS = torch.tensor([1.0, -2.0, 0.5])


def test_exact_rows_are_the_jacobian_and_grad_is_their_combination() -> None:
    model, seen = TinyModel(3), Seen(WEIGHTS)
    expected = model.jacobian()
    gradients, weights = model.balance(JacobianBalancer(seen))
    assert weights is None
    torch.testing.assert_close(seen.matrix, expected)
    flat = torch.cat([gradient.flatten() for gradient in gradients[: len(model.shared)]])
    torch.testing.assert_close(flat, WEIGHTS.double() @ expected)


def test_own_parameters_get_their_own_gradient() -> None:
    model = TinyModel(3)
    losses, _ = model.losses()
    expected = [torch.autograd.grad(losses[t], list(model.heads[t].parameters()), retain_graph=True) for t in range(3)]
    for balancer in (JacobianBalancer(Seen(WEIGHTS)), RepresentationBalancer(Seen(WEIGHTS))):
        model.balance(balancer)
        for head, own in zip(model.heads, expected, strict=True):
            torch.testing.assert_close([parameter.grad for parameter in head.parameters()], list(own))


def test_representation_rows_and_trunk_gradient() -> None:
    model, seen = TinyModel(3), Seen(WEIGHTS)
    expected = model.representation_jacobian()
    gradients, _ = model.balance(RepresentationBalancer(seen))
    torch.testing.assert_close(seen.matrix, expected)
    # A linear combination of losses commutes with the trunk's Jacobian, so both modes agree for fixed weights.
    exact, _ = model.balance(JacobianBalancer(Seen(WEIGHTS)))
    torch.testing.assert_close(gradients, exact)


def test_buffer_is_made_once_and_is_the_gradients_memory() -> None:
    class First(WeightedAggregator):
        def weights(self, statistic: Tensor) -> Tensor:
            return torch.ones(len(statistic), dtype=statistic.dtype)

    model, balancer = TinyModel(3), JacobianBalancer(First())
    model.balance(balancer)
    assert balancer._rows is not None
    storage = balancer._rows.matrix.untyped_storage()
    assert storage.nbytes() == 3 * sum(parameter.numel() for parameter in model.shared) * 8
    first = storage.data_ptr()
    assert all(p.grad is not None and p.grad.untyped_storage().data_ptr() == first for p in model.shared)
    model.balance(balancer)
    assert balancer._rows.matrix.untyped_storage().data_ptr() == first


def test_gradients_accumulate_over_several_batches() -> None:
    model, balancer = TinyModel(3), JacobianBalancer(Seen(WEIGHTS))
    once, _ = model.balance(balancer)
    losses, representation = model.losses()
    balancer.backward(losses, model.context(representation))
    torch.testing.assert_close(model.gradients(), [2 * gradient for gradient in once])


def test_accumulated_views_of_the_buffer_survive_a_second_batch() -> None:
    class Sum(WeightedAggregator):
        def weights(self, statistic: Tensor) -> Tensor:
            return torch.ones(len(statistic), dtype=statistic.dtype)

    model, balancer = TinyModel(3), JacobianBalancer(Sum())
    once, _ = model.balance(balancer)
    losses, representation = model.losses()
    balancer.backward(losses, model.context(representation))
    torch.testing.assert_close(model.gradients(), [2 * gradient for gradient in once])


@pytest.mark.parametrize("kind", [JacobianBalancer, RepresentationBalancer])
def test_losses_need_not_be_stacked_last(kind: type[JacobianBalancer | RepresentationBalancer]) -> None:
    model = TinyModel(3)
    plain, _ = model.balance(kind(Seen(WEIGHTS)))
    model.zero_grad(set_to_none=True)
    losses, representation = model.losses()
    kind(Seen(WEIGHTS)).backward(losses * 1.0, model.context(representation))
    torch.testing.assert_close(model.gradients(), plain)


def test_a_pass_does_not_enter_other_heads() -> None:
    model = TinyModel(3)
    entered: list[int] = []
    representation = model.trunk(model.inputs)
    losses = []
    for index, head in enumerate(model.heads):
        output = head(representation)
        output.register_hook(lambda _, index=index: entered.append(index))
        losses.append(output.square().mean())
    JacobianBalancer(Seen(WEIGHTS)).backward(torch.stack(losses), model.context(representation))
    assert entered == [0, 1, 2]


@pytest.mark.parametrize("uses", ["once", "twice", "shared step", "one absent"])
def test_representation_gradients_in_one_pass_or_in_several(uses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that read the representation twice are summed up; heads that share an operation need a pass each. Both give the
    Jacobian."""
    model, passes = TinyModel(3), []
    original = jacobian._fill_task_by_task
    monkeypatch.setattr(jacobian, "_fill_task_by_task", lambda *args: (passes.append(1), original(*args)))

    def losses() -> tuple[Tensor, Tensor]:
        representation = model.trunk(model.inputs)
        read = torch.exp(representation) if uses == "shared step" else representation
        values = []
        for index, head in enumerate(model.heads):
            output = head(read) + (read.square().sum(dim=1, keepdim=True) if uses == "twice" else 0.0)
            values.append(
                torch.zeros((), dtype=torch.float64) if uses == "one absent" and index == 1 else (output - index).square().mean()
            )
        return torch.stack(values), representation

    values, representation = losses()
    rows = [
        torch.autograd.grad(value, representation, retain_graph=True, allow_unused=True)[0]
        if uses != "one absent" or index != 1
        else None
        for index, value in enumerate(values)
    ]
    expected = torch.stack([torch.zeros(representation.numel()).double() if row is None else row.flatten() for row in rows])
    heads = [
        None
        if uses == "one absent" and index == 1
        else torch.autograd.grad(values[index], list(head.parameters()), retain_graph=True)
        for index, head in enumerate(model.heads)
    ]
    seen = Seen(WEIGHTS)
    values, representation = losses()
    RepresentationBalancer(seen).backward(values, model.context(representation))
    torch.testing.assert_close(seen.matrix, expected)
    assert bool(passes) == (uses == "shared step")
    for head, own in zip(model.heads, heads, strict=True):
        for parameter, gradient in zip(head.parameters(), own or (None, None), strict=True):
            if gradient is None:
                assert parameter.grad is None or not bool(parameter.grad.any())
            else:
                torch.testing.assert_close(parameter.grad, gradient)


def test_shared_parameters_above_the_representation_get_the_sum() -> None:
    trunk, above = nn.Linear(3, 4).double(), nn.Linear(4, 4).double()
    heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(2)).double()
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()

    def losses() -> tuple[Tensor, Tensor]:
        representation = trunk(inputs)
        state = torch.tanh(above(representation))
        return torch.stack([head(state).square().mean() for head in heads]), representation

    values, representation = losses()
    shared = [*trunk.parameters(), *above.parameters()]
    assert outside_of(representation, shared) == list(above.parameters())
    expected = torch.autograd.grad(values.sum(), list(above.parameters()), retain_graph=True)
    context = BackwardContext(shared, [list(head.parameters()) for head in heads], representation, 0)
    RepresentationBalancer(Seen(torch.tensor([3.0, -1.0]))).backward(values, context)
    torch.testing.assert_close([parameter.grad for parameter in above.parameters()], list(expected))
    weighted, _ = losses()
    expected = torch.autograd.grad(3 * weighted[0] - weighted[1], list(trunk.parameters()))
    torch.testing.assert_close([parameter.grad for parameter in trunk.parameters()], list(expected))


def test_parameter_that_one_loss_does_not_reach_has_a_zero_there() -> None:
    model = TinyModel(2)
    extra = nn.Parameter(torch.ones((), dtype=torch.float64))
    seen = Seen(torch.tensor([1.0, 1.0]))
    balancer = JacobianBalancer(seen)
    for reached in (True, False):  # the second time the buffer holds the numbers of the first
        representation = model.trunk(model.inputs)
        means = [head(representation).mean() for head in model.heads]
        losses = torch.stack([means[0] * extra, means[1] * extra if reached else means[1]])
        balancer.backward(losses, BackwardContext([*model.shared, extra], [[], []], representation, 0))
        assert float(seen.matrix[0, -1]) != 0.0
        assert (float(seen.matrix[1, -1]) != 0.0) == reached


def test_parameters_of_two_dtypes_share_the_wider_one() -> None:
    first, second = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    losses = torch.stack([(first * second).sum(), (first.double() ** 2).sum() + second.sum()])
    seen = Seen(torch.tensor([1.0, 1.0]))
    JacobianBalancer(seen).backward(losses, BackwardContext([first, second], [[], []], None, 0))
    assert seen.matrix.dtype == torch.float64
    assert seen.matrix.tolist() == [[3.0, 3.0, 3.0], [2.0, 4.0, 1.0]]
    assert first.grad is not None
    assert first.grad.dtype == torch.float32
    assert first.grad.tolist() == [5.0, 7.0]


def test_hooks_are_gone_after_an_error() -> None:
    model = TinyModel(3)

    def fail(matrix: Tensor) -> Tensor:
        raise ArithmeticError("no direction")

    with pytest.raises(ArithmeticError, match="no direction"):
        model.balance(JacobianBalancer(fail))
    model.zero_grad(set_to_none=True)
    losses, _ = model.losses()
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in model.shared)


def test_no_shared_representation_is_an_error() -> None:
    model = TinyModel(3)
    losses, _ = model.losses()
    with pytest.raises(ConfigError, match="this model has none. Take mode 'parameters'"):
        RepresentationBalancer(Seen(WEIGHTS)).backward(losses, model.context(None))


def test_losses_without_gradient_have_no_root() -> None:
    leaf = torch.tensor(2.0, requires_grad=True)
    assert [root is None for root in loss_roots(torch.stack([leaf * 2, torch.tensor(0.0)]))] == [False, True]
    assert loss_roots(torch.zeros(2)) == [None, None]


def test_fixed_representation_trains_the_heads_alone() -> None:
    model = TinyModel(3)
    representation = model.trunk(model.inputs).detach()
    losses = torch.stack([head(representation).square().mean() for head in model.heads])
    RepresentationBalancer(Seen(WEIGHTS)).backward(losses, model.context(representation))
    assert all(parameter.grad is None for parameter in model.shared)
    assert all(parameter.grad is not None for parameter in model.heads.parameters())


class Biases(nn.Module):
    """Two tasks with two biases each that are added: autograd gives both one gradient, in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        # Wide, so that the layer is kept as factors.
        self.trunk = nn.Linear(40, 30)
        self.biases = nn.ParameterList(torch.randn(30, generator=generator) for _ in range(4))
        self.inputs = torch.randn(5, 40, generator=generator)

    def step(self, balancer: Balancer) -> None:
        self.zero_grad(set_to_none=True)
        hidden = self.trunk(self.inputs)
        losses = [(hidden + (self.biases[2 * task] + self.biases[2 * task + 1])).square().mean() for task in range(2)]
        losses[0] = losses[0] + self.biases[0].sum()  # its gradient alone is an expanded number
        owned = [[self.biases[2 * task], self.biases[2 * task + 1]] for task in range(2)]
        balancer.backward(torch.stack(losses), BackwardContext(list(self.trunk.parameters()), owned, hidden, 0))


class Summed(WeightedAggregator):
    statistic = "gramian"

    def weights(self, statistic: Tensor) -> Tensor:
        return torch.ones(len(statistic), dtype=statistic.dtype)


@pytest.mark.parametrize("kind", [JacobianBalancer, RepresentationBalancer])
def test_no_two_parameters_share_the_memory_of_a_gradient(kind: type[JacobianBalancer | RepresentationBalancer]) -> None:
    model, plain = Biases(), Biases()
    plain.load_state_dict(model.state_dict())
    balancer = kind(Summed())
    model.step(balancer)
    plain.step(EqualWeights())
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
    own = [parameter.grad for parameter in model.biases]
    assert all(gradient is not None for gradient in own)
    assert len({gradient.untyped_storage().data_ptr() for gradient in own if gradient is not None}) == 4
    norms = [float(nn.utils.clip_grad_norm_(each.parameters(), 0.01)) for each in (model, plain)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(total) == pytest.approx(0.01, rel=1e-3)


def test_gradients_of_one_memory_are_parted() -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(5)]
    both, joined = torch.ones(2), torch.arange(4.0)
    add_gradients(parameters, [both, both, joined[:2], joined[2:], torch.ones(()).expand(2)])
    for index, parameter in enumerate(parameters):
        assert parameter.grad is not None
        parameter.grad.mul_(10.0**index)
    assert [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None] == [
        [1, 1],
        [10, 10],
        [0, 100],
        [2000, 3000],
        [10000, 10000],
    ]
    add_gradients(parameters[:2], [torch.ones(2), None])
    assert parameters[0].grad is not None
    assert parameters[0].grad.tolist() == [2, 2]


def test_buffers_follow_a_model_to_another_device_or_precision() -> None:
    balancer = RepresentationBalancer(Summed())
    assert balancer._matrix(2, torch.zeros(2, 3)).device.type == "cpu"
    assert balancer._matrix(2, torch.zeros(2, 3, device="meta")).device.type == "meta"
    layer = nn.Linear(3, 2)
    rows = GradientRows(list(layer.parameters()), 2)
    assert rows.fits(list(layer.parameters()), 2)
    layer.double()
    assert not rows.fits(list(layer.parameters()), 2), "the same parameters, in another precision"
    rows = GradientRows([layer.bias], 2)
    torch.utils.swap_tensors(layer.bias, nn.Parameter(torch.zeros(2, dtype=torch.float64, device="meta")))
    assert not rows.fits([layer.bias], 2), "the same parameter, on another device"
