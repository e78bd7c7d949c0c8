"""Folds test every row once; divisions for the final model leave no row out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.folds import DRAWN, can_fold, fold_of_rows, fold_suite, fold_test_rows, whole_suite
from graftwork.data.splits import split_rows
from graftwork.data.suite import Suite


def suite_of(rows: int, *, group_size: int = 0, unlabelled: int = 0, drawn: bool = True, seed: int = 0) -> Suite:
    draw = np.random.default_rng(seed)
    label = draw.integers(0, 3, size=rows)
    label[:unlabelled] = -1
    tasks = (TaskSpec(name="kind", kind="multiclass", size=3, classes=("a", "b", "c")),)
    groups = np.arange(rows) // group_size if group_size else None
    splits = split_rows(tasks, {"kind": label}, groups=groups, seed=seed)
    return Suite.of_arrays(
        name="made",
        input_specs=table_input(2, []),
        tasks=list(tasks),
        inputs={"numeric": draw.normal(size=(rows, 2)).astype(np.float32)},
        targets={"kind": label},
        splits=splits,
        groups=groups,
        raw={DRAWN: drawn},
    )


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(30, 120), folds=st.integers(3, 6), unlabelled=st.integers(0, 5), seed=st.integers(0, 9))
def test_every_labelled_row_is_tested_once_by_a_model_that_never_saw_it(
    rows: int, folds: int, unlabelled: int, seed: int
) -> None:
    suite = suite_of(rows, unlabelled=unlabelled, seed=seed)
    labelled = np.flatnonzero(suite.targets["kind"] >= 0)
    for repetition in range(2):
        numbers = tuple(range(repetition * folds, (repetition + 1) * folds))
        assert np.array_equal(fold_test_rows(suite, folds, numbers), labelled)
        for number in numbers:
            splits = fold_suite(suite, folds, number).splits
            together = np.concatenate([splits["train"], splits["val"], splits["test"]])
            assert sorted(together.tolist()) == list(range(rows)), "no row is lost, none is on two sides"
            assert set(np.flatnonzero(suite.targets["kind"] < 0)) <= set(splits["train"]), "rows without a label are learned from"
    assert not np.array_equal(fold_of_rows(suite, folds, 0), fold_of_rows(suite, folds, 1)), "repetitions deal the rows anew"


def test_groups_stay_whole() -> None:
    suite = suite_of(120, group_size=4)
    assert suite.groups is not None
    for number in range(5):
        splits = fold_suite(suite, 5, number).splits
        sides = [set(suite.groups[splits[name]]) for name in ("train", "val", "test")]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
    for part in range(3):
        splits = whole_suite(suite, 3, part).splits
        assert not set(suite.groups[splits["train"]]) & set(suite.groups[splits["val"]])


def test_given_splits_are_kept_and_few_rows_are_not_divided() -> None:
    assert can_fold(suite_of(60), 5)
    assert not can_fold(suite_of(60, drawn=False), 5)
    assert not can_fold(suite_of(60, group_size=5), 7), "twelve groups are too few for seven folds"


@pytest.mark.parametrize("parts", [1, 4])
def test_models_that_are_handed_over_see_all_rows_between_them(parts: int) -> None:
    suite = suite_of(80)
    divided = [whole_suite(suite, parts, part).splits for part in range(parts)]
    for splits in divided:
        assert len(splits["test"]) == 0
        assert sorted([*splits["train"], *splits["val"]]) == list(range(80))
    if parts > 1:
        assert set(np.concatenate([splits["train"] for splits in divided])) == set(range(80))
        assert sorted(np.concatenate([splits["val"] for splits in divided])) == list(range(80)), "each stops on other rows"
    else:
        assert 0.05 <= len(divided[0]["val"]) / 80 <= 0.15


@pytest.mark.parametrize("group_size", [0, 3])
def test_rows_without_labels_are_learned_from_in_every_division(group_size: int) -> None:
    # Groups 0 to 9 have no label at all; of group 10, the last row has one and stays with the others.
    suite = suite_of(120, group_size=group_size, unlabelled=32 if group_size else 30)
    free = set(range(30))
    divided = [fold_suite(suite, 5, number).splits for number in range(5)]
    divided += [whole_suite(suite, parts, part).splits for parts in (1, 5) for part in range(parts)]
    for splits in divided:
        assert free <= set(splits["train"].tolist())
        assert sorted(np.concatenate([splits[name] for name in ("train", "val", "test")])) == list(range(120))
        if suite.groups is not None:
            sides = [set(suite.groups[splits[name]].tolist()) for name in ("train", "val", "test")]
            assert not sides[0] & sides[1]
            assert not sides[0] & sides[2]


@pytest.mark.parametrize("parts", [1, 4])
def test_what_stops_on_nothing_learns_from_the_rows_that_are_left_out_too(parts: int) -> None:
    suite = suite_of(80)
    found, usual = whole_suite(suite, parts, 0, keep_all=True).splits, whole_suite(suite, parts, 0).splits
    assert found["train"].tolist() == list(range(80))
    assert found["val"].tolist() == usual["val"].tolist()
    assert len(found["test"]) == 0
