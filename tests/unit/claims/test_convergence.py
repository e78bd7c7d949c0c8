from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graftwork.claims.arm_context import ArmContext
from graftwork.claims.budget_callback import BudgetCallback
from graftwork.claims.convergence import Points, convergence_record, curve_of, still_improving, thinned
from graftwork.claims.watch_callback import WatchCallback


class OneLoop:
    """What callbacks see of a loop."""

    def __init__(self) -> None:
        self.step = 0
        self.model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))


def decay(length: float, points: int = 12) -> Points:
    """A loss that falls by exp(-length) over the whole training."""
    return [(step, math.exp(-length * step / (points - 1))) for step in range(points)]


def test_a_curve_that_has_flattened_is_not_improving() -> None:
    assert still_improving(decay(1.0), larger_is_better=False)
    assert not still_improving(decay(8.0), larger_is_better=False)
    assert not still_improving(decay(1.0), larger_is_better=True), "it falls where it should rise"
    rising = [(step, 90.0 - 50 * value) for step, value in decay(1.0)]
    assert still_improving(rising, larger_is_better=True)
    assert not still_improving(rising[:3], larger_is_better=True), "three points do not tell"


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=40), st.floats(0.1, 10), st.floats(-100, 100))
def test_units_and_direction_do_not_matter(values: list[float], scale: float, shift: float) -> None:
    points = [(step, round(value, 3)) for step, value in enumerate(values)]
    turned = [(step, -value) for step, value in points]
    assert still_improving(points, larger_is_better=True) == still_improving(turned, larger_is_better=False)


def test_curves_are_short_and_finite() -> None:
    points = [(step, math.nan if step == 3 else float(step)) for step in range(100)]
    kept = curve_of(points, larger_is_better=True)["points"]
    assert len(kept) == 12
    assert kept[-1][0] == 99
    assert all(math.isfinite(value) for _, value in kept)
    assert thinned([(1, 1.0), (2, 3.0)], 5) == [(1, 1.0), (2, 3.0)]
    assert thinned([(1, 1.0), (2, 3.0)], 1) == [(2, 2.0)]


@pytest.mark.parametrize("steps", [1, 47, 48, 1000])
def test_the_training_loss_leaves_its_curve(steps: int) -> None:
    found: list[Points] = []
    sums: list[float] = []
    callback = BudgetCallback(lambda counter, amount: None, lambda total, count: sums.append(total), found.append)
    loop = OneLoop()
    losses = np.exp(-3 * np.arange(steps) / steps)
    for loss in losses:
        loop.step += 1
        callback.on_step(loop, [0], torch.tensor([loss, loss]))
    callback.on_end(loop)
    assert sums[0] == pytest.approx(losses.sum(), rel=1e-5)
    curve = found[-1]
    assert curve[-1][0] == steps
    assert 1 <= len(curve) <= 48
    assert [step for step, _ in curve] == sorted({step for step, _ in curve})
    # Each point is the mean over the steps since the one before.
    before = 0
    for step, value in curve:
        assert value == pytest.approx(losses[before:step].mean(), rel=1e-3)
        before = step


def test_slices_of_a_training_are_one_curve() -> None:
    found: list[Points] = []
    callback = BudgetCallback(lambda counter, amount: None, None, found.append)
    loop = OneLoop()
    for _ in range(3):
        for _ in range(5):
            loop.step += 1
            callback.on_step(loop, [0], torch.tensor([1.0 / loop.step]))
        callback.on_end(loop)
    assert [step for step, _ in found[-1]] == list(range(1, 16))
    callback.on_end(loop)
    assert len(found[-1]) == 15


def test_watching_changes_nothing() -> None:
    found: list[Points] = []
    loop = OneLoop()
    loop.model.train()
    loop.model[0].eval()

    def score() -> float:
        loop.model.eval()
        torch.rand(7)
        return float(loop.step)

    watch = WatchCallback(score, 20, lambda points: found.append(list(points)), points=4)
    torch.manual_seed(0)
    expected = torch.rand(20)
    torch.manual_seed(0)
    drawn = []
    for _ in range(20):
        loop.step += 1
        watch.on_step(loop, [0], torch.zeros(1))
        drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected)
    assert found[-1] == [(5, 5.0), (10, 10.0), (15, 15.0), (20, 20.0)]
    assert [module.training for module in loop.model.modules()] == [True, False, True]


def test_contexts_keep_the_last_curve_of_each_measure(tmp_path: Path) -> None:
    context = ArmContext(
        slug="toy", arm="mine", access=frozenset(), seed=0, smoke=True, work=tmp_path, shared=tmp_path / "shared"
    )
    context.record_curve("accuracy", [(1, 0.5)], larger_is_better=True)
    context.record_curve("accuracy", [(1, 0.6)], larger_is_better=True)
    context.once("trunk", lambda folder: context.record_curve("accuracy", [(1, 0.1)], larger_is_better=True))
    # What is built for all arms is no training of this one.
    assert context.curves == {"accuracy": {"larger_is_better": True, "points": [[1, 0.6]]}}


def test_arms_that_still_rise_are_warned_of_by_their_validation() -> None:
    falling, flat = curve_of(decay(1.0), larger_is_better=False), curve_of(decay(8.0), larger_is_better=False)
    curves = {
        seed: {
            "early": {"training loss": flat, "validation loss": falling if seed < 2 else flat},
            "late": {"training loss": falling, "validation loss": flat},
            "blank": {"training loss": falling},
            "trees": {},
        }
        for seed in range(3)
    }
    record = convergence_record(curves)
    assert record["warnings"] == [
        "arm 'early': validation loss still falling at the end in 2 of 3 seeds",
        "arm 'blank': training loss still falling at the end in 3 of 3 seeds",
    ]
    assert record["arms"]["early"]["validation loss"]["still_improving"] == [0, 1]
    assert "trees" not in record["arms"]
    assert record["arms"]["late"]["validation loss"]["points"] == flat["points"]
