"""DLinear: a linear forecaster of trend and remainder, a strong and cheap baseline.

Paper: Zeng et al., "Are Transformers Effective for Time Series Forecasting?", AAAI 2023, https://arxiv.org/abs/2205.13504. The
same two linear layers serve all channels; here each channel is scaled by its own context, as for other forecasters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.domains.timeseries.forecasts import ForecastOutput, forecast_tasks, series_of
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.series_scale import context_scale, scaled_by, unscaled_by

__all__ = ["DLinear"]


class DLinear(SharedModel):
    """A moving average and what remains of it, each through its own linear layer over the steps, summed.

    Args:
        tasks: Forecasts (see :mod:`graftwork.domains.timeseries.forecasts`).
        make_backbone: Not called: there is no trunk.
        inputs: The suite's inputs: one series.
        kernel: Steps of the moving average, odd.

    Raises:
        ConfigError: If the input is no series, a task is no forecast, or ``kernel`` is even or below 1.
    """

    def __init__(
        self, tasks: Sequence[TaskSpec], make_backbone: Callable[[], Backbone], *, inputs: InputSpecs, kernel: int = 25
    ) -> None:
        super().__init__()
        del make_backbone
        self.spec = series_of(inputs, "DLinear")
        self.task_names = tuple(task.name for task in tasks)
        others = [name for name in self.task_names if name not in forecast_tasks(tasks, self.spec)]
        if others:
            raise ConfigError(f"DLinear forecasts the series that it reads; {', '.join(others)} asks for something else.")
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd and at least 1; got {kernel!r}.")
        self.kernel = kernel
        length, horizon = int(self.spec.sizes["length"]), int(self.spec.sizes["horizon"])
        self.heads = nn.ModuleList(
            nn.ModuleDict({"trend": nn.Linear(length, horizon), "rest": nn.Linear(length, horizon)}) for _ in tasks
        )
        self.outputs = nn.ModuleList(ForecastOutput(task, self.spec) for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the scaled channels and, behind them, mean and deviation of the context: ``[B, C, T + 2]``."""
        own = self.spec.own(inputs)
        center, scale = context_scale(own["series"], own["series_mask"])
        scaled = scaled_by(own["series"], own["series_mask"], center, scale)
        # Center and scale travel with the representation: `decode` gets nothing else, and needs them to scale back.
        return torch.cat([scaled.transpose(1, 2), torch.stack([center, scale], dim=2)], dim=2)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the asked forecasts."""
        assert isinstance(representation, Tensor)
        scaled, center, scale = representation[..., :-2], representation[..., -2], representation[..., -1]
        # The ends are repeated, so that the average has the length of the series and is not drawn to 0 there.
        trend = F.avg_pool1d(F.pad(scaled, (self.kernel // 2, self.kernel // 2), mode="replicate"), self.kernel, stride=1)
        found: dict[str, Tensor] = {}
        for name in self.task_names if tasks is None else tasks:
            layers = self.heads[self._index[name]]
            forecast = layers["trend"](trend) + layers["rest"](scaled - trend)  # type: ignore[index]
            found[name] = self.outputs[self._index[name]](unscaled_by(forecast, center, scale))
        return found

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's two layers."""
        return self.heads[self._index[task]].parameters()
