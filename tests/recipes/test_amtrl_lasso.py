"""The worlds of L1-A-MTRL: who is relevant in them, which rows are drawn, and that all rules spend the same."""

from __future__ import annotations

import numpy as np

from graftwork.methods.selection.amtrl_lasso import SourceBudget, relevance
from graftwork.recipes.selection.amtrl_lasso import RECIPE, _digit_sharing, digit_error, linear_world
from graftwork.recipes.selection.digit_tasks import CORRUPTIONS, digit_tasks


def test_one_source_is_relevant_in_the_sparse_world() -> None:
    sparse, dense = (linear_world(3, dense=kind) for kind in (False, True))
    near = np.abs(sparse.target @ sparse.heads)
    assert (near > 0.8).sum() == 1
    found = np.abs(relevance(sparse.heads, sparse.target, penalty=1e-3))
    assert found[near > 0.8].sum() > 0.5 * found.sum()
    assert (np.abs(dense.target @ dense.heads) > 0.5).sum() > 2
    np.testing.assert_allclose(np.linalg.norm(sparse.heads, axis=0), 1.0)


def test_rows_of_a_task_are_balanced_and_never_tested() -> None:
    tasks = digit_tasks(0, num_targets=3)
    rows = tasks.draw(np.array([13, 7]), np.array([10, 4]), np.random.default_rng(0))
    assert np.bincount(rows.tasks).nonzero()[0].tolist() == [7, 13]
    assert rows.values[rows.tasks == 13].sum() == 0
    assert len({task % 10 for task in tasks.targets}) == 3
    test = {row.tobytes() for row in tasks.views[1, 1200:]}
    assert not any(row.tobytes() in test for row in rows.inputs[rows.tasks == 13])
    np.testing.assert_array_equal(tasks.target_rows(5, 1)[0], tasks.target_rows(5, 1)[0])
    assert tasks.test_error(3, lambda asked: np.ones(len(asked))) == 0.5


def test_corruptions_keep_the_shape_and_differ() -> None:
    images = np.random.default_rng(0).random((5, 8, 8))
    changed = [change(images) for change in CORRUPTIONS]
    assert all(one.shape == images.shape and one.min() >= 0 and one.max() <= 1 for one in changed)
    assert all(not np.allclose(one, two) for i, one in enumerate(changed) for two in changed[:i])


def test_a_target_is_no_source_of_its_own() -> None:
    tasks = digit_tasks(1, num_targets=2)
    seen: list[tuple[int, int]] = []

    class Watched(SourceBudget):
        def counts(self, heads, target, budget, epoch):  # type: ignore[no-untyped-def]
            seen.append(heads.shape)
            return super().counts(heads, target, budget, epoch)

    error = digit_error(tasks, tasks.targets[0], Watched(rule="uniform").counts, (400, 400), 2, 0)
    assert seen == [(6, 79)]
    assert 0 < error < 100


def test_sources_that_ask_for_the_same_digit_are_what_helps_most() -> None:
    tasks = digit_tasks(2)
    arms = {arm.name: arm for arm in RECIPE.arms}
    error = {
        name: np.mean([digit_error(tasks, own, _digit_sharing(arms[name], own), (1000, 3000), 2, 0) for own in tasks.targets[:4]])
        for name in ("oracle", "uniform")
    }
    assert error["oracle"] < error["uniform"] - 2.0
