from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.optimization.rep_mtl import RepMTL, alignment_loss, regulation_loss, task_saliencies


def slow_regulation(saliencies: Tensor) -> Tensor:
    """Equations 4 to 6, location by location; saliencies ``[T, B, C, N]``."""
    num_tasks, num_samples, _, num_locations = saliencies.shape
    total = torch.zeros((), dtype=saliencies.dtype)
    for sample in range(num_samples):
        for location in range(num_locations):
            values = torch.stack([saliencies[t, sample, :, location].mean().abs() for t in range(num_tasks)])
            share = values / values.sum()
            total = total - sum(p * p.log() for p in share if p > 0)
    return total / (num_samples * num_locations)


def slow_alignment(saliencies: Tensor, temperature: float) -> Tensor:
    """Equations 7 to 9 with every ``[C, C]`` affinity written out."""
    num_tasks, num_samples, _, _ = saliencies.shape
    anchors, affinities = [], []
    for sample in range(num_samples):
        mean = torch.stack([saliencies[t, sample].mean(dim=1) for t in range(num_tasks)], dim=1)  # [C, T]
        anchors.append(F.normalize((mean @ mean.T).flatten(), dim=0, eps=1e-30))
        affinities.append(
            [F.normalize((saliencies[t, sample] @ saliencies[t, sample].T).flatten(), dim=0, eps=1e-30) for t in range(num_tasks)]
        )
    total = torch.zeros((), dtype=saliencies.dtype)
    for sample in range(num_samples):
        positive = sum(anchors[sample] @ affinities[sample][t] for t in range(num_tasks)) / num_tasks
        negatives = sum((anchors[sample] @ anchors[k] / temperature).exp() for k in range(num_samples) if k != sample)
        total = total - torch.log((positive / temperature).exp() / negatives)
    return total / num_samples


class TwoHeads(nn.Module):
    """A trunk to vectors, tokens or maps, and two smooth heads, float64."""

    task_names = ("a", "b")

    def __init__(self, layout: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.layout = layout
        self.trunk = nn.Linear(4, 3 if layout == "vector" else 12)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(3 if layout == "vector" else 12, 5), nn.GELU(), nn.Linear(5, 1)) for _ in range(2)
        )
        self.double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
        self.inputs = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(2, 3, generator=generator, dtype=torch.float64)

    def run(self, rows: slice = slice(None)) -> ObjectiveInputs:
        flat = torch.tanh(self.trunk(self.inputs[rows]))
        shape = {"vector": (-1, 3), "tokens": (-1, 4, 3), "map": (-1, 3, 2, 2)}[self.layout]
        representation = flat.view(shape)
        outputs = {name: head(representation.flatten(1)) for name, head in zip(self.task_names, self.heads, strict=True)}
        losses = torch.stack(
            [F.mse_loss(outputs[name].squeeze(1), self.targets[index, rows]) for index, name in enumerate(self.task_names)]
        )
        empty = torch.zeros(len(flat), dtype=torch.int64)
        batch = Batch({}, {}, {}, empty, empty)
        return ObjectiveInputs(batch, self, outputs, losses, representation, 0)  # type: ignore[arg-type]


def random_saliencies(seed: int, num_tasks: int = 3, num_samples: int = 4, channels: int = 5, locations: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_tasks, num_samples, channels, locations, generator=generator, dtype=torch.float64)


def test_regulation_by_hand() -> None:
    # One sample, two locations, two tasks, one channel: shares 1/4 and 3/4 at the first, all of task b at the second.
    saliencies = torch.tensor([[[[1.0, 0.0]]], [[[-3.0, 2.0]]]], dtype=torch.float64)
    expected = (-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) + 0.0) / 2
    assert float(regulation_loss(saliencies)) == pytest.approx(expected)


def test_regulation_takes_the_mean_over_channels_before_the_absolute_value() -> None:
    saliencies = torch.tensor([[[[1.0], [-1.0]]], [[[2.0], [2.0]]]], dtype=torch.float64)
    assert float(regulation_loss(saliencies)) == pytest.approx(0.0, abs=1e-9)


def test_alignment_by_hand() -> None:
    # Two samples, one task, one location: affinity and anchor of a sample are equal, cosine 1; between samples cos^2 of 60
    # degrees = 1/4.
    saliencies = torch.tensor([[[[1.0], [0.0]], [[0.5], [math.sqrt(0.75)]]]], dtype=torch.float64)
    assert float(alignment_loss(saliencies, temperature=0.5)) == pytest.approx(0.25 / 0.5 - 1.0 / 0.5)


