"""Counts of parameters are no measured numbers: they are shown whole."""

from __future__ import annotations

import pytest

from graftwork.reporting.figures.pareto import _cost


@pytest.mark.parametrize(
    ("value", "shown"), [(5, "5"), (5.0, "5"), (227204.0, "227,204"), (6072, "6,072"), (1.6213, "1.621"), (0.04503, "0.04503")]
)
def test_costs(value: float, shown: str) -> None:
    assert _cost(value, 4) == shown
