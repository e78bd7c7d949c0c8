from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import DataError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.splits import resplit, split_rows
from graftwork.data.strata import assign_rows, label_matrix, repair_rare_labels
from graftwork.data.suite import Suite

CLASS = TaskSpec(name="c", kind="multiclass", size=6)
TAGS = TaskSpec(name="t", kind="multilabel", size=3)
VALUE = TaskSpec(name="v", kind="regression", size=1)
TASKS = (CLASS, TAGS, VALUE)


def targets_of(number: int, seed: int, missing: float = 0.2) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    classes = np.minimum(generator.geometric(0.5, number) - 1, 5).astype(np.int64)
    classes[generator.random(number) < missing] = -1
    tags = (generator.random((number, 3)) < [0.5, 0.1, 0.02]).astype(np.float32)
    tags[generator.random(number) < missing] = np.nan
    values = generator.normal(size=(number, 1)).astype(np.float32)
    values[generator.random(number) < missing] = np.nan
    return {"c": classes, "t": tags, "v": values}


@settings(max_examples=60)
@given(st.integers(30, 400), st.integers(0, 10_000), st.booleans(), st.booleans())
def test_parts_are_disjoint_and_cover_all(number: int, seed: int, grouped: bool, with_domain: bool) -> None:
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, max(12, number // 5), number) if grouped else None
    if groups is not None and len(np.unique(groups)) < 14:
        return
    domain = generator.integers(0, 3, number) if with_domain else None
    parts = split_rows(TASKS, targets_of(number, seed), groups=groups, domain=domain, seed=seed)
    assert list(parts) == ["train", "val", "test"]
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(number))
    assert all(len(rows) and rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in parts.values())
    if groups is not None:
        sides = [set(groups[rows].tolist()) for rows in parts.values()]
        assert sum(map(len, sides)) == len(set.union(*sides)), "no group is on two sides"
    else:
        classes = targets_of(number, seed)["c"]
        assert set(classes.tolist()) - {-1} <= set(classes[parts["train"]].tolist()), "every class is in train"


@given(st.integers(0, 1000))
def test_equal_seeds_give_equal_splits(seed: int) -> None:
    targets = targets_of(60, 3)
    one, two = (split_rows(TASKS, targets, seed=seed) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    other = split_rows(TASKS, targets, seed=seed + 1)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_shares_and_strata() -> None:
    number = 5000
    targets = targets_of(number, 0, missing=0.0)
    domain = (np.arange(number) % 10 == 0).astype(np.int64)
    parts = split_rows(TASKS, targets, domain=domain, seed=1)
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    for name, share in shares.items():
        rows = parts[name]
        assert len(rows) == pytest.approx(share * number, abs=10)
        for label in range(6):
            count = (targets["c"] == label).sum()
            assert (targets["c"][rows] == label).sum() == pytest.approx(share * count, abs=0.06 * count + 2)
        for label in range(3):
            count = int(targets["t"][:, label].sum())
            assert int(targets["t"][rows, label].sum()) == pytest.approx(share * count, abs=0.06 * count + 3)
        assert (domain[rows] == 1).sum() == pytest.approx(share * 500, abs=40)
        assert targets["v"][rows].mean() == pytest.approx(0.0, abs=0.08)


def test_stratification_beats_chance() -> None:
    generator = np.random.default_rng(0)
    targets = {"c": (generator.random(500) < 0.04).astype(np.int64)}
    spec = TaskSpec(name="c", kind="binary", size=1)
    counts = [targets["c"][split_rows([spec], targets, seed=seed)["test"]].sum() for seed in range(20)]
    assert max(counts) - min(counts) <= 2


def test_a_single_row_of_a_class_is_in_train_and_five_are_everywhere() -> None:
    classes = np.array([0] * 60 + [1] + [2] * 5, dtype=np.int64)
    spec = TaskSpec(name="c", kind="multiclass", size=3)
    for seed in range(20):
        parts = split_rows([spec], {"c": classes}, seed=seed)
        assert 60 in parts["train"]
        assert all((classes[rows] == 2).any() for rows in parts.values())


def test_repair_by_hand() -> None:
    labels = np.array([[0], [0], [0], [1], [0], [0]])
    part = repair_rare_labels(np.array([0, 0, 1, 2, 1, 2]), labels)
    assert part[3] == 0
    assert part.tolist() == [0, 0, 1, 0, 1, 2]


def test_unlabelled_rows_go_to_train() -> None:
    classes = np.array([0, 1] * 20 + [-1] * 10, dtype=np.int64)
    spec = TaskSpec(name="c", kind="binary", size=1)
    parts = split_rows([spec], {"c": classes}, seed=0)
    assert set(range(40, 50)) <= set(parts["train"].tolist())


def test_groups_are_balanced() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 60, 3000)
    classes = (groups % 3).astype(np.int64)
    spec = TaskSpec(name="c", kind="multiclass", size=3)
    parts = split_rows([spec], {"c": classes}, groups=groups, seed=0)
    assert len(parts["train"]) == pytest.approx(1800, abs=90)
    assert len(parts["test"]) == pytest.approx(600, abs=90)
    for label in range(3):
        assert (classes[parts["test"]] == label).mean() == pytest.approx(1 / 3, abs=0.06)


