from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from graftwork.evaluation.memory_meter import MemoryMeter
from graftwork.evaluation.probes import activation_bytes


def net(width: int = 16, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())))


def tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def test_a_step_holds_what_its_forward_pass_keeps_and_lets_it_go() -> None:
    model, inputs = net(), torch.randn(8, 16)
    with MemoryMeter(tensors(model)) as meter:
        model(inputs).sum().backward()
    # The input and four answers of tanh, 8 x 16 numbers each; a linear layer keeps its input, which is tanh's answer.
    assert meter.held_bytes == 5 * 8 * 16 * 4
    assert meter.held_bytes == activation_bytes(lambda: model(inputs).sum(), exclude=tensors(model))
    assert meter._now == 0
    assert meter.rss_bytes >= meter.rss_increase_bytes >= 0
    assert meter.seconds > 0


def test_two_steps_one_after_the_other_hold_no_more_than_one() -> None:
    model, inputs = net(), torch.randn(8, 16)
    with MemoryMeter(tensors(model)) as once:
        model(inputs).sum().backward()
    with MemoryMeter(tensors(model)) as twice:
        for _ in range(2):
            model(inputs).sum().backward()
    with MemoryMeter(tensors(model)) as together:
        first, second = model(inputs).sum(), model(inputs.clone()).sum()
        (first + second).backward()
    assert twice.held_bytes == once.held_bytes
    assert together.held_bytes == 2 * once.held_bytes


def test_frozen_layers_before_the_first_one_that_learns_hold_nothing() -> None:
    model, inputs = net(), torch.randn(8, 16)
    model.requires_grad_(False)
    list(model)[-2].requires_grad_(True)
    with MemoryMeter(tensors(model)) as meter:
        model(inputs).sum().backward()
    assert meter.held_bytes == 2 * 8 * 16 * 4
    model.requires_grad_(False)
    with MemoryMeter(tensors(model)) as nothing:
        model(inputs).sum()
    assert nothing.held_bytes == 0


def test_the_peak_of_recomputed_blocks_is_seen() -> None:
    model, inputs = net(depth=8), torch.randn(8, 16, requires_grad=True)
    with MemoryMeter(tensors(model)) as whole:
        model(inputs).sum().backward()
    with MemoryMeter(tensors(model)) as recomputed:
        checkpoint(model[8:], checkpoint(model[:8], inputs, use_reentrant=True), use_reentrant=True).sum().backward()  # type: ignore[union-attr]
    assert 0 < recomputed.held_bytes < whole.held_bytes


def test_gradients_are_those_of_a_step_without_the_meter() -> None:
    model, inputs = net(), torch.randn(8, 16)
    model(inputs).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    with MemoryMeter(tensors(model)), MemoryMeter(tensors(model)):
        model(inputs).square().sum().backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(expected, model.parameters(), strict=True) if b.grad is not None)


def test_an_error_inside_leaves_no_hooks() -> None:
    with pytest.raises(RuntimeError, match="stop"), MemoryMeter():
        raise RuntimeError("stop")
    x = torch.ones(3, requires_grad=True)
    x.exp().sum().backward()
    assert x.grad is not None
