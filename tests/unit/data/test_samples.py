"""Samples keep test rows and rare labels; small suites hold a few rows of everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.samples import LEAST_LABELS, only_split_rows, sampled_suite, take_rows
from graftwork.data.suite import Suite


def suite_of(rows: int, *, rare: int = 0, seed: int = 0) -> Suite:
    draw = np.random.default_rng(seed)
    order = draw.permutation(rows)
    cuts = np.split(order, [int(0.6 * rows), int(0.8 * rows)])
    label = np.full(rows, -1)
    label[draw.permutation(cuts[0])[:rare]] = 1
    return Suite.of_arrays(
        name="made",
        input_specs=table_input(2, []),
        tasks=[
            TaskSpec(name="size", kind="regression", size=1),
            TaskSpec(name="rare", kind="binary", size=1, classes=("no", "yes")),
        ],
        inputs={"numeric": draw.normal(size=(rows, 2)).astype(np.float32)},
        targets={"size": draw.normal(size=(rows, 1)).astype(np.float32), "rare": label},
        splits={name: np.sort(part) for name, part in zip(("train", "val", "test"), cuts, strict=True)},
        groups=np.arange(rows) // 2,
        raw={"text": [f"row {row}" for row in range(rows)], "frame": {"a": np.arange(rows)}, "drawn_splits": True},
    )


def test_rows_in_no_split_are_left_out_and_the_others_stay_as_they_were() -> None:
    suite = suite_of(50)
    few = suite.with_splits({**suite.splits, "train": suite.splits["train"][::-3], "val": suite.splits["val"][:2]})
    kept = only_split_rows(few)
    assert len(kept) == sum(map(len, few.splits.values())) < len(suite)
    for name, rows in few.splits.items():
        now = kept.splits[name]
        np.testing.assert_array_equal(kept.inputs["numeric"][now], suite.inputs["numeric"][rows])
        np.testing.assert_array_equal(kept.targets["size"][now], suite.targets["size"][rows])
        np.testing.assert_array_equal(kept.groups[now], suite.groups[rows])  # type: ignore[index]
        assert [kept.raw["text"][row] for row in now] == [f"row {row}" for row in rows]
        np.testing.assert_array_equal(kept.raw["frame"]["a"][now], rows)
    assert only_split_rows(suite) is suite


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(20, 400), limit=st.integers(1, 500), rare=st.integers(0, 12), seed=st.integers(0, 9))
def test_a_sample_is_a_part_of_the_rows_and_the_same_every_time(rows: int, limit: int, rare: int, seed: int) -> None:
    suite = suite_of(rows, rare=rare)
    found = sampled_suite(suite, limit, seed)
    for name in ("train", "val"):
        assert set(found.splits[name]) <= set(suite.splits[name])
    assert np.array_equal(found.splits["test"], suite.splits["test"])
    assert len(found.splits["train"]) <= limit + LEAST_LABELS * len(suite.tasks)
    assert np.array_equal(found.splits["train"], sampled_suite(suite, limit, seed).splits["train"])
    if limit >= rows:
        assert found.fingerprint() == suite.fingerprint()
    kept = (np.asarray(suite.targets["rare"])[found.splits["train"]] >= 0).sum()
    assert kept == min(rare, int(0.6 * rows)), "labels of a task with few of them are all kept"


@pytest.mark.parametrize("number", [4, 16, 64])
def test_a_few_rows_hold_everything_of_these_rows(number: int) -> None:
    suite = suite_of(200)
    few = take_rows(suite, number)
    assert len(few) == number
    assert len(few.splits["train"]) + len(few.splits["val"]) == number
    assert not len(few.splits["test"])
    assert few.groups is not None
    source = [int(text.removeprefix("row ")) for text in few.raw["text"]]
    assert np.array_equal(few.raw["frame"]["a"], source)
    assert np.array_equal(few.inputs["numeric"], suite.inputs["numeric"][source])
    assert np.array_equal(few.targets["size"], suite.targets["size"][source])
    assert few.raw["drawn_splits"] is True