def test_alignment_negatives_are_anchors_of_other_samples_only() -> None:
    saliencies = random_saliencies(0, num_samples=2)
    moved = saliencies.clone()
    moved[:, 1] = moved[:, 1].roll(1, dims=2)  # another order of locations: the affinity and the anchor stay
    torch.testing.assert_close(alignment_loss(moved), alignment_loss(saliencies))


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 5), st.integers(1, 6), st.integers(1, 7))
def test_equal_the_slow_reference(seed: int, num_tasks: int, num_samples: int, channels: int, locations: int) -> None:
    saliencies = random_saliencies(seed, num_tasks, num_samples, channels, locations).requires_grad_()
    slow = saliencies.detach().clone().requires_grad_()
    for fast_loss, slow_loss in (
        (regulation_loss(saliencies), slow_regulation(slow)),
        (alignment_loss(saliencies, 0.3), slow_alignment(slow, 0.3)),
    ):
        torch.testing.assert_close(fast_loss, slow_loss, rtol=1e-8, atol=1e-8)
        ours = torch.autograd.grad(fast_loss, saliencies)[0]
        theirs = torch.autograd.grad(slow_loss, slow)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_regulation_lies_between_zero_and_log_of_the_tasks(seed: int, num_tasks: int) -> None:
    value = float(regulation_loss(random_saliencies(seed, num_tasks)))
    assert -1e-9 <= value <= math.log(num_tasks) + 1e-9


@given(st.integers(0, 10_000), st.sampled_from([1e-9, 1e-3, 1e4]))
def test_common_scale_of_saliencies_does_not_matter(seed: int, scale: float) -> None:
    saliencies = random_saliencies(seed).float()
    torch.testing.assert_close(regulation_loss(saliencies * scale), regulation_loss(saliencies), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alignment_loss(saliencies * scale), alignment_loss(saliencies), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10_000))
def test_order_of_tasks_and_samples_does_not_matter(seed: int) -> None:
    saliencies = random_saliencies(seed)
    shuffled = saliencies[torch.tensor([2, 0, 1])][:, torch.tensor([3, 1, 0, 2])]
    torch.testing.assert_close(regulation_loss(shuffled), regulation_loss(saliencies))
    torch.testing.assert_close(alignment_loss(shuffled), alignment_loss(saliencies))


def test_batch_of_one_has_no_alignment() -> None:
    assert float(alignment_loss(random_saliencies(0, num_samples=1))) == 0.0
    model = TwoHeads("map")
    loss = RepMTL().loss(model.run(slice(0, 1)))
    assert math.isfinite(float(loss.detach()))
    torch.testing.assert_close(loss, RepMTL(lambda_csa=0.0).loss(model.run(slice(0, 1))))


def test_missing_labels_are_left_out() -> None:
    saliencies = random_saliencies(1)
    saliencies[2] = 0.0  # a task without any label in the batch
    torch.testing.assert_close(alignment_loss(saliencies), alignment_loss(saliencies[:2]))
    torch.testing.assert_close(regulation_loss(saliencies), regulation_loss(saliencies[:2]))
    saliencies[:, 3] = 0.0  # a sample without any label
    torch.testing.assert_close(alignment_loss(saliencies), alignment_loss(saliencies[:2, :3]))
    nothing = torch.zeros_like(saliencies).requires_grad_()
    total = alignment_loss(nothing) + regulation_loss(nothing)
    assert total.item() == 0.0
    assert bool(torch.autograd.grad(total, nothing)[0].isfinite().all())


@pytest.mark.parametrize("layout", ["vector", "tokens", "map"])
def test_saliencies_are_gradients_by_channel_and_location(layout: str) -> None:
    inputs = TwoHeads(layout).run()
    assert inputs.representation is not None
    found = task_saliencies(inputs.losses, inputs.representation)
    locations = 1 if layout == "vector" else 4
    assert found.shape == (2, 3, 3, locations)
    for index in range(2):
        plain = torch.autograd.grad(inputs.losses[index], inputs.representation, retain_graph=True)[0]
        expected = {"vector": lambda g: g.unsqueeze(2), "tokens": lambda g: g.transpose(1, 2), "map": lambda g: g.flatten(2)}[
            layout
        ](plain)
        torch.testing.assert_close(found[index], expected)


