from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeRegressor

from graftwork.core.errors import ConfigError
from graftwork.domains.tabular.histogram_trees import TreeGrower, best_splits, column_cuts
from graftwork.domains.tabular.regression_tree import Tree, TreeShape


def grown(x: np.ndarray, targets: np.ndarray, **limits: object) -> tuple[Tree, np.ndarray]:
    grower = TreeGrower(x, [len(x)], TreeShape(**{"max_bins": 65_535, **limits}))  # type: ignore[arg-type]
    return grower.grow([targets], grower.roots(targets), [slice(0, len(x))])[0]


def test_a_stump_by_hand() -> None:
    x = np.array([[1.0, 0.0], [2.0, 1.0], [4.0, 0.0], [8.0, 1.0]], np.float32)
    tree, output = grown(x, np.array([[1.0, 3.0, 10.0, 12.0]]))
    assert (tree.feature[0], tree.threshold[0], tree.depth) == (0, 3.0, 1)
    assert output.tolist() == [[2.0, 2.0, 11.0, 11.0]]
    assert tree.predict(np.array([[3.0, 9.0], [3.1, 9.0]])).tolist() == [[2.0, 11.0]]


def test_gains_by_hand() -> None:
    sums = np.array([[[[1.0, 3.0, 2.0]]]])  # one node, output and column; rows 1, 1, 2
    gain, feature, cut = best_splits(sums, np.array([[[1.0, 1.0, 2.0]]]), 1)
    # cut after the first bin: 1/1 + 25/3 - 36/4; after the second: 16/2 + 4/2 - 36/4
    assert gain[0] == pytest.approx(1.0)
    assert (feature[0], cut[0]) == (0, 1)
    assert best_splits(sums, np.array([[[1.0, 1.0, 2.0]]]), 3)[0][0] == -np.inf


def test_a_cut_amid_empty_bins_is_in_the_middle() -> None:
    sums, counts = np.array([[[[1.0, 0.0, 0.0, 0.0, 5.0]]]]), np.array([[[1.0, 0.0, 0.0, 0.0, 1.0]]])
    assert best_splits(sums, counts, 1)[2].tolist() == [1]


@pytest.mark.parametrize("limits", [{"max_leaf_nodes": 2}, {"max_leaf_nodes": None}, {"max_leaf_nodes": 7, "max_depth": None}])
@pytest.mark.parametrize("outputs", [1, 3])
def test_trees_are_those_of_scikit_learn(limits: dict[str, int | None], outputs: int) -> None:
    generator = np.random.default_rng(outputs)
    x = generator.normal(size=(300, 5)).astype(np.float32)
    targets = np.sin(2 * x @ generator.normal(size=(5, outputs))) + 0.2 * generator.normal(size=(300, outputs))
    tree, output = grown(x, np.ascontiguousarray(targets.T), **limits)
    peer = DecisionTreeRegressor(random_state=0, **{"max_depth": 3, **limits}).fit(x, targets)
    np.testing.assert_allclose(output.T, peer.predict(x).reshape(300, outputs), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(tree.predict(x), output)
    assert (tree.left == np.arange(len(tree.left))).sum() == peer.get_n_leaves()
    assert tree.depth == peer.get_depth()


def test_binned_thresholds_differ_from_exact_ones_below_the_first_split() -> None:
    """Rows 0, 1, 2, 10, 100: the first split sends 0, 2, 100 to one side by the other column. Among these the cuts between 2 and
    100 lie at 6 and 55; the lower one is taken, where an exact tree takes 51. Rows of the table fall as there, new ones between
    6 and 51 do not."""
    x = np.array([[0, 0], [1, 9], [2, 0], [10, 9], [100, 0]], np.float32)
    targets = np.array([0.0, 50.0, 0.0, 50.0, 1.0])
    tree, output = grown(x, targets[None], max_leaf_nodes=3)
    peer = DecisionTreeRegressor(max_leaf_nodes=3, random_state=0).fit(x, targets)
    assert output[0].tolist() == peer.predict(x).tolist() == targets.tolist()
    assert tree.threshold[1] == 6.0
    assert peer.tree_.threshold[1] == 51.0
    new = np.array([[5.0, 0.0], [30.0, 0.0], [60.0, 0.0]])
    assert tree.predict(new).tolist() == [[0.0, 1.0, 1.0]]
    assert peer.predict(new).tolist() == [0.0, 0.0, 1.0]


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_leaves_hold_means_and_keep_their_size(seed: int, leaves: int, smallest: int) -> None:
    generator = np.random.default_rng(seed)
    x, targets = generator.integers(0, 6, size=(80, 3)).astype(np.float32), generator.normal(size=(1, 80))
    tree, output = grown(x, targets, max_leaf_nodes=leaves, max_depth=None, min_samples_leaf=smallest)
    assert (tree.left == np.arange(len(tree.left))).sum() <= leaves
    for value in np.unique(output):
        rows = output[0] == value
        assert rows.sum() >= min(smallest, 80)
        assert targets[0, rows].mean() == pytest.approx(value)


def test_cuts_are_midpoints_and_few_ones_split_rows_evenly() -> None:
    assert column_cuts(np.array([3.0, 1.0, 1.0, 2.0]), 255).tolist() == [1.5, 2.5]
    assert column_cuts(np.array([5.0, 5.0]), 255).tolist() == []
    values = np.random.default_rng(0).normal(size=10_000)
    cuts = column_cuts(values, 16)
    assert len(cuts) == 15
    assert np.bincount(np.searchsorted(cuts, values)).tolist() == [625] * 16
    skewed = column_cuts(np.r_[np.zeros(900), np.arange(1, 101)], 20)
    assert skewed[0] == 0.5
    assert np.all(np.diff(skewed) > 0)


def test_a_constant_column_gives_no_split() -> None:
    tree, output = grown(np.ones((5, 2), np.float32), np.arange(5.0)[None])
    assert tree.depth == 0
    assert output.tolist() == [[2.0] * 5]
    assert tree.predict(np.zeros((2, 2))).tolist() == [[2.0, 2.0]]


def test_tasks_roots_add_up_and_a_sample_counts_alone() -> None:
    generator = np.random.default_rng(0)
    x, targets = generator.normal(size=(60, 2)).astype(np.float32), generator.normal(size=(1, 60))
    parts, whole = TreeGrower(x, [25, 35], TreeShape()), TreeGrower(x, [60], TreeShape())
    np.testing.assert_allclose(parts.roots(targets).combined().sums, whole.roots(targets).sums, atol=1e-12)
    weights = np.array([0.25, 0.75])
    scaled = whole.roots(np.repeat(weights, [25, 35]) * targets)
    np.testing.assert_allclose(parts.roots(targets).combined(weights).sums, scaled.sums, atol=1e-12)
    rows = np.array([1, 4, 30, 59])
    sampled = parts.roots(targets, rows)
    assert sampled.counts.sum(axis=2).tolist() == [[2.0, 2.0], [2.0, 2.0]]
    np.testing.assert_allclose(sampled.sums.sum(axis=(0, 3))[0], targets[0, rows].sum(), atol=1e-12)


def test_limits_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        TreeShape(max_leaf_nodes=1, max_depth=0, min_samples_leaf=0, max_bins=70_000)
    assert len(caught.value.problems) == 4
