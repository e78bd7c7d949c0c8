"""Embeddings: contrastive loss and retrieval worked out by hand."""

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
from graftwork.data.reading.row_groups import task_groups
from graftwork.data.reading.target_cells import InferredTask
from graftwork.evaluation.metrics import metrics_of, score_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.decode import decode_output
from graftwork.tasks.divergence import output_divergence
from graftwork.tasks.losses import label_count, prior_loss, task_loss
from graftwork.tasks.metrics.retrieval import rank_of_match

SPEC = TaskSpec(name="item", kind="embedding", size=2, details={"temperature": 1.0})
# Directions right, up, right, left; the last row has no id.
VECTORS = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [-1.0, 0.0], [5.0, 5.0]])
IDS = torch.tensor([7, 7, 8, 8, -1])


def test_the_loss_by_hand() -> None:
    e = math.exp
    # Row 0 (right) finds its partner (up, cosine 0) among cosines 0, 1, -1; and so on.
    rows = [
        -math.log(e(0) / (e(0) + e(1) + e(-1))),
        -math.log(e(0) / (e(0) + e(0) + e(0))),
        -math.log(e(-1) / (e(1) + e(0) + e(-1))),
        -math.log(e(-1) / (e(-1) + e(0) + e(-1))),
    ]
    assert task_loss(SPEC, VECTORS, IDS).item() == pytest.approx(sum(rows) / 4 / math.log(3.0), rel=1e-6)
    assert int(label_count(SPEC, IDS)) == 4


def test_two_partners_share_the_weight() -> None:
    target = torch.tensor([0, 0, 0, 1])
    output = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    e = math.exp
    middle = -0.5 * 2 * math.log(e(0) / (e(0) + e(0) + e(-1)))  # row 1: partners at cosine 0 both
    side = -0.5 * (math.log(e(0) / (e(0) + e(-1) + e(0))) + math.log(e(-1) / (e(0) + e(-1) + e(0))))
    assert task_loss(SPEC, output, target).item() == pytest.approx((middle + 2 * side) / 3 / math.log(3.0), rel=1e-6)


@given(st.permutations(range(5)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    torch.testing.assert_close(task_loss(SPEC, VECTORS[order], IDS[order]), task_loss(SPEC, VECTORS, IDS))
    expected = score_task(SPEC, IDS.numpy(), VECTORS.numpy())
    assert score_task(SPEC, IDS.numpy()[order], VECTORS.numpy()[order]) == pytest.approx(expected)


@given(st.integers(0, 1000))
def test_only_directions_count(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    output, lengths = torch.randn(8, 3, generator=generator), torch.rand(8, 1, generator=generator) + 0.5
    spec, target = TaskSpec(name="item", kind="embedding", size=3), torch.arange(8) % 3
    torch.testing.assert_close(task_loss(spec, output * lengths, target), task_loss(spec, output, target))
    torch.testing.assert_close(decode_output(spec, output * lengths), decode_output(spec, output))
    assert output_divergence(spec, output, output * lengths).item() == pytest.approx(0.0, abs=1e-6)


def test_a_batch_without_a_pair_has_no_loss_and_no_gradient() -> None:
    for ids in ([1, 2, 3, 4, -1], [5, -1, -1, -1, -1]):
        output = VECTORS.clone().requires_grad_()
        loss = task_loss(SPEC, output, torch.tensor(ids))
        loss.backward()
        assert loss.item() == 0.0
        assert output.grad is not None
        assert not output.grad.any()
        assert prior_loss(SPEC, torch.tensor(ids)) == 1.0


def test_the_prior_is_the_loss_of_equal_vectors() -> None:
    assert task_loss(SPEC, torch.ones(5, 2), IDS).item() == pytest.approx(1.0, rel=1e-6)
    assert prior_loss(SPEC, IDS) == 1.0


def test_recall_by_hand() -> None:
    ids = np.array([0, 0, 1, 1, 2, -1])
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2], [-1.0, 0.0], [1.0, 0.0]])
    # Row 0 finds row 1 first. Row 1 is as near to row 3 as 0.98..., to row 0 0.99.... Row 2 finds row 3 first. Row 3 is nearer
    # to 1 and 0.
    assert rank_of_match(ids[:5], vectors[:5]).tolist() == [0, 0, 0, 2, -1]
    found = score_task(SPEC, ids, vectors)
    assert metrics_of(SPEC) == ("recall_1", "recall_5", "recall_10")
    assert found == pytest.approx({"recall_1": 3 / 4, "recall_5": 1.0, "recall_10": 1.0})


def test_vectors_that_are_all_the_same_retrieve_nothing() -> None:
    ids = np.arange(40) // 2
    assert score_task(SPEC, ids, np.ones((40, 2)))["recall_10"] == 0.0


@given(st.integers(2, 30), st.integers(0, 1000))
def test_recall_of_blocks_is_that_of_one_table(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, vectors = rng.integers(0, 6, rows), rng.normal(size=(rows, 3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, rank in enumerate(rank_of_match(ids, vectors)):
        near = unit @ unit[row]
        partners = [other for other in range(rows) if other != row and ids[other] == ids[row]]
        expected = sum(near[other] >= max(near[partners]) for other in range(rows) if ids[other] != ids[row]) if partners else -1
        assert rank == expected


def read(cells: list[object]) -> InferredTask:
    frame = pd.DataFrame({"item": cells})
    return infer_tasks(frame, parse_targets("item", ["item"]), {"item": "embedding"})[0]


def test_a_column_becomes_ids() -> None:
    task = read(["a", "b", None, "a", "c"])
    np.testing.assert_array_equal(task.target, [0, 1, -1, 0, 2])
    assert "3 ids; 2 of them have one row and teach nothing" in task.reason
    answer = task_kind(task.spec).answers(task.spec, np.full((1, 32), 0.25))
    assert answer == [{"vector": [0.25] * 32}]
    assert list(task_kind(task.spec).table(task.spec, np.zeros((2, 32))))[:2] == ["item[0]", "item[1]"]
    with pytest.raises(DataError, match="none of the 3 ids has two rows"):
        read(["a", "b", "c"])
    with pytest.raises(ConfigError, match="must be a number above 0"):
        TaskSpec(name="item", kind="embedding", size=2, details={"temperature": 0})


def test_rows_of_an_id_stay_together_and_others_stand_alone() -> None:
    task = read([None if row % 10 == 9 else f"i{row // 3}" for row in range(120)])
    groups, _ = task_groups([task])
    assert groups is not None
    assert len(set(groups[9::10])) == 12
    assert groups[0] == groups[1] == groups[2] != groups[3]
