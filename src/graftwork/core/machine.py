"""What this process may use of the machine. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["DEVICES", "PRECISIONS", "available_cores", "may_have_accelerator"]

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What a user can ask to train on; ``auto`` takes the first accelerator that is there, else the CPU."""
PRECISIONS = ("auto", "fp32", "bf16")
"""Precisions of forward passes that a user can ask for."""

_DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""Files that drivers make on Linux: NVIDIA's, AMD's, and that of Windows below Linux."""


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def may_have_accelerator() -> bool:
    """Return whether it is worth asking torch for an accelerator: False only where there can be none.

    Importing torch takes a second and 200 MB, which the process that only steers a run would not pay otherwise.
    """
    if sys.platform == "linux":
        return any(Path(file).exists() for file in _DEVICE_FILES)
    return True
