"""Plans that could not be measured in time: guessed from the others, unless their steps may take far longer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.plan import Plan
from graftwork.workflows.runs.estimation import estimate_plans
from graftwork.workflows.runs.plan_costs import FirstFit


def _plan(name: str, role: Any = "joint", source: Any = "scratch") -> Plan:
    return Plan(name=name, title=name, role=role, modalities=("text",), source=source)


def _context(measured: set[str]) -> Any:
    estimate = {"seconds_per_step": 0.05, "setup_seconds": 0.1, "eval_seconds": 0.1, "steps_per_epoch": 10.0}

    def run_jobs(jobs: Any, **_: Any) -> dict[str, Any]:
        return {job.id: {"status": "ok", "estimate": {"plan": job.plan, **estimate}} for job in jobs if job.plan in measured}

    return SimpleNamespace(
        settings=SimpleNamespace(num_workers=2, max_params=None, max_latency=None, max_memory=None),
        maker=SimpleNamespace(estimate=lambda plan, **_: SimpleNamespace(id=f"estimate-{plan.name}", plan=plan.name)),
        run=SimpleNamespace(emit=lambda *_, **__: None),
        run_jobs=run_jobs,
        suite=SimpleNamespace(splits={"train": range(1000)}),
    )


PLANS = [
    _plan("separate", "reference"),
    _plan("shared"),
    _plan("moe"),
    _plan("trees", "independent"),
    _plan("lora", source="pretrained"),
]


def test_a_pretrained_plan_that_was_not_measured_is_left_out() -> None:
    found = estimate_plans(_context({"separate", "shared", "moe", "trees"}), PLANS, seconds=5.0)
    assert not found["lora"].kept
    assert "no time to measure" in found["lora"].reason
    assert all(found[plan.name].kept for plan in PLANS[:-1])


def test_others_are_taken_for_as_slow_as_those_that_were_measured() -> None:
    found = estimate_plans(_context({"separate", "shared", "trees", "lora"}), PLANS, seconds=5.0)
    assert found["moe"].kept
    assert not found["moe"].measured
    assert found["moe"].seconds_per_step == 0.05


def test_where_little_else_races_it_stays() -> None:
    plans = [PLANS[0], PLANS[-1]]
    assert estimate_plans(_context({"separate"}), plans, seconds=5.0)["lora"].kept


def test_a_first_model_that_was_fitted_in_one_go_says_what_its_plan_costs() -> None:
    known = {"trees": FirstFit(rows=1000, seconds=0.4), "moe": FirstFit(rows=500, seconds=2.0)}
    found = estimate_plans(_context({"separate", "shared"}), PLANS[:4], seconds=5.0, known=known)
    assert (found["trees"].setup_seconds, found["trees"].seconds_per_step, found["trees"].measured) == (0.4, 0.0, True)
    # Counted up from half of the rows.
    assert (found["moe"].setup_seconds, found["moe"].measured) == (4.0, False)
    assert all(one.kept for one in found.values())
    # The race is run on a sample.
    assert estimate_plans(_context({"separate", "shared"}), PLANS[:4], rows=500, known=known)["moe"].setup_seconds == 2.0


@pytest.mark.parametrize(
    ("first", "limits", "is_measured"),
    [
        (FirstFit(rows=1000, seconds=3.0, parameters=70), {}, False),
        (FirstFit(rows=1000, seconds=0.1, parameters=70), {}, True),  # cheap enough to look at it properly
        (FirstFit(rows=900, seconds=3.0, parameters=70), {}, True),
        (FirstFit(rows=1000, seconds=3.0, parameters=70), {"max_latency": 9.0}, True),
    ],
)
def test_a_long_first_fit_of_all_rows_is_not_repeated(first: FirstFit, limits: dict[str, float], is_measured: bool) -> None:
    context = _context({"separate", "shared", "trees"})
    vars(context.settings).update(limits)
    found = estimate_plans(context, PLANS[:4], known={"trees": first})["trees"]
    assert (found.setup_seconds, found.parameters) == ((0.1, 0) if is_measured else (3.0, 70))
    assert found.measured


def test_limits_hold_for_plans_that_are_not_measured_again() -> None:
    context = _context({"separate", "shared", "trees"})
    context.settings.max_params = 50
    found = estimate_plans(context, PLANS[:4], known={"trees": FirstFit(rows=1000, seconds=3.0, parameters=70)})["trees"]
    assert not found.kept
    assert "more than --max-params" in found.reason
