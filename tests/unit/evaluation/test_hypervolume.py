from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.evaluation.hypervolume import hypervolume


def cells_below(points: list[tuple[int, ...]]) -> int:
    """Slow and obvious: count unit cells that some point covers."""
    size = len(points[0])
    return sum(
        any(all(cell[d] < point[d] for d in range(size)) for point in points) for cell in itertools.product(range(6), repeat=size)
    )


@given(st.integers(1, 4).flatmap(lambda size: st.lists(st.tuples(*[st.integers(0, 5)] * size), min_size=1, max_size=7)))
def test_it_agrees_with_counting_cells(points: list[tuple[int, ...]]) -> None:
    assert hypervolume(points, np.zeros(len(points[0]))) == pytest.approx(cells_below(points))


def test_it_is_relative_to_the_reference() -> None:
    assert hypervolume([[3.0, 4.0]], [1.0, 1.0]) == 6.0
    assert hypervolume([[3.0, 0.5]], [1.0, 1.0]) == 0.0
    assert hypervolume(np.zeros((0, 2)), [0.0, 0.0]) == 0.0


def test_dominated_points_add_nothing() -> None:
    front = [[3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [2.0, 2.0, 2.5]]
    assert hypervolume([*front, [1.0, 1.0, 1.0], [3.0, 1.0, 2.0]], [0, 0, 0]) == pytest.approx(hypervolume(front, [0, 0, 0]))


def test_wrong_shapes_and_numbers() -> None:
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        hypervolume([1.0, 2.0], [0.0])
    with pytest.raises(ValueError, match="finite"):
        hypervolume([[1.0, np.nan]], [0.0, 0.0])
