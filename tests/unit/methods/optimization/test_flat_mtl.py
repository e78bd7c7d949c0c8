from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, ForwardPass
from graftwork.methods.optimization.aggregator import Aggregator, as_aggregator
from graftwork.methods.optimization.flat_mtl import FlatMTL, FlatVariant
from graftwork.methods.optimization.jacobian import JacobianBalancer
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer


class Three(nn.Module):
    """A trunk with batch-dependent dropout masks that repeat, and three heads, float64."""

    def __init__(self, num_tasks: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.trunk = nn.Linear(4, 6)
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(num_tasks))
        self.double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        self.inputs = torch.randn(7, 4, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(num_tasks, 7, generator=generator, dtype=torch.float64)
        self.keep = torch.rand(7, 6, generator=generator) > 0.3
        self.runs = 0

    def run(self, inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
        self.runs += 1
        hidden = torch.tanh(self.trunk(self.inputs)) * self.keep
        outputs = {str(index): head(hidden) for index, head in enumerate(self.heads)}
        losses = [F.mse_loss(output.squeeze(1), self.targets[index]) for index, output in enumerate(outputs.values())]
        return ForwardPass(outputs, torch.stack(losses), hidden)

    def step(self, balancer: FlatMTL, shared: bool = True) -> list[Tensor]:
        self.zero_grad(set_to_none=True)
        first = self.run()
        common = list(self.trunk.parameters()) if shared else []
        context = BackwardContext(common, [list(head.parameters()) for head in self.heads], None, 0, self.run)
        balancer.backward(first.losses, context)
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters()]


def naive(model: Three, rho_shared: float, rho_own: float, adaptive: bool = False) -> tuple[Tensor, Tensor, list[list[Tensor]]]:
    """Algorithm 1 up to the aggregation, task by task on a model that starts afresh: g, g_SAM (both ``[T, P]``) and the heads'
    gradients."""
    plain, climbed, own = [], [], []
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for task, head in enumerate(model.heads):
        trunk, mine = list(model.trunk.parameters()), list(head.parameters())
        found = torch.autograd.grad(model.run().losses[task], [*trunk, *mine])
        plain.append(torch.cat([part.flatten() for part in found[: len(trunk)]]))
        with torch.no_grad():
            for parameters, gradients, rho in ((trunk, found[: len(trunk)], rho_shared), (mine, found[len(trunk) :], rho_own)):
                sizes = [parameter.abs() if adaptive else torch.ones_like(parameter) for parameter in parameters]
                norm = torch.cat([(size * part).flatten() for size, part in zip(sizes, gradients, strict=True)]).norm()
                for parameter, size, gradient in zip(parameters, sizes, gradients, strict=True):
                    parameter.add_(rho * size.square() * gradient / norm)
        found = torch.autograd.grad(model.run().losses[task], [*trunk, *mine])
        climbed.append(torch.cat([part.flatten() for part in found[: len(trunk)]]))
        own.append(list(found[len(trunk) :]))
        model.load_state_dict(start)
    return torch.stack(plain), torch.stack(climbed), own


def mgda(matrix: Tensor) -> Tensor:
    """Any function that is not linear in its rows will do to tell the variants apart."""
    return (matrix / matrix.norm(dim=1, keepdim=True)).sum(dim=0) * matrix.norm(dim=1).min()


EXPECTED: dict[FlatVariant, Callable[[Tensor, Tensor], Tensor]] = {
    "decomposed": lambda g, sam: mgda(g) + mgda(sam - g),
    "direct": lambda g, sam: mgda(sam),
    "each": lambda g, sam: mgda(
        torch.stack([mgda(torch.stack([mine, climbed - mine])) for mine, climbed in zip(g, sam, strict=True)])
    ),
    "second": lambda g, sam: mgda(torch.stack([mgda(g), mgda(sam - g)])),
}


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("variant", sorted(EXPECTED))
def test_a_step_equals_the_algorithm_written_out(variant: FlatVariant, adaptive: bool) -> None:
    model = Three()
    plain, climbed, own = naive(model, 0.3, 0.1, adaptive)
    gradients = model.step(FlatMTL(lambda: mgda, variant, rho_shared=0.3, rho_own=0.1, adaptive=adaptive))
    shared = torch.cat([gradient.flatten() for gradient in gradients[:2]])
    torch.testing.assert_close(shared, EXPECTED[variant](plain, climbed))
    torch.testing.assert_close(gradients[2:], [gradient for head in own for gradient in head])


@pytest.mark.parametrize("name", ["Mean", "CAGrad", "MGDA", "UPGrad"])
def test_named_aggregators_get_both_parts(name: str) -> None:
    model = Three()
    plain, climbed, _ = naive(model, 0.3, 0.3)
    gradients = model.step(FlatMTL(name, rho_shared=0.3, rho_own=0.3))
    parts = []
    for matrix in (plain, climbed - plain):
        balancer = jacobian_balancer(name)
        assert isinstance(balancer, JacobianBalancer)
        parts.append(balancer.aggregator.combine_(matrix.clone(), torch.ones(3, dtype=torch.bool))[0])
    torch.testing.assert_close(torch.cat([gradient.flatten() for gradient in gradients[:2]]), parts[0] + parts[1])


def test_the_mean_of_both_parts_is_the_mean_of_the_sam_gradients() -> None:
    model = Three()
    torch.testing.assert_close(model.step(FlatMTL("Mean")), model.step(FlatMTL("Mean", "direct")))


def test_without_radius_it_is_the_aggregator_alone() -> None:
    model = Three()
    flat = model.step(FlatMTL("CAGrad", rho_shared=0.0, rho_own=0.0))
    model.zero_grad(set_to_none=True)
    first = model.run()
    jacobian_balancer("CAGrad").backward(
        first.losses,
        BackwardContext(list(model.trunk.parameters()), [list(head.parameters()) for head in model.heads], None, 0),
    )
    torch.testing.assert_close(flat, [parameter.grad for parameter in model.parameters()])


def test_a_step_takes_one_forward_pass_and_one_more_per_task() -> None:
    model = Three()
    model.step(FlatMTL("Mean"))
    assert model.runs == 4


def test_one_task_and_separate_models_get_their_sam_gradients() -> None:
    model = Three(1)
    _, climbed, own = naive(model, 0.2, 0.1)
    gradients = model.step(FlatMTL("MGDA", rho_shared=0.2, rho_own=0.1))
    torch.testing.assert_close(torch.cat([gradient.flatten() for gradient in gradients[:2]]), climbed[0])
    torch.testing.assert_close(gradients[2:], own[0])
    heads = Three()
    gradients = heads.step(FlatMTL("MGDA", rho_own=0.1), shared=False)
    _, _, own = naive(heads, 0.0, 0.1)
    torch.testing.assert_close(gradients[2:], [gradient for head in own for gradient in head])
    assert not any(bool(gradient.any()) for gradient in gradients[:2])


def test_every_place_has_an_aggregator_of_its_own() -> None:
    made: list[Aggregator] = []

    def make() -> Aggregator:
        made.append(as_aggregator(lambda matrix: matrix.sum(dim=0)))
        return made[-1]

    for variant, count in (("direct", 1), ("decomposed", 2), ("second", 3), ("each", 4)):
        made.clear()
        Three().step(FlatMTL(make, variant))  # type: ignore[arg-type]
        assert len(made) == count, variant


def test_errors() -> None:
    with pytest.raises(ConfigError, match="`variant` must be one of decomposed, direct, each, second; got 'both'"):
        FlatMTL(variant="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`rho_shared` must be at least 0; got -1"):
        FlatMTL(rho_shared=-1)
    with pytest.raises(ConfigError, match="`rho_own` must be at least 0; got nan"):
        FlatMTL(rho_own=float("nan"))
    with pytest.raises(ConfigError, match="There is no gradient aggregator 'CAGard'. Did you mean CAGrad"):
        FlatMTL("CAGard")
    with pytest.raises(ConfigError, match="CAGrad has no setting 'd'"):
        FlatMTL("CAGrad", d=1)


def test_own_parameters_that_are_added_have_gradients_of_their_own() -> None:
    trunk, first, second = nn.Linear(3, 2), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    rows = torch.randn(4, 3)

    def run(inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
        hidden = trunk(rows)
        losses = torch.stack([(hidden + (first + second)).square().mean(), hidden.square().mean()])
        return ForwardPass({}, losses, hidden)

    FlatMTL("Mean").backward(run().losses, BackwardContext(list(trunk.parameters()), [[first, second], []], None, 0, run))
    assert first.grad is not None
    assert second.grad is not None
    assert torch.equal(first.grad, second.grad)
    assert first.grad.untyped_storage().data_ptr() != second.grad.untyped_storage().data_ptr()
