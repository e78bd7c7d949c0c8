"""Ranking: loss and scores worked out by hand, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.data.reading.infer import infer_tasks, parse_targets
from graftwork.data.reading.row_groups import task_groups
from graftwork.data.reading.target_cells import InferredTask
from graftwork.evaluation.metrics import metrics_of, score_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import label_count, prior_loss, task_loss

SPEC = TaskSpec(name="fit", kind="ranking", size=1, center=(1.0,), scale=(2.0,))
NAN = float("nan")
# Query 0 holds rows 0, 1 and 3, query 1 rows 2 and 4; row 5 has no label.
TARGET = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [NAN, NAN]])
SCORES = torch.tensor([[0.5], [1.0], [-0.5], [0.0], [2.0], [9.0]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_the_loss_by_hand() -> None:
    wanted = [1.0, 0.0, -0.5, 0.0, 0.5]  # (relevance - 1) / 2
    squared = sum((score - want) ** 2 for score, want in zip([0.5, 1.0, -0.5, 0.0, 2.0], wanted, strict=True)) / 5
    # Pairs, the more relevant one first: (0, 1), (0, 3) and (4, 2); rows 1 and 3 are alike.
    pairs = (softplus(1.0 - 0.5) + softplus(0.0 - 0.5) + softplus(-0.5 - 2.0)) / 3
    assert task_loss(SPEC, SCORES, TARGET).item() == pytest.approx(squared + pairs, rel=1e-6)
    assert int(label_count(SPEC, TARGET)) == 5


def test_scores_of_another_query_change_no_pair() -> None:
    moved = SCORES.clone()
    moved[2] += 3.0
    moved[4] += 3.0  # query 1 as a whole: only the distance to its relevance changes
    squared = torch.tensor([0.5 - 1.0, 1.0, -0.5 + 0.5, 0.0, 2.0 - 0.5]).square().mean()
    shifted = torch.tensor([0.5 - 1.0, 1.0, 3.0, 0.0, 4.5]).square().mean()
    gap = task_loss(SPEC, moved, TARGET) - task_loss(SPEC, SCORES, TARGET)
    torch.testing.assert_close(gap, shifted - squared)


@given(st.permutations(range(6)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    torch.testing.assert_close(task_loss(SPEC, SCORES[order], TARGET[order]), task_loss(SPEC, SCORES, TARGET))
    target, scores = TARGET.numpy(), SCORES[:, 0].numpy()
    assert score_task(SPEC, target[order], scores[order]) == pytest.approx(score_task(SPEC, target, scores))


def test_the_prior_is_the_loss_of_equal_scores() -> None:
    mean = torch.tensor([[(1.4 - 1.0) / 2.0]]).expand(6, 1)
    assert prior_loss(SPEC, TARGET) == pytest.approx(task_loss(SPEC, mean, TARGET).item(), rel=1e-5)
    alone = torch.tensor([[1.0, 0.0], [3.0, 1.0]])  # no pair: the variance of -0.0 and 1.0
    assert prior_loss(SPEC, alone) == pytest.approx(0.25)


def test_answers_are_in_units_of_the_relevance() -> None:
    torch.testing.assert_close(decode_output(SPEC, torch.tensor([[0.5], [-1.0]])), torch.tensor([2.0, -1.0]))
    kind = task_kind(SPEC)
    assert kind.answers(SPEC, np.array([2.0, NAN])) == [{"value": 2.0}, {"value": None}]
    assert kind.describe(SPEC, np.array([3.0, 0.0]), is_prediction=False) == "3"
    assert kind.describe(SPEC, np.array([NAN, NAN]), is_prediction=False) == ""


def test_scores_by_hand() -> None:
    found = score_task(SPEC, TARGET.numpy(), SCORES[:, 0].numpy())
    assert metrics_of(SPEC) == ("ndcg", "ndcg_10", "pair_accuracy")
    # Query 0: row 1 (1), row 0 (3), row 3 (1) against 3, 1, 1. Query 1 is in order.
    second, third = 1 / math.log2(3), 0.5
    first_query = (1 + 3 * second + third) / (3 + second + third)
    # A query weighs as much as its rows do on average, so both weigh the same.
    assert found["ndcg"] == pytest.approx((first_query + 1.0) / 2)
    assert found["pair_accuracy"] == pytest.approx(2 / 3)


@given(st.integers(2, 30), st.integers(0, 10_000))
def test_ndcg_agrees_with_scikit_learn_ties_included(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevance, score = rng.integers(0, 4, rows).astype(float), rng.integers(0, 6, rows).astype(float)
    target = np.stack([relevance, np.zeros(rows)], axis=1)
    found = score_task(SPEC, target, score)
    if not relevance.any():
        assert math.isnan(found["ndcg"])
        return
    assert found["ndcg"] == pytest.approx(ndcg_score(relevance[None], score[None]))
    assert found["ndcg_10"] == pytest.approx(ndcg_score(relevance[None], score[None], k=10))


def read(frame: pd.DataFrame, targets: str) -> InferredTask:
    requests = parse_targets(targets, list(frame.columns))
    return infer_tasks(frame, requests, {requests[0].name: "ranking"})[0]


def test_columns_become_relevance_and_query() -> None:
    frame = pd.DataFrame({"grade": [2, 0, None, 1], "query": ["b", "a", "a", "b"]})
    task = read(frame, "fit=grade+query")
    np.testing.assert_array_equal(task.target, [[2, 0], [0, 1], [NAN, NAN], [1, 0]])
    assert task.spec.columns == ("grade", "query")
    whole = read(frame, "grade")
    np.testing.assert_array_equal(whole.target[:, 1], [0, 0, NAN, 0])
    assert task_groups([whole]) == (None, [])


def test_a_query_stays_on_one_side() -> None:
    frame = pd.DataFrame({"grade": np.arange(200) % 3, "query": np.arange(200) // 5, "late": np.arange(200) % 2})
    groups, notes = task_groups([read(frame, "fit=grade+query")])
    assert groups is not None
    np.testing.assert_array_equal(groups, np.arange(200) // 5)
    assert "the rows of each of its 40 groups are on one side of every split" in notes[0]
    few, notes = task_groups([read(frame.assign(query=np.arange(200) // 20), "fit=grade+query")])
    assert few is None
    assert "10 groups, too few" in notes[0]


@pytest.mark.parametrize(
    ("frame", "targets", "message"),
    [
        ({"g": [1, -1, 2], "q": [0, 0, 1]}, "r=g+q", "at least 0; got -1 in row 2"),
        ({"g": ["good", "bad", "ok"], "q": [0, 0, 1]}, "r=g+q", "relevance must be finite numbers"),
        ({"g": [1, 2, 3], "q": [0, 1, 2]}, "r=g+q", "no value of 'q' has two rows"),
        ({"g": [1, 2, 3], "q": [0, 1, 2], "s": [0, 1, 2]}, "r=g+q+s", "reads a relevance and a query"),
        ({"g": ["good", "bad", "ok"]}, "g", "relevance must be numbers"),
    ],
)
def test_columns_that_rank_nothing_are_named(frame: dict[str, list[object]], targets: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(pd.DataFrame(frame), targets)
    with pytest.raises(ConfigError, match="size must be 1"):
        TaskSpec(name="fit", kind="ranking", size=2)
