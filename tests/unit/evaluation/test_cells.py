from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import DataError
from graftwork.evaluation.cells import CellCounts, count_cells, find_cells


def test_objects_are_connected_by_sides_within_one_map() -> None:
    maps = np.zeros((3, 6, 6))
    maps[0, 1:3, 1:4] = 1.0
    maps[0, 3, 4] = 1.0  # touches by a corner only
    maps[1, 1:3, 1:4] = 0.9  # lies behind the object of the first map
    found = find_cells(maps, threshold=0.5)
    np.testing.assert_allclose(found[0], [[2.0, 2.5], [3.5, 4.5]])
    np.testing.assert_allclose(found[1], [[2.0, 2.5]])
    assert found[2].shape == (0, 2)
    assert [len(centres) for centres in find_cells(maps, threshold=0.5, least_area=2)] == [1, 1, 0]
    assert [len(centres) for centres in find_cells(maps, threshold=0.95)] == [2, 0, 0]


def test_each_cell_is_found_once() -> None:
    cells = [np.array([[5.0, 5.0], [5.0, 9.0]]), np.zeros((0, 2)), np.array([[1.0, 1.0]])]
    objects = [np.array([[5.0, 6.9], [5.0, 5.1]]), np.array([[3.0, 3.0]]), np.zeros((0, 2))]
    counts = count_cells(objects, cells, reach=2.5)
    assert counts == CellCounts(found=2, invented=1, missed=1)
    assert counts.precision == counts.recall == counts.f1 == pytest.approx(2 / 3)
    doubled = count_cells([np.array([[5.0, 5.0], [5.0, 5.2]])], [np.array([[5.0, 5.1]])], reach=2.0)
    assert doubled == CellCounts(found=1, invented=1, missed=0)


def test_a_match_out_of_reach_does_not_count() -> None:
    assert count_cells([np.array([[0.0, 0.0]])], [np.array([[3.0, 4.0]])], reach=4.9).found == 0
    assert count_cells([np.array([[0.0, 0.0]])], [np.array([[3.0, 4.0]])], reach=5.0).found == 1


@given(
    objects=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=4),
    cells=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=4),
    reach=st.sampled_from([1.5, 3.0]),
)
def test_as_many_pairs_as_any_matching_has(objects: list[tuple[int, int]], cells: list[tuple[int, int]], reach: float) -> None:
    few, many = sorted((objects, cells), key=len)
    best = max(
        sum(np.hypot(a[0] - b[0], a[1] - b[1]) <= reach for a, b in zip(few, chosen, strict=True))
        for chosen in permutations(many, len(few))
    )
    found = count_cells([np.array(objects).reshape(-1, 2)], [np.array(cells).reshape(-1, 2)], reach=reach)
    assert found == CellCounts(best, len(objects) - best, len(cells) - best)


def test_nothing_is_no_score_and_no_error() -> None:
    assert CellCounts(0, 0, 0).f1 == CellCounts(0, 0, 0).precision == CellCounts(0, 0, 0).recall == 0.0


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(DataError, match="maps"):
        find_cells(np.zeros((4, 4)), threshold=0.5)
    with pytest.raises(DataError, match="same pictures"):
        count_cells([np.zeros((0, 2))], [], reach=1.0)
    with pytest.raises(DataError, match="above 0"):
        count_cells([], [], reach=0.0)
