from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites.digit_family import DRAWINGS, digit_family


def test_tasks_share_pictures_and_differ_in_drawing_and_classes() -> None:
    plain, mirrored = digit_family("plain", seed=3), digit_family("mirrored", seed=3)
    assert plain.inputs["numeric"].shape == mirrored.inputs["numeric"].shape == (4 * 1797, 144)
    np.testing.assert_array_equal(plain.splits["test"], mirrored.splits["test"])
    renamed = np.array([mirrored.targets["digit"][np.flatnonzero(plain.targets["digit"] == digit)[0]] for digit in range(10)])
    assert sorted(renamed) == list(range(10))
    np.testing.assert_array_equal(renamed[plain.targets["digit"]], mirrored.targets["digit"])


def test_no_original_is_on_two_sides_of_a_split() -> None:
    suite = digit_family("edges", seed=1)
    assert suite.groups is not None
    sides = [set(suite.groups[rows].tolist()) for rows in suite.splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert sum(len(rows) for rows in suite.splits.values()) == len(suite)


@pytest.mark.parametrize("task", DRAWINGS)
def test_drawings_repeat_and_depend_on_the_seed(task: str) -> None:
    first = digit_family(task, copies=1, seed=5)
    assert first.fingerprint() == digit_family(task, copies=1, seed=5).fingerprint()
    assert first.fingerprint() != digit_family(task, copies=1, seed=6).fingerprint()
    assert np.isfinite(first.inputs["numeric"]).all()


def test_unknown_task_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="no digit task 'blue'.*plain, mirrored"):
        digit_family("blue")
