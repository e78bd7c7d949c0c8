from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.loader import BatchStream, iter_rows
from graftwork.data.mixing import mixing_probabilities
from graftwork.data.suite import Suite

TASKS = (
    TaskSpec(name="class", kind="multiclass", size=3),
    TaskSpec(name="price", kind="regression", size=1, center=(0.0,), scale=(1.0,)),
    TaskSpec(name="colour", kind="regression", size=2, center=(0.0, 0.0), scale=(1.0, 1.0)),
)


def suite_of(rows: int, **fields: Any) -> Suite:
    number = np.arange(rows)
    targets = {
        "class": number % 3,
        "price": number[:, None].astype(np.float32),
        "colour": np.stack([number, -number], axis=1).astype(np.float32),
    }
    return Suite(
        name="made",
        input_specs={"table": InputSpec(kind="table")},
        tasks=TASKS,
        inputs={"numeric": np.stack([number, number * 2], axis=1).astype(np.float32)},
        targets={**targets, **fields.pop("targets", {})},
        splits={"train": number, "val": number[:0], "test": number[:0]},
        **fields,
    )


def test_a_batch_holds_its_rows_everywhere() -> None:
    suite = suite_of(50)
    batch = BatchStream(suite, np.arange(10, 40), 8, seed=3).batch(2)
    rows = batch.rows.numpy()
    assert len(batch) == 8
    assert set(rows) <= set(range(10, 40))
    np.testing.assert_array_equal(batch.inputs["numeric"], suite.inputs["numeric"][rows])
    for name, target in suite.targets.items():
        np.testing.assert_array_equal(batch.targets[name], target[rows])
        assert batch.targets[name].dtype == torch.from_numpy(target).dtype
        assert bool(batch.mask[name].all())
    assert list(batch.targets) == list(suite.task_names)
    assert batch.domain.tolist() == [0] * 8


def test_masks_say_which_rows_have_a_label() -> None:
    colour = np.full((4, 2), np.nan, dtype=np.float32)
    colour[1, 0] = 1.0
    suite = suite_of(4, targets={"class": np.array([-1, 0, -1, 2]), "colour": colour})
    stream = BatchStream(suite, np.arange(4), 4, seed=0)
    batch = stream.batch(0)
    order = batch.rows.argsort()
    assert batch.mask["class"][order].tolist() == [False, True, False, True]
    assert batch.mask["colour"][order].tolist() == [False, True, False, False]
    assert not stream.complete
    assert stream.fully_labelled == {"price"}
    assert BatchStream(suite_of(4), np.arange(4), 4, seed=0).complete
    assert BatchStream(suite, np.array([3, 1]), 4, seed=0).fully_labelled == {"class", "price"}


@given(rows=st.integers(1, 60), batch=st.integers(1, 70), step=st.integers(0, 200), seed=st.integers(0, 2**62))
def test_a_batch_depends_on_seed_and_step_alone(rows: int, batch: int, step: int, seed: int) -> None:
    suite = suite_of(rows)
    once = BatchStream(suite, np.arange(rows), batch, seed)
    for earlier in range(0, step, 7):
        once.batch(earlier)
    again = BatchStream(suite, np.arange(rows), batch, seed)
    assert once.batch(step).rows.tolist() == again.batch(step).rows.tolist()
    assert len(again.batch(step)) == min(batch, rows)


@given(rows=st.integers(1, 60), batch=st.integers(1, 70), epochs=st.integers(1, 5))
def test_every_row_is_dealt_before_any_is_dealt_again(rows: int, batch: int, epochs: int) -> None:
    stream = BatchStream(suite_of(rows), np.arange(rows), batch, seed=1)
    dealt = np.concatenate([stream.rows_of(step) for step in range(epochs * stream.steps_per_epoch)])
    for start in range(0, len(dealt) - rows + 1, rows):
        assert sorted(dealt[start : start + rows]) == list(range(rows))


def test_epochs_and_seeds_differ_in_order() -> None:
    stream = BatchStream(suite_of(64), np.arange(64), 64, seed=0)
    orders = [
        stream.rows_of(0).tolist(),
        stream.rows_of(1).tolist(),
        BatchStream(suite_of(64), np.arange(64), 64, 1).rows_of(0).tolist(),
    ]
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize(
    ("mixing", "shares"),
    [
        ("proportional", [0.8, 0.2]),
        ("uniform", [0.5, 0.5]),
        ("balanced", [0.5, 0.5]),
        ("round-robin", [0.5, 0.5]),
        (2.0, [2 / 3, 1 / 3]),
        (1.0, [0.8, 0.2]),
        (1e9, [0.5, 0.5]),
    ],
)
def test_data_sets_are_met_as_often_as_the_policy_says(mixing: Any, shares: list[float]) -> None:
    suite = suite_of(200, domain=np.repeat([0, 1], [160, 40]), domains=("big", "small"))
    np.testing.assert_allclose(mixing_probabilities([160, 40], mixing), shares, atol=1e-6)
    stream = BatchStream(suite, np.arange(200), 20, seed=5, mixing=mixing)
    counts = Counter(int(row) for step in range(30 * stream.steps_per_epoch) for row in stream.rows_of(step))
    total = sum(counts.values())
    assert sum(counts[row] for row in range(160)) / total == pytest.approx(shares[0], abs=0.01)
    for rows in (range(160), range(160, 200)):  # evenly within a data set, to one deal
        assert max(counts[row] for row in rows) - min(counts[row] for row in rows) <= 1


