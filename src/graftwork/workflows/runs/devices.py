"""Where the networks of a run are trained, and in which precision: decided once, when it begins, and the same to its end.

torch is imported only where there may be an accelerator: the process that steers a run does without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.machine import may_have_accelerator
from graftwork.interfaces.learner import Precision
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["ACCELERATED_WORKERS", "check_device_of_run", "device_of_run"]

ACCELERATED_WORKERS = 2
"""Processes that share an accelerator if nothing else is asked for: each holds a context of some hundred megabytes there."""


def device_of_run(settings: FitSettings) -> dict[str, str]:
    """Return ``device`` and ``precision`` for the state of a new run.

    Raises:
        ConfigError: If the device is not there or lacks the precision; the message names what is there.
    """
    is_local = getattr(settings, "engine", "local") == "local"
    if settings.device == "cpu" or (settings.device == "auto" and not (is_local and may_have_accelerator())):
        # What `chosen_precision` returns for a CPU.
        precision: Precision = "plan" if settings.precision == "auto" else settings.precision
        return {"device": "cpu", "precision": precision}
    from graftwork.training.devices import chosen_device, chosen_precision

    device = chosen_device(settings.device)
    return {"device": device, "precision": chosen_precision(settings.precision, device)}


def check_device_of_run(state: Mapping[str, Any], folder: Path, settings: FitSettings) -> None:
    """Check that a run can go on where it began.

    Args:
        state: The state of the run.
        folder: Its folder, for messages.
        settings: Those that hold from now on.

    Raises:
        ConfigError: If its device is not there any more, or the engine has none.
    """
    device = state.get("device", "cpu")
    if device == "cpu":
        return
    again = "On another device its numbers would be others: resume it where it began, or begin a new run in another folder."
    if getattr(settings, "engine", "local") != "local":
        raise ConfigError(f"The run in {folder} was begun on {device}, and the workers of Ray train on CPUs. {again}")
    from graftwork.training.devices import available_devices

    there = available_devices()
    if device not in there:
        raise ConfigError(f"The run in {folder} was begun on {device}; here are: {', '.join(there)}. {again}")