@pytest.mark.parametrize("layout", ["vector", "tokens", "map"])
def test_gradient_reaches_trunk_and_heads_and_is_right(layout: str) -> None:
    """Central differences of the whole term, second derivatives included."""
    model, objective = TwoHeads(layout), RepMTL(lambda_tsr=0.7, lambda_csa=1.3, moves="all")
    objective.loss(model.run()).backward()
    for parameter in (model.trunk.weight, model.heads[0][0].weight, model.heads[1][2].weight):
        assert parameter.grad is not None
        for index in (0, parameter.numel() // 2):
            flat, step = parameter.data.view(-1), 1e-6
            start = float(flat[index])
            values = []
            for offset in (step, -step):
                flat[index] = start + offset
                values.append(objective.loss(model.run()).item())
            flat[index] = start
            slope = (values[0] - values[1]) / (2 * step)
            assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("layout", ["vector", "tokens", "map"])
def test_moving_the_trunk_alone(layout: str) -> None:
    model = TwoHeads(layout)
    both, trunk = RepMTL(moves="all").loss(model.run()), RepMTL(moves="trunk").loss(model.run())
    torch.testing.assert_close(both, trunk)
    expected = torch.autograd.grad(both, list(model.trunk.parameters()))
    trunk.backward()
    torch.testing.assert_close([parameter.grad for parameter in model.trunk.parameters()], list(expected))
    assert all(parameter.grad is None for parameter in model.heads.parameters())


def test_terms_add_up_with_their_factors() -> None:
    model = TwoHeads("map")
    both = RepMTL(2.0, 3.0, temperature=0.2).loss(model.run())
    inputs = model.run()
    assert inputs.representation is not None
    saliencies = task_saliencies(inputs.losses, inputs.representation)
    torch.testing.assert_close(both, 2.0 * regulation_loss(saliencies) + 3.0 * alignment_loss(saliencies, 0.2))


def test_losses_can_still_be_differentiated_afterwards() -> None:
    model = TwoHeads("map")
    inputs = model.run()
    RepMTL().loss(inputs).backward(retain_graph=True)
    inputs.losses.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="`lambda_tsr` must be at least 0; got -1"):
        RepMTL(lambda_tsr=-1)
    with pytest.raises(ConfigError, match="`lambda_csa` must be at least 0; got nan"):
        RepMTL(lambda_csa=math.nan)
    with pytest.raises(ConfigError, match="`temperature` must be above 0; got 0"):
        RepMTL(temperature=0)
    with pytest.raises(ConfigError, match="`moves` must be 'trunk' or 'all'; got 'heads'"):
        RepMTL(moves="heads")  # type: ignore[arg-type]
    inputs = TwoHeads("vector").run()
    assert inputs.representation is not None
    fixed = ObjectiveInputs(inputs.batch, inputs.model, inputs.outputs, inputs.losses, inputs.representation.detach(), 0)
    with pytest.raises(ConfigError, match=r"that learns; this model's is fixed \(a frozen backbone\?\)"):
        RepMTL().loss(fixed)
    none = ObjectiveInputs(inputs.batch, inputs.model, inputs.outputs, inputs.losses, None, 0)
    with pytest.raises(ConfigError, match="this model has none. Choose another plan"):
        RepMTL().loss(none)


@pytest.mark.parametrize("moves", ["trunk", "all"])
def test_logarithms_of_losses_are_those_of_the_restacked_losses(moves: str) -> None:
    """The quick way, saliencies over losses, against logarithms that are part of the graph."""
    model = TwoHeads("map")
    quick = RepMTL(0.7, 1.3, moves=moves, log_losses=True).loss(model.run())  # type: ignore[arg-type]
    inputs = model.run()
    slow = RepMTL(0.7, 1.3, moves=moves).loss(dataclasses.replace(inputs, losses=inputs.losses.log()))  # type: ignore[arg-type]
    plain = RepMTL(0.7, 1.3, moves=moves).loss(model.run())  # type: ignore[arg-type]
    torch.testing.assert_close(quick, slow)
    assert not torch.allclose(quick, plain)
    for parameter in model.trunk.parameters():
        ours, theirs = (torch.autograd.grad(loss, parameter, retain_graph=True)[0] for loss in (quick, slow))
        torch.testing.assert_close(ours, theirs)


def test_logarithms_leave_tasks_without_labels_out() -> None:
    model = TwoHeads("map")
    inputs = model.run()
    alone = dataclasses.replace(inputs, losses=torch.stack([inputs.losses[0], inputs.losses[1] * 0.0]))
    assert math.isfinite(RepMTL(log_losses=True).loss(alone).item())
