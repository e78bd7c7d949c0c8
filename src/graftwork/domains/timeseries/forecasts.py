"""What forecasters share: which tasks are forecasts of the input, and how values scaled by the context become their outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec, InputSpecs, input_of_kind
from graftwork.core.records import TaskSpec

__all__ = ["ForecastOutput", "forecast_tasks", "series_of"]


def series_of(inputs: InputSpecs, needed_by: str) -> InputSpec:
    """Return the record of the only input, a series.

    Raises:
        ConfigError: If there is another input, or a size is missing.
    """
    spec = input_of_kind(inputs, "series", needed_by=needed_by)
    missing = [name for name in ("length", "channels") if name not in spec.sizes]
    if missing:
        raise ConfigError(f"{needed_by} needs the size {missing[0]!r} of the series; got {dict(spec.sizes)}.")
    return spec


def forecast_tasks(tasks: Sequence[TaskSpec], spec: InputSpec) -> tuple[str, ...]:
    """Return the tasks that ask for the next ``horizon`` steps of all channels: regressions of size ``channels * horizon``, where
    the input says a horizon."""
    size = int(spec.sizes["channels"]) * int(spec.sizes.get("horizon", 0))
    return tuple(task.name for task in tasks if size and task.kind == "regression" and not task.positions and task.size == size)


class ForecastOutput(nn.Module):
    """From forecasts in the units of the arrays to a task's standardised outputs.

    Args:
        task: A forecast task.
        spec: The series; its ``center`` and ``scale`` say how values became arrays.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, task: TaskSpec, spec: InputSpec) -> None:
        super().__init__()
        channels = int(spec.sizes["channels"])

        def each(values: Sequence[float], default: float) -> Tensor:
            # [C] to [C * H]: each channel's number for all of its steps.
            return torch.tensor(list(values) or [default] * channels, dtype=torch.float64).repeat_interleave(
                task.size // channels
            )

        center, scale = each(spec.sizes.get("center", ()), 0.0), each(spec.sizes.get("scale", ()), 1.0)
        wanted_center = torch.tensor(task.center or (0.0,) * task.size, dtype=torch.float64)
        wanted_scale = torch.tensor(task.scale or (1.0,) * task.size, dtype=torch.float64)
        # In float64: both centers can be large beside their difference.
        self.register_buffer("gain", (scale / wanted_scale).float(), persistent=False)
        self.register_buffer("shift", ((center - wanted_center) / wanted_scale).float(), persistent=False)

    def forward(self, forecast: Tensor) -> Tensor:
        """Return ``[B, C * H]``, all steps of the first channel first, from ``[B, C, H]``."""
        return forecast.flatten(1) * self.gain + self.shift
