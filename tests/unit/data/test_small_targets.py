from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites.small_targets import SMALL_TARGETS, small_target


@pytest.mark.parametrize("target", SMALL_TARGETS)
def test_targets_have_the_splits_that_are_asked_for_and_nothing_in_two(target: str) -> None:
    suite = small_target(target, num_train=40, num_val=20, num_test=30, seed=3)
    assert [len(suite.splits[name]) for name in ("train", "val", "test")] == [40, 20, 30]
    rows = np.concatenate(list(suite.splits.values()))
    assert len(np.unique(rows)) == len(rows)
    if suite.groups is not None:
        parts = [set(suite.groups[rows].tolist()) for rows in suite.splits.values()]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
    again = small_target(target, num_train=40, num_val=20, num_test=30, seed=3)
    np.testing.assert_array_equal(again.inputs["image"], suite.inputs["image"])


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="they are letters, striped, digits"):
        small_target("words", num_train=1, num_val=1, num_test=1)
