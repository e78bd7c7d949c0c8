"""Longer trainings of finalists that still improve: as long as the time allows, and not once they were no better."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.records import Plan
from graftwork.workflows.fit import attempts as module
from graftwork.workflows.fit.attempts import MARGIN, Attempts
from graftwork.workflows.runs.presets import PRESETS

RESERVED = 5.0


def attempts_of(monkeypatch: pytest.MonkeyPatch, free: float, *, preset: str = "good", improving: bool = True) -> Attempts:
    """Return attempts of a network whose two finals took 10 s each, and of a baseline, with so many seconds beside what is kept."""
    plans = {name: Plan(name=name, title="", role="reference", modalities=("table",)) for name in ("net",)}
    result = {"status": "ok", "seconds": 10.0, "steps": 100, "still_improving": improving}
    context: Any = SimpleNamespace(
        plans=plans,
        schedule=SimpleNamespace(horizons={"net": 100}),
        suite=SimpleNamespace(splits={"train": range(600)}),
        settings=SimpleNamespace(plans=None, overrides={}, preset_values=PRESETS[preset], num_workers=1),
        run=SimpleNamespace(result=lambda _: result, state={}),
    )
    monkeypatch.setattr(module, "seconds_left", lambda _: free + RESERVED)
    finals: Any = {"net": {seed: SimpleNamespace(rows=0, id=f"final-net-s{seed}") for seed in (0, 1)}}
    return Attempts(context, finals, RESERVED)


def first_that_fits(attempts: Attempts) -> dict[str, int]:
    return next((dict(one.horizons) for one in attempts._candidates() if attempts._seconds(one) <= attempts._free()), {})


@pytest.mark.parametrize(
    ("trainings", "steps"),
    # In units of two trainings: four times the steps, twice the steps, other settings with as many steps, nothing.
    [(4.01, 400), (2.01, 200), (1.01, 100), (0.99, 0)],
)
def test_the_longest_training_that_fits_comes_first(monkeypatch: pytest.MonkeyPatch, trainings: float, steps: int) -> None:
    attempts = attempts_of(monkeypatch, trainings * MARGIN * 20.0)
    assert first_that_fits(attempts) == ({"net": steps} if steps else {})


@pytest.mark.parametrize(("trainings", "steps"), [(1.9, 186), (1.3, 127), (1.27, 0)])
def test_where_no_settings_are_left_it_is_as_long_as_the_time_allows(
    monkeypatch: pytest.MonkeyPatch, trainings: float, steps: int
) -> None:
    attempts = attempts_of(monkeypatch, trainings * MARGIN * 20.0, preset="quick")
    found = first_that_fits(attempts)
    assert found == ({"net": steps} if steps else {})
    attempts._in_vain = {"net"}
    assert first_that_fits(attempts) == {}, "longer ones were no better"


def test_nothing_is_longer_where_nothing_improves(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = attempts_of(monkeypatch, 1000.0, improving=False)
    assert not any(one.longer for one in attempts._candidates())
    assert all(horizons == 100 for one in attempts._candidates() for horizons in one.horizons.values())
