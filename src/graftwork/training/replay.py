"""Repeating a forward pass: the same random draws, and normalisation layers that do not count the batch twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from graftwork.training.random_state import device_state, set_device_state

__all__ = ["frozen_statistics", "get_random_state", "replaying", "set_random_state", "tracking_layers"]


def get_random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Return the state of torch's global generators that modules on ``device`` draw from: the CPU's, and the device's own."""
    other = device_state(device)
    return (torch.get_rng_state(),) if other is None else (torch.get_rng_state(), other)


def set_random_state(device: torch.device, states: Sequence[Tensor]) -> None:
    """Restore :func:`get_random_state`."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        set_device_state(device, states[1])


def tracking_layers(model: nn.Module) -> list[nn.Module]:
    """Return the normalisation layers of a model that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]


@contextlib.contextmanager
def frozen_statistics(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let layers normalise as they would, but leave their running statistics alone.

    Args:
        layers: What :func:`tracking_layers` returned.
    """
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = False  # in training mode the batch's own statistics are used either way
        else:
            layer.momentum = 0.0  # type: ignore[assignment, unused-ignore]  # instance norm has no other switch
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.track_running_stats = True  # type: ignore[assignment, unused-ignore]
            layer.momentum = momentum


@contextlib.contextmanager
def replaying(device: torch.device, states: Sequence[Tensor], layers: Sequence[nn.Module]) -> Iterator[None]:
    """Draw the random numbers that followed ``states`` once more, with frozen statistics; the random state afterwards is the one
    before.

    Args:
        device: Where the model lives.
        states: What :func:`get_random_state` returned before the pass that is repeated.
        layers: What :func:`tracking_layers` returned.
    """
    before = get_random_state(device)
    set_random_state(device, states)
    try:
        with frozen_statistics(layers):
            yield
    finally:
        set_random_state(device, before)
