"""Survival: likelihood, curves and scores worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.data.reading.infer import infer_tasks, parse_targets
from graftwork.evaluation.metrics import default_metric, prepare_metric, score_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import label_count, prior_loss, task_loss
from graftwork.tasks.metrics.survival import event_free, mean_time

SPEC = TaskSpec(name="stay", kind="survival", size=3, details={"edges": [1.0, 2.0, 4.0]})
NAN = float("nan")


def below(x: float) -> float:
    """Minus the log of one minus the hazard, for a logit."""
    return math.log1p(math.exp(x))


def test_the_loss_of_events_and_censored_rows_by_hand() -> None:
    logits = torch.tensor([0.3, -1.2, 0.8])
    cases = [
        ((0.0, 1.0), below(-0.3), 1),  # an event at the very start belongs to the first interval
        ((1.0, 1.0), below(-0.3), 1),  # an interval holds its end
        ((1.5, 1.0), below(0.3) + below(1.2), 2),  # survived the first, event in the second
        ((9.0, 1.0), below(0.3) + below(-1.2) + below(0.8), 3),  # an event after the last edge: survived all that is looked at
        ((2.5, 0.0), below(0.3) + below(-1.2), 2),  # censored: survived the two intervals that ended by then
        ((2.0, 0.0), below(0.3) + below(-1.2), 2),
        ((0.5, 0.0), 0.0, 0),  # left before the first edge: nothing is known
        ((NAN, NAN), 0.0, 0),
    ]
    for row, total, count in cases:
        target = torch.tensor([row])
        assert int(label_count(SPEC, target)) == count, row
        assert task_loss(SPEC, logits[None], target).item() == pytest.approx(total / max(count, 1), rel=1e-6), row
    everyone = torch.tensor([row for row, _, _ in cases])
    mean = sum(total for _, total, _ in cases) / sum(count for _, _, count in cases)
    assert task_loss(SPEC, logits.expand(len(cases), 3), everyone).item() == pytest.approx(mean, rel=1e-6)


def test_the_likelihood_is_that_of_the_answers() -> None:
    """An event in interval 2 has the probability S(1) - S(2), a row that outlives the edges S(4)."""
    logits = torch.tensor([[0.3, -1.2, 0.8]])
    first, second, third = decode_output(SPEC, logits)[0].tolist()
    event = 2 * task_loss(SPEC, logits, torch.tensor([[1.5, 1.0]])).item()
    assert math.exp(-event) == pytest.approx(first - second, rel=1e-5)
    assert math.exp(-3 * task_loss(SPEC, logits, torch.tensor([[4.0, 0.0]])).item()) == pytest.approx(third, rel=1e-5)


def test_curves_means_and_medians_by_hand() -> None:
    curve = decode_output(SPEC, torch.zeros(1, 3))
    torch.testing.assert_close(curve, torch.tensor([[0.5, 0.25, 0.125]]))
    # Trapezoids: (1 + 1/2) / 2 * 1, (1/2 + 1/4) / 2 * 1, (1/4 + 1/8) / 2 * 2.
    assert mean_time(SPEC, curve.numpy()).tolist() == [1.5]
    kind = task_kind(SPEC)
    values = np.array([[0.5, 0.25, 0.125], [0.9, 0.7, 0.3], [1.0, 0.9, 0.8], [0.25, 0.2, 0.1]])
    medians = kind.table(SPEC, values)["stay_median"]
    np.testing.assert_allclose(medians, [1.0, 3.0, NAN, 2 / 3], rtol=1e-6)  # 2 + (0.7 - 0.5) / 0.4 * 2; 0.5 / 0.75
    answers = kind.answers(SPEC, values, probabilities=True)
    assert answers[0] == {
        "value": 1.5,
        "median": 1.0,
        "horizon": 4.0,
        "probabilities": {"1": 0.5, "2": 0.25, "4": 0.125},
    }
    assert answers[2]["median"] is None
    assert kind.describe(SPEC, np.array([2.0, 0.0]), is_prediction=False) == "more than 2"
    assert kind.describe(SPEC, np.array([2.0, 1.0]), is_prediction=False) == "2"
    assert kind.describe(SPEC, values[0], is_prediction=True) == "1.5"


def test_the_prior_is_the_kaplan_meier_curve() -> None:
    # At risk in interval 1: rows 1 to 4 (row 5 left at once), one event. Interval 2: rows 2, 3, 4, two events; row 4 outlives
    # all edges.
    target = torch.tensor([[0.7, 1.0], [1.2, 1.0], [2.0, 1.0], [9.0, 0.0], [0.3, 0.0]])
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    third = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert prior_loss(SPEC, target) == pytest.approx((4 * quarter + 3 * third + 0.0) / 8, rel=1e-6)
    hazards = torch.logit(torch.tensor([[0.25, 2 / 3, 1e-6]])).expand(5, 3)
    assert task_loss(SPEC, hazards, target).item() == pytest.approx(prior_loss(SPEC, target), abs=1e-5)


def test_kaplan_meier_by_hand() -> None:
    # 6 rows, deaths at 1 (6 at risk) and twice at 3 (4 at risk): 5/6, then 5/6 * 2/4.
    time = np.array([1.0, 2.0, 3.0, 3.0, 3.0, 5.0])
    times, free = event_free(time, np.array([True, False, True, True, False, False]))
    assert times.tolist() == [1.0, 3.0]
    np.testing.assert_allclose(free, [5 / 6, 5 / 12])


def test_edges_part_the_events_of_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    time = rng.exponential(10.0, 4000).astype(np.float32)
    target = np.stack([time, np.ones_like(time)], axis=1)
    spec = task_kind(SPEC).fit_spec(TaskSpec(name="stay", kind="survival", size=20), target)
    edges = np.array(spec.details["edges"])
    assert spec.size == len(edges) == 20
    assert edges[-1] == time.max()
    np.testing.assert_allclose(edges[:-1], -10.0 * np.log1p(-np.arange(1, 20) / 20), rtol=0.1)
    few = task_kind(SPEC).fit_spec(TaskSpec(name="stay", kind="survival", size=20), target[:3])
    assert few.details["edges"] == sorted(time[:3].tolist())
    assert TaskSpec.from_json(few.to_json()) == few
    assert task_kind(few).fit_spec(few, target) == few


def test_concordance_by_hand() -> None:
    # Known orders: (0, 1), (0, 2), (0, 3), (2, 3); row 1 is censored, so what came after it is not known.
    target = np.array([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0], [4.0, 1.0], [NAN, NAN]])
    curve = np.array([[0.2, 0.1, 0.1], [0.9, 0.1, 0.1], [0.2, 0.1, 0.1], [0.1, 0.0, 0.0], [0.5, 0.5, 0.5]])
    # Pair (0, 1) is right, (0, 2) is a tie, (0, 3) and (2, 3) are wrong.
    assert default_metric(SPEC) == "concordance"
    assert score_task(SPEC, target, curve)["concordance"] == pytest.approx(1.5 / 4)


def test_ties_in_time_follow_harrell() -> None:
    curve = np.array([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]])
    both = np.array([[2.0, 1.0], [2.0, 1.0]])
    assert math.isnan(score_task(SPEC, both, curve)["concordance"])
    one = np.array([[2.0, 1.0], [2.0, 0.0]])  # the event came first: the censored row was still there
    assert score_task(SPEC, one, curve)["concordance"] == 1.0
    assert score_task(SPEC, one[::-1], curve)["concordance"] == 0.0


@given(st.integers(2, 25), st.integers(0, 10_000))
def test_concordance_is_what_two_loops_count(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.stack([rng.integers(0, 6, rows), rng.integers(0, 2, rows)], axis=1).astype(np.float32)
    target[rng.random(rows) < 0.2] = np.nan
    curve = np.sort(rng.integers(0, 5, (rows, 3)) / 4, axis=1)[:, ::-1]
    weights = rng.integers(0, 3, (2, rows)).astype(float)
    late = mean_time(SPEC, curve)
    for row, found in zip(weights, prepare_metric(SPEC, target, curve)(weights), strict=True):
        alike = pairs = 0.0
        for i in range(rows):
            for j in range(rows):
                (first, event), (second, other) = target[i], target[j]
                if event == 1 and other >= 0 and (first < second or (first == second and other == 0)):
                    pairs += row[i] * row[j]
                    alike += row[i] * row[j] * (float(late[i] < late[j]) + 0.5 * float(late[i] == late[j]))
        assert found == pytest.approx(alike / pairs) if pairs else math.isnan(found)


def test_the_integrated_brier_score_by_hand() -> None:
    spec = TaskSpec(name="stay", kind="survival", size=3, details={"edges": [1.5, 2.5, 3.5]})
    target = np.array([[1.0, 1.0], [2.0, 0.0], [3.0, 1.0], [4.0, 1.0], [NAN, NAN]])
    curve = np.array([[0.4, 0.2, 0.1], [0.9, 0.8, 0.7], [0.8, 0.6, 0.5], [0.9, 0.9, 0.7], [0.0, 0.0, 0.0]])
    # Not censored by t: 1 before 2; one of the three rows that reach 2 leaves there: 2/3 from then on.
    at_1 = (0.4**2 + 0.1**2 + 0.2**2 + 0.1**2) / 4
    at_2 = (0.2**2 + (0.4**2 + 0.1**2) * 1.5) / 4
    at_3 = (0.1**2 + 0.5**2 * 1.5 + 0.3**2 * 1.5) / 4
    expected = ((at_1 + at_2) / 2 + (at_2 + at_3) / 2) / 2
    assert score_task(spec, target, curve)["integrated_brier"] == pytest.approx(expected)
    nothing = np.full((4, 3), 0.5)
    assert score_task(spec, target[:4], nothing)["integrated_brier"] == pytest.approx(0.25)


def test_weights_of_censoring_add_up_for_random_rows() -> None:
    """A constant one half has the score 1/4 under any censoring that leaves rows: the weights of each edge add up to the rows."""
    rng = np.random.default_rng(3)
    event_time, leave = rng.exponential(3.0, 300), rng.exponential(4.0, 300)
    target = np.stack([np.minimum(event_time, leave), event_time <= leave], axis=1).astype(np.float32)
    found = score_task(SPEC, target, np.full((300, 3), 0.5))["integrated_brier"]
    assert found == pytest.approx(0.25, rel=1e-6)


def table(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({"days": rng.integers(1, 90, rows), "died": rng.integers(0, 2, rows), "age": rng.normal(size=rows)})


def read(frame: pd.DataFrame, targets: str = "stay=days+died") -> tuple[TaskSpec, np.ndarray, str]:
    requests = parse_targets(targets, list(frame.columns))
    (task,) = infer_tasks(frame, requests, {"stay": "survival"})
    return task.spec, task.target, task.reason


def test_two_columns_become_a_target() -> None:
    frame = table()
    frame.loc[3, "days"] = None
    frame["died"] = frame["died"].map({0: "no", 1: "yes"})
    frame.loc[5, "died"] = None
    spec, target, reason = read(frame)
    assert (spec.kind, spec.columns) == ("survival", ("days", "died"))
    assert np.isnan(target[[3, 5]]).all()
    assert not np.isnan(np.delete(target, [3, 5], axis=0)).any()
    np.testing.assert_array_equal(target[:3, 1], (frame["died"][:3] == "yes").astype(float))
    assert "'yes' means that it came" in reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"days": -1}, "negative times, the first in row 1"),
        ({"days": "soon"}, "times must be numbers"),
        ({"died": 2}, "must hold 1 .* and 0"),
        ({"died": 0}, "no row has both a time and an event"),
    ],
)
def test_columns_that_are_no_time_and_event_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(table().assign(**change))


def test_swapped_columns_and_one_column_get_a_hint() -> None:
    with pytest.raises(DataError, match="Is it the second column"):
        read(table(), "stay=died+days")
    with pytest.raises(DataError, match="reads several columns"):
        read(table().rename(columns={"days": "stay"}), "stay")
    with pytest.raises(ConfigError, match="increasing numbers"):
        TaskSpec(name="stay", kind="survival", size=2, details={"edges": [2.0, 1.0]})
