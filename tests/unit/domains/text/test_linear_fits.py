from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from graftwork.core.records import TaskSpec
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.text import linear_fits
from graftwork.domains.text.linear_fits import fit_linear_blocks, fit_logistic, fit_ridge, fold_pairs, ridge_path
from graftwork.domains.text.row_space import RowSpace


def sparse_rows(seed: int = 0, rows: int = 60, width: int = 40) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.where(draw.random((rows, width)) < 0.3, draw.normal(size=(rows, width)), 0.0)


@pytest.mark.parametrize("is_dense", [True, False])
def test_ridge_solves_the_normal_equations_for_every_strength(is_dense: bool) -> None:
    x = sparse_rows()
    y = x[:, 0] - 2 * x[:, 1] + 3.0 + 0.1 * np.random.default_rng(1).normal(size=60)
    strengths = [0.1, 1.0, 10.0]
    weights, intercepts = ridge_path(x if is_dense else csr_array(x), y, strengths)
    centred = x - x.mean(axis=0)
    for place, strength in enumerate(strengths):
        solved = np.linalg.solve(centred.T @ centred + strength * np.eye(40), centred.T @ (y - y.mean()))
        np.testing.assert_allclose(weights[:, place], solved, rtol=0, atol=5e-3)
        assert intercepts[place] == pytest.approx(y.mean() - x.mean(axis=0) @ weights[:, place])


def test_a_constant_target_has_no_weights() -> None:
    weights, intercept, _ = fit_ridge(csr_array(sparse_rows()), np.full(60, 7.0))
    assert not weights.any()
    assert intercept == 7.0


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x = sparse_rows(rows=200)
    for classes in (2, 3):
        y = np.digitize(x[:, 0] + x[:, 1] + 0.3 * np.random.default_rng(2).normal(size=200), [-0.4, 0.4])
        y = np.minimum(y, classes - 1)
        weights, intercepts, _ = fit_logistic(csr_array(x), y, classes, inverse=2.0)
        peer = linear_model.LogisticRegression(C=2.0, tol=1e-8, max_iter=2000).fit(x, y)
        raw = x @ weights + intercepts
        own = 1 / (1 + np.exp(-raw[:, 0])) if classes == 2 else (np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True))[:, 1]
        np.testing.assert_allclose(own, peer.predict_proba(x)[:, 1], atol=0.01)


def test_few_rows_in_their_own_space_give_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    x = csr_array(sparse_rows(rows=30, width=80))
    space = RowSpace.of_rows(x)
    assert space.coordinates.shape[1] <= 29
    y = np.asarray(x.toarray()[:, 0] > 0).astype(np.int64)
    slopes, intercepts, _ = fit_logistic(space.coordinates, y, 2, inverse=3.0)
    weights, biases = space.weights(slopes, intercepts)
    np.testing.assert_allclose(x @ weights + biases, space.coordinates @ slopes + intercepts, atol=1e-8)
    direct, offset, _ = fit_logistic(x, y, 2, inverse=3.0)
    np.testing.assert_allclose(x @ weights + biases, x @ direct + offset, atol=0.05)


def block_of(values: np.ndarray, form: str, classes: int = 1) -> LabelBlock:
    known = ~np.isnan(values) if form == "number" else values >= 0
    return LabelBlock(TaskSpec(name="t", kind="regression", size=1), form, values, known, classes)  # type: ignore[arg-type]


def test_of_many_targets_a_few_choose_the_strength() -> None:
    x = csr_array(sparse_rows())
    draw = np.random.default_rng(3)
    blocks = [block_of(x.toarray()[:, 0] + draw.normal(size=60), "number") for _ in range(20)]
    blocks.insert(5, block_of((x.toarray()[:, 1] > 0).astype(np.int64), "classes", 2))
    weights, intercepts, strengths = fit_linear_blocks(x, blocks, np.arange(60))
    assert weights.shape == (40, 21)
    assert intercepts.shape == (21,)
    others = strengths[:5] + strengths[6:]
    assert len(set(strengths)) <= linear_fits._CHOOSING + 2
    assert min(others) > 0


def test_rows_without_a_label_count_for_nothing() -> None:
    x = csr_array(sparse_rows())
    y = x.toarray()[:, 0] * 3
    y[:20] = np.nan
    changed = x.toarray().copy()
    changed[:20] = 9.0
    first, offset, _ = fit_linear_blocks(csr_array(x[20:]), [block_of(y[20:], "number")], np.arange(40))
    second, other, _ = fit_linear_blocks(csr_array(changed), [block_of(y, "number")], np.arange(60))
    np.testing.assert_allclose(x[20:] @ first + offset, x[20:] @ second + other, atol=0.05)


def test_groups_stay_together_in_folds() -> None:
    groups = np.repeat(np.arange(10), 6)
    for fit, held in fold_pairs(60, groups):
        assert not set(groups[fit]) & set(groups[held])
    assert list(fold_pairs(1)) == []
