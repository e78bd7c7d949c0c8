from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.streams import ClassStream, class_groups
from graftwork.data.suite import Suite

LABELS = np.array(
    [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 1], [1, np.nan, 0, 0], [0, 1, 0, 0]], dtype=np.float32
)


def make_suite(kind: str = "multilabel", labels: Any = LABELS, tasks: int = 1) -> Suite:
    size = labels.shape[1] if kind == "multilabel" else 4
    names = ["objects", "other"][:tasks]
    return Suite.of_arrays(
        name="small",
        input_specs=table_input(1),
        tasks=[TaskSpec(name=name, kind=kind, size=size) for name in names],  # type: ignore[arg-type]
        inputs={
            "numeric": np.arange(len(labels), dtype=np.float32)[:, None],
            "categorical": np.zeros((len(labels), 0), np.int64),
        },
        targets=dict.fromkeys(names, labels),
        splits={"train": np.array([0, 1, 2, 3, 5]), "val": np.array([4]), "test": np.array([6])},
    )


def test_an_experience_shows_the_rows_and_labels_of_its_group_alone() -> None:
    stream = ClassStream(make_suite(), [(1, 0), (2, 3)])
    first, second = stream
    assert first.classes == {"objects": (0, 1)}
    assert first.suite.splits["train"].tolist() == [0, 1, 5]
    assert second.suite.splits["train"].tolist() == [1, 2, 3]  # row 1 shows classes of both groups
    assert second.suite.splits["val"].tolist() == [4]
    target = second.suite.targets["objects"]
    assert bool(np.isnan(target[:, :2]).all())
    np.testing.assert_array_equal(target[:, 2:], LABELS[:, 2:])
    np.testing.assert_array_equal(first.suite.targets["objects"][:, :2], LABELS[:, :2])
    assert first.suite.tasks[0].size == 4


def test_test_rows_are_in_no_experience_and_the_suite_is_left_as_it_was() -> None:
    suite = make_suite()
    for experience in ClassStream(suite, [(0, 1), (2, 3)]):
        assert set(experience.suite.splits) == {"train", "val"}
    np.testing.assert_array_equal(suite.targets["objects"], LABELS)


def test_single_labels_are_hidden_as_missing_classes() -> None:
    labels = np.array([0, 1, 2, 3, 1, -1, 0])
    experience = ClassStream(make_suite("multiclass", labels), [(0, 3), (1,)]).experience(1)
    assert experience.suite.splits["train"].tolist() == [1]
    assert experience.suite.targets["objects"].tolist() == [-1, 1, -1, -1, 1, -1, -1]


def test_what_is_asked_grows_by_the_groups() -> None:
    stream = ClassStream(make_suite(), [(3,), (1, 0)])
    assert [stream.asked(number) for number in range(len(stream))] == [{"objects": (3,)}, {"objects": (0, 1, 3)}]
    for call in (stream.asked, stream.experience):
        with pytest.raises(IndexError, match="There is no experience 2; there are 2"):
            call(2)


def test_everything_at_once_is_the_whole_training_split() -> None:
    (experience,) = ClassStream(make_suite(), [range(4)])
    assert experience.suite.splits["train"].tolist() == [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(experience.suite.targets["objects"], LABELS)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "there is no group"),
        ([(0,), ()], "group 1 is empty"),
        ([(0, 1), (1, 2)], "class 1 is there twice"),
        ([(0, 4)], "there is no class 4"),
        ([(-1,)], "there is no class -1"),
    ],
)
def test_groups_that_cannot_be_used_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClassStream(make_suite(), groups)
    assert any(message in problem for problem in caught.value.problems)


def test_a_group_without_rows_and_tasks_of_other_kinds_are_refused() -> None:
    labels = LABELS.copy()
    labels[:, 3] = 0
    with pytest.raises(DataError, match="Experience 1: none of the 5 training rows shows"):
        ClassStream(make_suite(labels=labels), [(0,), (3,)])
    with pytest.raises(ConfigError, match="Say which task's classes"):
        ClassStream(make_suite(tasks=2), [(0,)])
    assert ClassStream(make_suite(tasks=2), [(0,)], task="other").tasks[0].name == "other"
    with pytest.raises(ConfigError, match="needs a multiclass or multilabel task"):
        ClassStream(make_suite("regression", LABELS[:, :4]), [(0,)])


@given(st.integers(1, 30), st.integers(1, 30), st.none() | st.integers(0, 5))
def test_groups_are_a_partition_of_even_sizes(num_classes: int, num_groups: int, seed: int | None) -> None:
    if num_groups > num_classes:
        with pytest.raises(ConfigError, match="num_groups"):
            class_groups(num_classes, num_groups, seed=seed)
        return
    groups = class_groups(num_classes, num_groups, seed=seed)
    assert sorted(index for group in groups for index in group) == list(range(num_classes))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert all(list(group) == sorted(group) for group in groups)
    assert groups == class_groups(num_classes, num_groups, seed=seed)
