from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import nct, norm
from scipy.stats import t as student

from graftwork.claims.looks import ERROR, LOOKS, check_looks, critical_values, look_interval, spent_error
from graftwork.core.errors import ConfigError

RUNS = 60_000


def crossed(effect: float, looks: tuple[int, ...], seed: int = 0) -> NDArray[np.bool_]:
    """Simulate runs whose differences have the mean ``effect`` and a spread of 1; True where a look is crossed, ``[R, L]``."""
    values = np.random.default_rng(seed).standard_normal((RUNS, looks[-1])) + effect
    places = np.array(looks) - 1
    count = np.array(looks)
    mean = values.cumsum(1)[:, places] / count
    spread = ((values * values).cumsum(1)[:, places] - count * mean * mean) / (count - 1)
    return np.asarray(mean / np.sqrt(spread / count) > np.array(critical_values(looks)))


def test_one_look_is_the_plain_t_test() -> None:
    for seeds in (2, 3, 5, 20):
        assert critical_values((seeds,))[0] == pytest.approx(student.ppf(0.975, seeds - 1), rel=1e-9)


@pytest.mark.parametrize("looks", [LOOKS, (3, 5), (8, 13, 20)])
def test_a_null_effect_is_taken_for_one_in_at_most_one_run_of_forty(looks: tuple[int, ...]) -> None:
    share = crossed(0.0, looks).any(axis=1).mean()
    # Three standard errors of the simulation: the error is used up, and not exceeded.
    assert abs(share - ERROR) < 3 * math.sqrt(ERROR / RUNS)


def test_plain_intervals_at_every_look_would_err_more_often() -> None:
    values = np.random.default_rng(0).standard_normal((RUNS, 20))
    found = np.zeros(RUNS, dtype=bool)
    for seeds in LOOKS:
        part = values[:, :seeds]
        found |= part.mean(1) / (part.std(1, ddof=1) / math.sqrt(seeds)) > student.ppf(0.975, seeds - 1)
    assert found.mean() > 2 * ERROR


def test_power_and_how_soon_an_effect_is_found() -> None:
    large, middle = crossed(2.0, LOOKS), crossed(0.8, LOOKS)
    # An effect of twice the spread is certain to be found, and mostly after 8 or 13 seeds.
    assert large.any(axis=1).mean() > 0.999
    assert large[:, :3].any(axis=1).mean() > 0.3
    assert large[:, :4].any(axis=1).mean() > 0.99
    # One of 0.8 of it: looking on the way costs little of what one t-test on 20 seeds finds.
    plain = nct.sf(student.ppf(0.975, 19), 19, 0.8 * math.sqrt(20))
    assert plain > 0.9
    assert plain - 0.03 < middle.any(axis=1).mean() < plain
    assert middle[:, :4].any(axis=1).mean() > 0.3


def test_many_seeds_give_the_normal_boundaries_of_the_textbook() -> None:
    # Five evenly spaced looks, one-sided 2.5 %, O'Brien-Fleming spending: values of the literature.
    levels = student.sf(critical_values((100, 200, 300, 400, 500)), [99, 199, 299, 399, 499])
    assert norm.isf(levels) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=0.02)


def test_spending_is_small_at_first_and_complete_at_the_end() -> None:
    shares = np.linspace(0.05, 1.0, 20)
    spent = [spent_error(share) for share in shares]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(ERROR)
    assert spent_error(0.15) < 1e-7


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=1, max_size=4))
def test_later_looks_ask_for_less_and_never_less_than_one_look_alone(steps: list[int]) -> None:
    looks = tuple(int(value) for value in np.cumsum(steps))
    values = critical_values(looks)
    assert list(values) == sorted(values, reverse=True)
    assert values[-1] >= student.ppf(0.975, looks[-1] - 1) - 1e-6
    # What earlier looks spent, taken off as if no run could cross twice, is enough in any case.
    before = spent_error(looks[-2] / looks[-1]) if len(looks) > 1 else 0.0
    assert values[-1] <= student.isf(ERROR - before, looks[-1] - 1) + 1e-9


@pytest.mark.parametrize("looks", [(), (1, 3), (3, 4), (5, 3), (0,), (5, 501)])
def test_plans_that_are_none_are_refused(looks: tuple[int, ...]) -> None:
    assert check_looks(looks)
    with pytest.raises(ConfigError, match="at least 2 seeds after the one before.* at most 500"):
        critical_values(looks)


def test_intervals_narrow_from_look_to_look() -> None:
    differences = [1.0, 2.0, 1.5, 1.2, 1.8, 1.4, 1.6, 1.1]
    wide, narrow = look_interval(differences[:5], LOOKS), look_interval(differences, LOOKS)
    assert wide.value == pytest.approx(1.5)
    assert wide.low < 0 < narrow.low
    plain = look_interval(differences, (8,))
    assert narrow.low < plain.low < plain.value < plain.high < narrow.high
    # Seven seeds are no look: the plain interval, which decides nothing.
    assert look_interval(differences[:7], LOOKS) == look_interval(differences[:7], (7,))


def test_what_does_not_vary_has_no_width_and_one_seed_no_bounds() -> None:
    same = look_interval([0.2, 0.2, 0.2], LOOKS)
    assert (same.low, same.high) == pytest.approx((0.2, 0.2))
    assert math.isinf(look_interval([3.0], LOOKS).low)
