"""A verdict on hundreds of tasks takes seconds: fewer resamples, and ranks without ties are counted row by row."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.scores import FinalRun, ScoreBank
from graftwork.tasks.metrics.ranking import _Ranking


@pytest.mark.parametrize(("tasks", "resamples"), [(5, 1000), (20, 1000), (100, 250)])
def test_many_tasks_share_the_resamples(tasks: int, resamples: int) -> None:
    generator = np.random.default_rng(0)
    rows = 2000
    names = [f"t{number}" for number in range(tasks)]
    suite = Suite.of_arrays(
        name="many",
        input_specs=table_input(1, []),
        tasks=[TaskSpec(name=name, kind="regression", size=1) for name in names],
        inputs={
            "numeric": generator.normal(size=(rows + 20, 1)).astype(np.float32),
            "categorical": np.zeros((rows + 20, 0), np.int64),
        },
        targets={name: generator.normal(size=(rows + 20, 1)).astype(np.float32) for name in names},
        splits={"train": np.arange(10), "val": np.arange(10, 20), "test": np.arange(20, rows + 20)},
    )
    # One task is answered: how many resamples there are depends on the suite.
    run = FinalRun(plan_name="a", seed=0, predictions={"t0": np.zeros((rows, 1), np.float32)}, validation={})
    found = ScoreBank(suite, {"a": [run]}).scores("a", "t0")
    assert found is not None
    assert found.resampled.shape[-1] == resamples


def test_ranks_without_ties_are_counted_as_groups_of_one() -> None:
    generator = np.random.default_rng(1)
    target, score = generator.integers(0, 2, size=40), generator.permutation(40).astype(np.float64)
    weights = generator.integers(0, 3, size=(7, 40)).astype(np.float64)
    ranking = _Ranking(target, score)
    positive, negative = ranking.group_counts(weights)
    weighted = weights[:, ranking.order]
    np.testing.assert_array_equal(positive, np.add.reduceat(weighted * ranking.positive, ranking.starts, axis=1))
    np.testing.assert_array_equal(positive + negative, np.add.reduceat(weighted, ranking.starts, axis=1))
