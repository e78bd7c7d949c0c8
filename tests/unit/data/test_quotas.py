"""Steps made of quotas: which rows, how many, in an order that depends on seed and step alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.batch import LABELLED, SEVERAL_TASKS, UNLABELLED
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.loader import BatchStream
from graftwork.data.quotas import Quota, parse_quotas
from graftwork.data.suite import Suite

LABELLED_64 = {"role": "labelled", "rows": 64}


def suite_of(source: int = 30, target: int = 20, target_labels: int = 0) -> Suite:
    """Two domains; all rows of the first and some of the second have labels."""
    number = np.arange(source + target)
    known = (number < source) | (number >= source + target - target_labels)
    return Suite(
        name="two-domains",
        input_specs={"table": InputSpec(kind="table")},
        tasks=(TaskSpec(name="class", kind="multiclass", size=3), TaskSpec(name="sign", kind="binary", size=1)),
        inputs={"numeric": number[:, None].astype(np.float32)},
        targets={"class": np.where(known, number % 3, -1), "sign": np.where(known & (number % 2 == 0), number % 2, -1)},
        splits={"train": number},
        domain=(number >= source).astype(np.int64),
        domains=("day", "night"),
    )


def stream_of(suite: Suite, *quotas: dict[str, Any], seed: int = 0, **options: Any) -> BatchStream:
    return BatchStream(suite, np.arange(len(suite)), 8, seed, quotas=quotas, **options)


def test_a_step_holds_what_each_quota_asks_for() -> None:
    stream = stream_of(
        suite_of(target_labels=5), {"rows": 6, "domain": "day"}, {"rows": 4, "role": "unlabelled", "domain": "night"}
    )
    assert (stream.batch_size, stream.steps_per_epoch) == (10, 5)
    assert stream.rows.tolist() == list(range(30))
    assert stream.unlabelled.tolist() == list(range(30, 45))
    for step in range(40):
        batch = stream.batch(step)
        assert batch.role.tolist() == [LABELLED] * 6 + [UNLABELLED] * 4
        assert batch.domain.tolist() == [0] * 6 + [1] * 4
        assert not any(bool(mask[6:].any()) for mask in batch.mask.values())


def test_batches_say_the_task_of_each_row() -> None:
    batch = stream_of(suite_of(), {"rows": 30}, {"rows": 20, "role": "unlabelled"}).batch(3)
    for row, task, role in zip(batch.rows.tolist(), batch.task_ids.tolist(), batch.role.tolist(), strict=True):
        assert role == (LABELLED if row < 30 else UNLABELLED)
        assert task == (0 if row < 30 and row % 2 else SEVERAL_TASKS)


@settings(max_examples=30)
@given(
    source=st.integers(1, 40),
    target=st.integers(1, 30),
    labelled=st.integers(1, 20),
    unlabelled=st.integers(1, 20),
    step=st.integers(0, 100),
    seed=st.integers(0, 2**62),
)
def test_a_step_depends_on_seed_and_step_alone(
    source: int, target: int, labelled: int, unlabelled: int, step: int, seed: int
) -> None:
    suite, quotas = suite_of(source, target), ({"rows": labelled}, {"rows": unlabelled, "role": "unlabelled"})
    once = stream_of(suite, *quotas, seed=seed)
    for earlier in range(0, step, 7):
        once.rows_of(earlier)
    rows = once.rows_of(step)
    assert rows.tolist() == stream_of(suite, *quotas, seed=seed).rows_of(step).tolist()
    assert len(rows) == once.batch_size == min(labelled, source) + min(unlabelled, target)


@given(labelled=st.integers(1, 9), unlabelled=st.integers(1, 9))
def test_each_quota_deals_every_row_before_any_again(labelled: int, unlabelled: int) -> None:
    suite = suite_of(12, 7)
    stream = stream_of(suite, {"rows": labelled}, {"rows": unlabelled, "role": "unlabelled"})
    counts = Counter(int(row) for step in range(60) for row in stream.rows_of(step))
    for pool in (range(12), range(12, 19)):
        assert max(counts[row] for row in pool) - min(counts[row] for row in pool) <= 1


def test_data_sets_of_one_length_are_not_shuffled_alike() -> None:
    stream = stream_of(suite_of(20, 20, 20), {"rows": 20, "domain": "day"}, {"rows": 20, "domain": "night"})
    first, second = stream.rows_of(0)[:20], stream.rows_of(0)[20:] - 20
    assert first.tolist() != second.tolist()


def test_without_quotas_nothing_is_changed() -> None:
    """The order of rows as it always was, to the number: 8 of 30 labelled rows a step, unlabelled rows left out."""
    stream = stream_of(suite_of())
    assert stream.rows.tolist() == list(range(30))
    assert len(stream.unlabelled) == 0
    assert stream.rows_of(0).tolist() == [2, 11, 26, 21, 10, 4, 28, 16]
    assert stream.rows_of(5).tolist() == [10, 26, 22, 6, 0, 3, 24, 14]


def test_losses_are_masked_where_unlabelled_rows_come_along() -> None:
    suite = suite_of()
    suite = suite.with_targets({"sign": np.where(np.arange(50) < 30, np.arange(50) % 2, -1)})
    assert stream_of(suite).fully_labelled == {"class", "sign"}
    with_quotas = stream_of(suite, {"rows": 8}, {"rows": 8, "role": "unlabelled"})
    assert with_quotas.fully_labelled == frozenset()
    assert with_quotas.complete, "whether labelled rows have all labels"
    assert stream_of(suite, {"rows": 8}).fully_labelled == {"class", "sign"}


@pytest.mark.parametrize(
    ("quotas", "message"),
    [
        (
            [{"rows": 4, "domain": "nihgt"}],
            r"asks for 4 labelled rows of 'nihgt', but the domains are day, night. Did you mean 'night'\?",
        ),
        (
            [{"rows": 4}, {"rows": 4, "role": "unlabelled", "domain": "day"}],
            "asks for 4 unlabelled rows of 'day' a step, but none of the 50 training rows of suite 'two-domains' is one",
        ),
    ],
)
def test_quotas_that_the_data_cannot_fill_are_refused(quotas: list[dict[str, Any]], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        stream_of(suite_of(), *quotas)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("labelled", r"quotas must be a list such as \[\{'role': 'unlabelled', 'rows': 64\}\]; got 'labelled'"),
        ([3], r"quotas\[0\] must be a mapping with 'rows', 'role' and 'domain'; got 3"),
        ([LABELLED_64, {"rows": 0, "role": "unlabelled"}], r"quotas\[1\]: rows must be an integer of at least 1; got 0"),
        ([{"row": 4}], r"quotas\[0\] has no 'row'. Did you mean 'rows'\? Known keys: rows, role, domain"),
        ([{"rows": 4, "role": "unlabeled"}], "role must be one of labelled, unlabelled; got 'unlabeled'"),
        ([{"rows": 4, "domain": 1}], "domain must be the name of a data set; got 1"),
        ([{"rows": 4, "role": "unlabelled"}], "quotas need labelled rows: without any, no task is learned"),
        ([LABELLED_64, {"rows": 4, "domain": "day"}], "ask for labelled rows of all domains and of single ones"),
        ([LABELLED_64, LABELLED_64], "ask for labelled rows of all domains and of single ones"),
        ([{"rows": 4, "domain": "day"}] * 2, "quotas ask twice for labelled rows of 'day'"),
    ],
)
def test_wrong_quotas_are_named(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_quotas(value)


def test_all_problems_of_quotas_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_quotas([{"rows": -1}, {"rows": 2, "role": "x", "domain": 3}])
    assert len(caught.value.problems) == 3


def test_quotas_read_back() -> None:
    assert parse_quotas(()) == ()
    assert parse_quotas([LABELLED_64, Quota(3, "unlabelled")]) == (Quota(64), Quota(3, "unlabelled"))
