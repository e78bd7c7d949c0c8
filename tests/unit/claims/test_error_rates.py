"""A simulated study of the whole procedure: seeds are added look by look until the inequality is shown or refuted."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from graftwork.claims.experiment import Demand
from graftwork.claims.judgement import decide
from graftwork.claims.looks import ERROR, LOOKS, look_interval

RUNS = 2000
SLACK = 3 * math.sqrt(ERROR / RUNS)
"""Three standard errors of a simulated share of 2.5 %."""


def study(effect: float, demand: Demand = "better", margin: float = 0.0) -> tuple[dict[str, float], float]:
    """Return the share of runs that end in each state, and the mean number of seeds; differences have a spread of 1."""
    random = np.random.default_rng(7)
    states: Counter[str] = Counter()
    seeds_used = 0
    for _ in range(RUNS):
        differences = (random.standard_normal(LOOKS[-1]) + effect).tolist()
        for seeds in LOOKS:
            interval = look_interval(differences[:seeds], LOOKS)
            state, _ = decide(demand, margin, interval, 0, 0, seeds)
            if state != "open":
                break
        states[state] += 1
        seeds_used += seeds
    return {state: states[state] / RUNS for state in ("shown", "refuted", "open")}, seeds_used / RUNS


def test_no_effect_is_shown_in_at_most_one_run_of_forty() -> None:
    shares, _ = study(0.0)
    assert shares["shown"] <= ERROR + SLACK
    assert shares["refuted"] <= ERROR + SLACK
    assert shares["open"] > 0.9


def test_a_margin_lets_a_null_effect_be_refuted() -> None:
    shares, seeds = study(0.0, margin=1.0)
    assert shares["shown"] <= ERROR + SLACK
    assert shares["refuted"] > 0.95, "the claimed effect is a spread: 20 seeds exclude it"
    assert seeds < 20


def test_an_effect_of_the_margin_is_refuted_in_at_most_one_run_of_forty() -> None:
    shares, _ = study(0.8, margin=0.8)
    assert shares["refuted"] <= ERROR + SLACK


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_power_at_twice_the_margin_and_more(margin: float) -> None:
    shares, seeds = study(1.2, margin=margin)
    assert shares["shown"] > 0.97
    assert seeds < 14, "most runs stop before the last look"


@pytest.mark.parametrize("demand", ["not worse", "at least"])
def test_other_demands_err_as_seldom_at_their_bound(demand: Demand) -> None:
    margin = 0.5
    shares, _ = study(-margin if demand == "not worse" else margin, demand, margin)
    assert shares["shown"] <= ERROR + SLACK
    assert shares["refuted"] <= ERROR + SLACK