def test_one_huge_group_goes_to_train() -> None:
    groups = np.array([0] * 900 + list(range(1, 101)))
    spec = TaskSpec(name="v", kind="regression", size=1)
    parts = split_rows([spec], {"v": np.arange(1000.0)[:, None].astype(np.float32)}, groups=groups, seed=0)
    assert 0 in groups[parts["train"]]
    assert len(parts["val"]) >= 20
    assert len(parts["test"]) >= 20


def test_too_few() -> None:
    spec = TaskSpec(name="c", kind="binary", size=1)
    with pytest.raises(DataError, match="There are 6 labelled rows; at least 10 are needed.*Add rows"):
        split_rows([spec], {"c": np.array([0, 1, 0, 1, 0, 1, -1, -1, -1, -1, -1])})
    with pytest.raises(DataError, match="There are 4 groups with labels; at least 10.*Group by a column with more"):
        split_rows([spec], {"c": np.arange(40) % 2}, groups=np.arange(40) % 4)


def test_label_numbers_are_unique_over_columns() -> None:
    targets = {"c": np.array([0, -1, 2]), "t": np.array([[1, 0, 0], [0, 0, 1], [np.nan] * 3], np.float32)}
    labels = label_matrix((CLASS, TAGS), targets, np.array([0, 1, 1]))
    assert labels.tolist() == [[0, 2, 5, -1, -1], [1, -1, -1, -1, 6], [1, 4, -1, -1, -1]]


def test_dense_tasks_are_stratified_by_their_commonest_class() -> None:
    spec = TaskSpec(name="m", kind="dense_multiclass", size=3)
    masks = np.full((3, 2, 2), -1)
    masks[0] = 2
    masks[1, 0] = 1
    assert label_matrix([spec], {"m": masks}, None).ravel().tolist() == [2, 1, -1]


def test_systematic_sampling_spreads_equal_rows() -> None:
    part = assign_rows(np.zeros((1000, 1), dtype=np.int64), np.array([0.6, 0.2, 0.2]), np.random.default_rng(0))
    assert np.bincount(part).tolist() == pytest.approx([600, 200, 200], abs=2)


def suite_of(groups: np.ndarray | None = None) -> Suite:
    targets = targets_of(300, 5)
    return Suite.of_arrays(
        name="s",
        input_specs={"table": InputSpec(kind="table")},
        tasks=TASKS,
        inputs={"numeric": np.zeros((300, 1), np.float32)},
        targets=targets,
        splits=split_rows(TASKS, targets, groups=groups, seed=0),
        groups=groups,
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_resplit(grouped: bool) -> None:
    groups = np.arange(300) // 4 if grouped else None
    suite = suite_of(groups)
    assert resplit(suite, 0) is suite
    seen = [suite.splits["train"].tolist()]
    for seed in (1, 2):
        other = resplit(suite, seed)
        assert np.array_equal(other.splits["test"], suite.splits["test"])
        development = np.concatenate([other.splits["train"], other.splits["val"]])
        assert sorted(development) == sorted(np.concatenate([suite.splits["train"], suite.splits["val"]]))
        assert len(other.splits["train"]) == pytest.approx(len(suite.splits["train"]), abs=25 if grouped else 12)
        assert other.tasks == suite.tasks
        if groups is not None:
            assert not set(groups[other.splits["train"]]) & set(groups[other.splits["val"]])
        assert np.array_equal(resplit(suite, seed).splits["train"], other.splits["train"])
        seen.append(other.splits["train"].tolist())
    assert seen[0] != seen[1] != seen[2]


def test_resplit_keeps_other_splits() -> None:
    suite = suite_of()
    suite = suite.with_splits({**suite.splits, "transfer": np.array([1, 2])})
    assert resplit(suite, 3).splits["transfer"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("number", "judged"), [(10_000, 2000), (20_000, 4000), (30_000, 4000), (40_000, 4000), (100_000, 10_000), (900_000, 50_000)]
)
def test_of_large_suites_more_is_learned_from(number: int, judged: int) -> None:
    task = TaskSpec(name="y", kind="regression", size=1)
    parts = split_rows([task], {"y": np.random.default_rng(0).normal(size=(number, 1)).astype(np.float32)})
    assert [len(parts[name]) for name in ("val", "test")] == pytest.approx([judged, judged], abs=20)
    assert sum(map(len, parts.values())) == number


def test_of_many_classes_fewer_rows_are_judged() -> None:
    classes = 8000
    task = TaskSpec(name="y", kind="multiclass", size=classes)
    target = np.arange(5 * classes, dtype=np.int64) % classes
    parts = split_rows([task], {"y": target})
    assert len(parts["test"]) == pytest.approx(2500, abs=20)
    assert len(np.unique(target[parts["train"]])) == classes, "every class is learned from"
