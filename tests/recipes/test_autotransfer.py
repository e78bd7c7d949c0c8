"""The bank of AutoTransfer: tasks that differ, and a held-out task that nothing is made of."""

from __future__ import annotations

import numpy as np
import torch

from graftwork.recipes.selection.autotransfer import RECIPE, Bank, evolution_order, held_out_prior, searched
from graftwork.recipes.selection.graph_bank import ANCHORS, DESIGNS, KINDS, draw_task


def small_bank(seed: int = 0) -> Bank:
    random = np.random.default_rng(seed)
    return Bank(random.random((5, 48)), random.random((5, 48)), 1.0 + random.random((5, 3)))


def test_a_held_out_task_takes_no_part() -> None:
    bank = small_bank()
    changed = Bank(bank.val.copy(), bank.test.copy(), bank.features)
    changed.val[2], changed.test[2] = 0.0, 0.0
    for name in ("transfer", "all-tasks", "shuffled"):
        first, second = (held_out_prior(one.without(2), one.features[2], RECIPE.arm(name), 0, 5) for one in (bank, changed))
        for one, two in zip(first[0].chances, second[0].chances, strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(first[1], second[1])


def test_graphs_are_symmetric_and_their_labels_follow_their_kind() -> None:
    for kind in KINDS:
        task = draw_task(kind, 3)
        assert torch.equal(task.adjacency, task.adjacency.T)
        assert not task.adjacency.diagonal().any()
        rows = torch.cat([task.train, task.val, task.test])
        assert torch.equal(rows.sort().values, torch.arange(400))
        assert set(task.labels.tolist()) == {0, 1, 2, 3}
    degree = draw_task("degree 0.5", 3)
    counts = degree.adjacency.sum(dim=1)
    assert counts[degree.labels == 3].min() >= counts[degree.labels == 0].max()

    def within(kind: str) -> float:
        task = draw_task(kind, 3)
        same = task.labels[:, None] == task.labels[None]
        return float(task.adjacency[same].sum() / task.adjacency.sum())

    assert within("communities +0.90") > 0.8
    assert within("communities -0.95") < 0.1


def test_designs_and_anchors_cover_the_space() -> None:
    assert len(DESIGNS) == len({tuple(design) for design in DESIGNS.tolist()}) == 48
    for place in range(3):
        assert set(DESIGNS[list(ANCHORS), place].tolist()) == set(DESIGNS[:, place].tolist())


def test_searches_by_hand() -> None:
    val, test = np.array([1.0, 5.0, 3.0]), np.array([9.0, 2.0, 7.0])
    assert searched(np.array([0, 2, 1]), val, test, 2) == 7.0
    assert searched(np.array([0, 2, 1]), val, test, 3) == 2.0
    order = evolution_order(np.arange(48.0), 10, np.random.default_rng(0))
    assert len(set(order.tolist())) == 10
    parent = order[:4].max()
    assert (DESIGNS[order[4]] != DESIGNS[parent]).sum() == 1
