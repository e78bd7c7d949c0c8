"""Power laws through learning curves, and what is said of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.records import TaskSpec
from graftwork.evaluation.learning_curve import TOO_WIDE, curve_sentence, fit_power_law, learning_curve

SIZES = [100, 200, 400, 800]
TASK = TaskSpec(name="y", kind="regression", size=1)


@given(a=st.floats(0, 5), b=st.floats(0.1, 5), power=st.integers(0, 28))
def test_a_power_law_is_found_again(a: float, b: float, power: int) -> None:
    c = np.linspace(0.1, 1.5, 29)[power]
    share = np.asarray(SIZES) / SIZES[-1]
    found = fit_power_law(SIZES, (a + b * share**-c)[None])
    assert [float(part[0]) for part in found] == pytest.approx([a, b, c], rel=1e-3, abs=1e-3 * b)


@given(errors=st.lists(st.floats(0, 10), min_size=4, max_size=4))
def test_a_law_never_promises_more_than_no_error_or_more_error(errors: list[float]) -> None:
    a, b, c = (float(part[0]) for part in fit_power_law(SIZES, np.array([errors])))
    assert a >= 0
    assert b >= 0
    assert 0 <= a + b * 2**-c <= a + b + 1e-12


def _curve(error: Any, *, rows: int = 3000, seed: int = 0, runs: int = 3, straying: float = 0.0) -> dict[str, Any]:
    """The curve of a model whose root mean squared error is ``error(size)``."""
    draw = np.random.default_rng(seed)
    target = draw.normal(size=(rows, 1)).astype(np.float32)
    noise = draw.normal(size=(rows, 1))
    answers = [
        [
            {"y": (target + error(size) * (1 + straying * draw.normal()) * noise).astype(np.float32)}
            for _ in range(runs)
        ]
        for size in SIZES
    ]  # fmt: skip
    return learning_curve([TASK], {"y": target}, SIZES, answers, seed=seed)


def test_a_clear_gain_is_said_with_its_interval() -> None:
    found = _curve(lambda size: (size / 800) ** -0.5)
    truth = 100 * (1 - 2**-0.5)
    assert found["twice"]["low"] - 0.5 < truth < found["twice"]["high"] + 0.5
    assert found["says"] == "gain"
    sentence = curve_sentence(found, "trees")
    start = "With twice as many rows like these, the error would probably fall by about "
    assert re.match(rf"{start}2[789] % \(95 % interval \d\d to \d\d %\), by the ", sentence)
    assert sentence.endswith("by the learning curve of `trees` from 100 to 800 training rows.")
    assert "of new groups" in curve_sentence(found, "trees", grouped=True)
    points = found["tasks"]["y"]["points"]
    assert [point["rows"] for point in points] == SIZES
    assert all(point["low"] <= point["value"] <= point["high"] for point in points)
    curve = found["tasks"]["y"]["curve"]
    assert (curve["rows"][0], curve["rows"][-1]) == (100, 1600)
    assert all(low <= high for low, high in zip(curve["low"], curve["high"], strict=True))


def test_a_flat_curve_says_little_and_a_straying_one_nothing() -> None:
    flat = _curve(lambda size: 1.0)
    assert flat["says"] == "little"
    assert "would probably bring little" in curve_sentence(flat, "trees")
    wild = _curve(lambda size: (size / 800) ** -0.3, straying=0.4, runs=1, seed=3)
    assert wild["twice"]["high"] - wild["twice"]["low"] > TOO_WIDE
    assert (wild["says"], curve_sentence(wild, "trees")) == ("", "")


@pytest.mark.parametrize(("floor", "power"), [(1.0, 0.5), (0.0, 0.2), (0.0, 0.5), (0.2, 0.3)])
def test_intervals_cover_the_truth_where_trainings_stray(floor: float, power: float) -> None:
    truth = 100 * (1 - (floor + 2**-power) / (floor + 1))
    covered = 0
    for seed in range(20):
        twice = _curve(lambda size: floor + (size / 800) ** -power, straying=0.02, runs=1, seed=seed, rows=200)["twice"]
        covered += twice["low"] <= truth <= twice["high"]
    assert covered >= 18


def test_metrics_with_a_best_value_of_one_and_tasks_without_a_curve() -> None:
    draw = np.random.default_rng(0)
    task = TaskSpec(name="late", kind="binary", size=1)
    target = draw.integers(0, 2, 2000)
    answers = [[{"late": np.clip(target + size**-0.3 * 2 * draw.normal(size=2000), -2, 3) / 5 + 0.4}] for size in SIZES]
    found = learning_curve([task], {"late": target}, SIZES, answers)
    values = [point["value"] for point in found["tasks"]["late"]["points"]]
    assert values == sorted(values)
    assert found["tasks"]["late"]["curve"]["value"][-1] > values[-1]
    assert max(found["tasks"]["late"]["curve"]["high"]) <= 1
    one_class = learning_curve([task], {"late": np.zeros(2000, np.int64)}, SIZES, answers)
    assert one_class == {"sizes": SIZES, "tasks": {}, "twice": None, "says": ""}
    assert curve_sentence(one_class, "trees") == ""


def test_late_tasks_are_left_out() -> None:
    calls = iter(range(100))
    draw = np.random.default_rng(0)
    targets = {name: draw.normal(size=(300, 1)) for name in ("y", "z")}
    tasks = [TaskSpec(name=name, kind="regression", size=1) for name in targets]
    answers = [[{name: target + size**-0.5 for name, target in targets.items()}] for size in SIZES]
    found = learning_curve(tasks, targets, SIZES, answers, is_late=lambda: next(calls) >= len(SIZES) + 1)
    assert list(found["tasks"]) == ["y"]
