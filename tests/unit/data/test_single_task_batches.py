from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.single_task_batches import SingleTaskBatches


def test_every_batch_is_of_one_data_set_and_every_row_is_met_once_an_epoch() -> None:
    batches = SingleTaskBatches({"a": 12, "b": 6}, {"a": 4, "b": 2}, seed=3)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for step in range(12):
        name, rows = batches.batch(step)
        assert len(rows) == batches.batch_sizes[name]
        seen[name] += rows.tolist()
    # Three whole batches of each an epoch: after twelve steps both have gone through their rows twice.
    assert {name: sorted(Counter(rows).values()) for name, rows in seen.items()} == {"a": [2] * 12, "b": [2] * 6}
    assert sorted(seen["a"][:12]) == list(range(12))
    assert seen["a"][:12] != seen["a"][12:]


@pytest.mark.parametrize("shares", [{"a": 3.0, "b": 1.0}, {"a": 0.7, "b": 0.3}])
def test_shares_are_kept(shares: dict[str, float]) -> None:
    batches = SingleTaskBatches({"a": 9, "b": 9}, {"a": 2, "b": 3}, shares=shares)
    turns = [batches.batch(step)[0] for step in range(200)]
    assert turns.count("a") / 200 == pytest.approx(shares["a"] / sum(shares.values()), abs=0.01)
    assert turns[:8] != turns[8:16] or turns[16:24] != turns[:8]


def test_it_is_a_pure_function_of_the_step_and_the_seed() -> None:
    one, two, other = (SingleTaskBatches({"a": 50, "b": 50}, {"a": 5, "b": 5}, seed=seed) for seed in (0, 0, 1))
    for step in (17, 3, 30):
        assert one.batch(step)[0] == two.batch(step)[0]
        np.testing.assert_array_equal(one.batch(step)[1], two.batch(step)[1])
    assert any(one.batch(step)[1].tolist() != other.batch(step)[1].tolist() for step in range(4))


def test_what_makes_no_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="The data set 'b' has 2 rows, which is no batch of 3"):
        SingleTaskBatches({"a": 4, "b": 2}, {"a": 2, "b": 3})
    with pytest.raises(ConfigError, match="name the same data sets"):
        SingleTaskBatches({"a": 4}, {"b": 2})
    with pytest.raises(ConfigError, match="shares must be above 0"):
        SingleTaskBatches({"a": 4, "b": 4}, {"a": 2, "b": 2}, shares={"a": 1.0, "b": 0.0})
