"""Folds within training rows: every row held out once, groups whole, one fold where rows are many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from classical_suites import number_suite

from graftwork.domains.tabular.inner_folds import inner_folds


def folds_of(rows: int, groups: np.ndarray | None = None, **settings: object) -> list[tuple[np.ndarray, np.ndarray]]:
    x = np.zeros((rows, 1))
    suite = replace(number_suite(x, x), groups=groups)
    return list(inner_folds(suite, np.arange(rows), np.random.default_rng(0), **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "folds", "number"), [(50, 5, 5), (3, 5, 3), (50, 2, 2)])
def test_every_row_is_held_out_once(rows: int, folds: int, number: int) -> None:
    found = folds_of(rows, folds=folds)
    assert len(found) == number
    assert sorted(np.concatenate([held for _, held in found])) == list(range(rows))
    for fit, held in found:
        assert sorted([*fit, *held]) == list(range(rows))


def test_groups_stay_whole() -> None:
    groups = np.random.default_rng(1).integers(0, 7, 60)
    for fit, held in folds_of(60, groups):
        assert not set(groups[fit]) & set(groups[held])


@pytest.mark.parametrize(("rows", "groups"), [(1, None), (30, np.zeros(30, np.int64))])
def test_one_row_or_group_has_no_folds(rows: int, groups: np.ndarray | None) -> None:
    assert folds_of(rows, groups) == []


def test_of_many_rows_only_the_first_fold_unless_all_are_wanted() -> None:
    assert len(folds_of(2500)) == 1
    assert len(folds_of(2500, every=True)) == 5
    np.testing.assert_array_equal(folds_of(2500)[0][1], folds_of(2500, every=True)[0][1])