def test_small_data_sets_are_mixed_within_batches() -> None:
    suite = suite_of(100, domain=np.repeat([0, 1], 50), domains=("a", "b"))
    stream = BatchStream(suite, np.arange(100), 20, seed=0, mixing="uniform")
    shares = [stream.batch(step).domain.float().mean().item() for step in range(20)]
    assert min(shares) > 0.0
    assert max(shares) < 1.0


def test_balanced_batches_hold_as_much_of_every_data_set() -> None:
    suite = suite_of(230, domain=np.repeat([0, 1, 2], [150, 50, 30]), domains=("a", "b", "c"))
    stream = BatchStream(suite, np.arange(230), 24, seed=0, mixing="balanced")
    for step in range(40):
        counts = np.bincount(stream.batch(step).domain.numpy(), minlength=3)
        assert counts.sum() == len(stream.rows_of(step))
        assert max(counts) - min(counts) <= 1 + (len(stream.rows_of(step)) != 24)


def test_round_robin_takes_each_batch_from_one_data_set() -> None:
    suite = suite_of(115, domain=np.repeat([0, 1, 2], [80, 30, 5]), domains=("a", "b", "c"))
    stream = BatchStream(suite, np.arange(115), 8, seed=0, mixing="round-robin")
    met = [sorted(set(stream.batch(step).domain.tolist())) for step in range(12)]
    assert met == [[0], [1], [2]] * 4
    assert [len(stream.rows_of(step)) for step in range(3)] == [8, 8, 5], (
        "a data set smaller than a batch gives all its rows, none twice"
    )
    assert stream.rows_of(2).tolist() != stream.rows_of(5).tolist()
    assert np.array_equal(stream.rows_of(7), BatchStream(suite, np.arange(115), 8, seed=0, mixing="round-robin").rows_of(7)), (
        "a function of the step alone"
    )


def test_rows_without_any_label_are_left_out() -> None:
    bare = {
        "class": np.array([-1, -1, 0, -1]),
        "price": np.array([[np.nan], [np.nan], [np.nan], [1.0]], dtype=np.float32),
        "colour": np.full((4, 2), np.nan, dtype=np.float32),
    }
    stream = BatchStream(suite_of(4, targets=bare), np.arange(4), 4, seed=0)
    assert stream.rows.tolist() == [2, 3]
    assert stream.batch_size == 2
    with pytest.raises(DataError, match=r"none of the 2 training rows has a label of any task \(class, price, colour\)"):
        BatchStream(suite_of(4, targets=bare), np.arange(2), 4, seed=0)


@pytest.mark.parametrize("mixing", ["often", 0.5, True, float("nan")])
def test_unknown_policies_are_refused(mixing: Any) -> None:
    with pytest.raises(ConfigError, match="(mixing must be one of|mixing temperature must be a number of at least 1)"):
        BatchStream(suite_of(4), np.arange(4), 2, seed=0, mixing=mixing)


def test_a_batch_needs_a_row() -> None:
    with pytest.raises(ConfigError, match="`batch_size` must be at least 1; got 0"):
        BatchStream(suite_of(4), np.arange(4), 0, seed=0)


def test_evaluation_keeps_order_and_every_row() -> None:
    suite = suite_of(11)
    rows = np.array([7, 3, 10, 0, 1])
    batches = list(iter_rows(suite, rows, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.cat([batch.rows for batch in batches]).tolist() == rows.tolist()


def test_mapped_files_are_read_without_warnings_and_never_written(tmp_path: Path) -> None:
    suite = suite_of(20)
    np.save(tmp_path / "numeric.npy", suite.inputs["numeric"])
    mapped = suite.with_inputs({"numeric": np.load(tmp_path / "numeric.npy", mmap_mode="r")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = BatchStream(mapped, np.arange(20), 8, seed=0).batch(0)
    batch.inputs["numeric"].zero_()
    np.testing.assert_array_equal(np.load(tmp_path / "numeric.npy"), suite.inputs["numeric"])


def test_domains_that_are_mapped_from_a_file_are_read_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "domain.npy", np.repeat([0, 1], 25))
    mapped = np.load(tmp_path / "domain.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = BatchStream(suite_of(50, domain=mapped, domains=("a", "b")), np.arange(50), 50, seed=0).batch(0)
    assert sorted(batch.domain.tolist()) == [0] * 25 + [1] * 25
