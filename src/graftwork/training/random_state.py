"""The random numbers of a training: torch's global generators, swapped for the training's own during a slice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from graftwork.core.seeds import Seeds

__all__ = ["RandomStream", "device_state", "set_device_state"]


def device_state(device: torch.device) -> Tensor | None:
    """Return the state of the generator of an accelerator; None for the CPU."""
    if device.type == "cpu":
        return None
    found: Tensor = _module(device).get_rng_state(*_place(device))
    return found


def set_device_state(device: torch.device, state: Tensor) -> None:
    """Restore :func:`device_state`."""
    _module(device).set_rng_state(state, *_place(device))


class RandomStream:
    """State of the generator of the CPU and, where a model lives elsewhere, of that device's: dropout there draws from its own.

    Args:
        seeds: Root; the stream is called ``name``.
        name: See ``seeds``.
        device: Where the model lives.
    """

    def __init__(self, seeds: Seeds, name: str, device: torch.device) -> None:
        self._device = device
        self._cpu = seeds.torch(name).get_state()
        # Made when first swapped in: only then must the device be there.
        self._seed, self._other = seeds.integer(name), None if device.type == "cpu" else torch.empty(0, dtype=torch.uint8)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Let the global generators go on with this stream for the time of the block, and then with what they had."""
        outside, outside_device = torch.get_rng_state(), device_state(self._device)
        torch.set_rng_state(self._cpu)
        if self._other is not None:
            first = self._other if len(self._other) else _first_state(self._device, self._seed)
            set_device_state(self._device, first)
        try:
            yield
        finally:
            self._cpu = torch.get_rng_state()
            torch.set_rng_state(outside)
            if outside_device is not None:
                self._other = device_state(self._device)
                set_device_state(self._device, outside_device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the states as tensors of bytes: ``random`` and, of a device, ``random_device``."""
        state = {"random": self._cpu.clone()}
        return state if self._other is None else {**state, "random_device": self._other.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`. A state of another kind of device goes on with a new stream there."""
        self._cpu = state["random"].clone().cpu()
        if self._other is not None:
            self._other = state.get("random_device", self._other[:0]).clone().cpu()


def _module(device: torch.device) -> Any:
    """Return ``torch.cuda`` or its like."""
    return getattr(torch, device.type)


def _first_state(device: torch.device, seed: int) -> Tensor:
    return torch.Generator(device=device).manual_seed(seed).get_state()


def _place(device: torch.device) -> tuple[torch.device, ...]:
    # Apple's module has one device, and takes none.
    return () if device.type == "mps" else (device,)
