"""DLinear is two linear layers on trend and remainder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.domains.timeseries.dlinear import DLinear

SPEC = {"series": InputSpec(kind="series", sizes={"length": 8, "channels": 2, "horizon": 3})}
TASK = TaskSpec(name="next", kind="regression", size=6)


def test_it_computes_what_is_written_out() -> None:
    torch.manual_seed(0)
    model = DLinear([TASK], lambda: None, inputs=SPEC, kernel=3).double()  # type: ignore[arg-type, return-value]
    series = torch.randn(4, 8, 2, dtype=torch.float64)
    found = model({"series": series, "series_mask": torch.ones(4, 8, 2, dtype=torch.bool)})["next"].detach().numpy()
    layers = model.heads[0]
    weights = {
        name: (layers[name].weight.detach().numpy(), layers[name].bias.detach().numpy())  # type: ignore[index]
        for name in ("trend", "rest")
    }
    for row in range(4):
        for channel in range(2):
            values = series[row, :, channel].numpy()
            center, scale = values.mean(), np.sqrt(values.var() + 1e-5)
            scaled = (values - center) / scale
            padded = np.concatenate([scaled[:1], scaled, scaled[-1:]])
            trend = np.array([padded[step : step + 3].mean() for step in range(8)])
            forecast = sum(
                weights[name][0] @ part + weights[name][1] for name, part in (("trend", trend), ("rest", scaled - trend))
            )
            np.testing.assert_allclose(found[row, 3 * channel : 3 * channel + 3], forecast * scale + center, rtol=1e-8)


def test_what_is_no_forecast_is_refused() -> None:
    other = TaskSpec(name="other", kind="regression", size=1)
    with pytest.raises(ConfigError, match="other asks for something else"):
        DLinear([TASK, other], lambda: None, inputs=SPEC)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="kernel must be odd"):
        DLinear([TASK], lambda: None, inputs=SPEC, kernel=4)  # type: ignore[arg-type, return-value]
