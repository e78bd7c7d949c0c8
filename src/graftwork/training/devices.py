"""Where networks are trained, and in which precision: what was asked for, against what is there.

Trees, linear models and exported graphs always compute on the CPU. On an accelerator runs do not repeat bit for bit: its sums
have no fixed order.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.core.machine import DEVICES, PRECISIONS
from graftwork.core.nearest import did_you_mean
from graftwork.interfaces.learner import Precision
from graftwork.training.averaging import copy_sharing

__all__ = ["available_devices", "chosen_device", "chosen_precision", "has_fast_bf16", "on_cpu"]

ModelT = TypeVar("ModelT", bound=nn.Module)
FAST_BF16_SINCE = 8
"""Compute capability of the first NVIDIA GPUs that multiply bfloat16 faster than float32 (Ampere)."""


def available_devices() -> tuple[str, ...]:
    """Return the devices on which this torch can train here, the fastest first; ``cpu`` is the last."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def chosen_device(name: str) -> str:
    """Return ``cpu``, ``cuda`` or ``mps`` for what a user asked for; ``auto`` takes the first of :func:`available_devices`.

    Raises:
        ConfigError: If the device is not there; the message names those that are.
    """
    if name not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(DEVICES)}; got {name!r}.{did_you_mean(name, DEVICES)}")
    there = available_devices()
    if name == "auto":
        return there[0]
    if name not in there:
        raise ConfigError(
            f"{name} is not available on this machine: torch {torch.__version__} sees {', '.join(there)}. {_advice(name)} "
            f"Or use {there[0]}, or auto."
        )
    return name


def _advice(name: str) -> str:
    if name == "mps":
        return "mps needs macOS on an Apple processor."
    if torch.version.cuda is None and torch.version.hip is None:
        return "This build of torch is for CPUs alone: install one for your GPU."
    return "Check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES."


def has_fast_bf16(device: str) -> bool:
    """Return whether bfloat16 is clearly faster than float32 on a device: on NVIDIA GPUs since Ampere, and on AMD's.

    Not on CPUs, also those with instructions for it: what converting costs is more than they win on networks of the usual sizes. Not on
    Apple's, where it saves memory alone.
    """
    if device != "cuda":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability()[0] >= FAST_BF16_SINCE


def chosen_precision(name: str, device: str) -> Precision:
    """Return the precision of forward passes for what a user asked for.

    Args:
        name: ``fp32`` and ``bf16`` hold for all plans. ``auto`` is bfloat16 for pretrained backbones where it is fast, and
            otherwise what a plan says; small networks win nothing by it.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: If there is no such precision, or the device has none.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}; got {name!r}.")
    if name == "auto":
        return "bf16-pretrained" if has_fast_bf16(device) else "plan"
    if name == "fp32":
        return "fp32"
    if device == "cuda" and torch.version.hip is None and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("precision 'bf16' is not supported by this GPU: choose fp32, or auto.")
    return "bf16"


def on_cpu(model: ModelT) -> ModelT:
    """Return a model itself if all of it is on the CPU, else a copy that is."""
    tensors = [*model.parameters(), *model.buffers()]
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return model
    return copy_sharing(model, {id(tensor): tensor.detach().cpu() for tensor in tensors})
