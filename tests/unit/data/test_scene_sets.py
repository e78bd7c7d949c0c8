"""Three sets without a common label."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suite import labelled_rows
from graftwork.data.suites.scene_sets import SET_STYLES, centre_map, scene_sets


def test_centres_by_hand() -> None:
    instance = np.zeros((2, 6, 7), dtype=np.int64)
    instance[0, 1:4, 2:5] = 2  # centre at row 2, column 3
    instance[0, 5, 6] = 3  # in the corner: four pixels are in the picture
    found = centre_map(instance)
    wanted = np.zeros((6, 7), dtype=np.int64)
    wanted[1:4, 2:5] = 1
    wanted[4:6, 5:7] = 1
    assert np.array_equal(found[0], wanted)
    assert not found[1].any(), "floor has no centre"


@pytest.mark.parametrize("alike", [False, True])
def test_rows_have_labels_of_their_own_set_only(alike: bool) -> None:
    suite = scene_sets(num_train=6, num_test=4, alike=alike, seed=3)
    assert suite.task_names == tuple(SET_STYLES) == suite.domains
    assert suite.domain is not None
    for index, name in enumerate(suite.task_names):
        known = labelled_rows(suite.targets[name])
        assert not known[suite.domain != index].any()
        assert known[suite.domain == index].mean() > 0.8
        assert [int((suite.domain[suite.splits[split]] == index).sum()) for split in ("train", "test")] == [6, 4]
    assert sorted(np.concatenate(list(suite.splits.values()))) == list(range(30))


def test_sets_differ_in_looks_unless_alike_and_in_scenes_always() -> None:
    plain, alike = scene_sets(num_train=4, num_test=2, seed=1), scene_sets(num_train=4, num_test=2, seed=1, alike=True)
    same = [np.array_equal(plain.inputs["image"][rows], alike.inputs["image"][rows]) for rows in (slice(0, 6), slice(6, 12))]
    assert same == [True, False]
    assert not np.array_equal(alike.inputs["image"][0:6], alike.inputs["image"][6:12])
    assert plain.fingerprint() == scene_sets(num_train=4, num_test=2, seed=1).fingerprint()
    for name in plain.task_names:
        assert np.array_equal(plain.targets[name], alike.targets[name])


def test_sizes_must_be_there() -> None:
    with pytest.raises(ConfigError, match="at least 1; got 0 and 5"):
        scene_sets(num_train=0, num_test=5)
