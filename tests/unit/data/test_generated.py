from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from graftwork.core.errors import ConfigError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.independence import independence_report
from graftwork.data.splits import resplit
from graftwork.data.suites.generated import conflicting_tasks, related_tasks


@pytest.mark.parametrize("build", [conflicting_tasks, related_tasks])
def test_same_seed_same_suite(build: object) -> None:
    one, two, other = build(seed=3), build(seed=3), build(seed=4)  # type: ignore[operator]
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    frame = pd.DataFrame(one.inputs["numeric"], columns=[f"x{index + 1}" for index in range(one.inputs["numeric"].shape[1])])
    encoded = encoder_from_state(one.only_input.encoder).transform(frame)
    np.testing.assert_array_equal(encoded["numeric"], one.inputs["numeric"])
    assert sorted(np.concatenate(list(one.splits.values())).tolist()) == list(range(len(one)))


def test_conflicting_labels_are_made_of_their_own_waves() -> None:
    suite = conflicting_tasks(rows=3000, num_tasks=4, noise=0.0, seed=1)
    assert suite.task_names == ("wave_a", "wave_b", "wave_c", "wave_d")
    for name in suite.task_names:
        target = suite.targets[name][:, 0]
        waves = sum(suite.raw["factors"][f"{name} {wave}"] for wave in (1, 2, 3))
        assert np.corrcoef(target, waves)[0, 1] == pytest.approx(1.0, abs=1e-5)
        linear = Ridge().fit(suite.inputs["numeric"], target)
        assert linear.score(suite.inputs["numeric"], target) < 0.2, "no linear short cut"
    labels = {name: suite.targets[name] for name in suite.task_names}
    report = independence_report({}, labels, permutations=100)
    assert report["labels"]["independent"], report["labels"]["worst"]


def test_related_labels_are_scarce_and_share_factors() -> None:
    suite = related_tasks(seed=2)
    development = np.concatenate([suite.splits["train"], suite.splits["val"]])
    known = np.stack([~np.isnan(suite.targets[name][:, 0]) for name in suite.task_names], axis=1)
    assert (known[development].sum(axis=1) == 1).all(), "one label per development row"
    assert (known[development].sum(axis=0) == 60).all()
    assert known[suite.splits["test"]].all()
    assert all(40 <= known[suite.splits["train"], task].sum() <= 50 for task in range(8)), "stratified by task"
    factors = np.stack(list(suite.raw["factors"].values()), axis=1)
    test = suite.splits["test"]
    for name in suite.task_names:
        target = suite.targets[name][test, 0]
        assert Ridge().fit(factors[test], target).score(factors[test], target) > 0.85, "two factors explain every task"
    other = resplit(suite, 1)
    assert (known[other.splits["train"]].sum(axis=1) == 1).all(), "another division brings no more labels"


def test_sharing_statistical_strength_is_possible_by_construction() -> None:
    """A regression that knows the directions from all tasks beats one that sees a task's own labels only: the effect is in the
    data."""
    suite = related_tasks(seed=0)
    x, test = suite.inputs["numeric"].astype(float), suite.splits["test"]
    development = np.concatenate([suite.splits["train"], suite.splits["val"]])
    weights, alone = [], []
    for name in suite.task_names:
        rows = development[~np.isnan(suite.targets[name][development, 0])]
        model = Ridge(alpha=10.0).fit(x[rows], suite.targets[name][rows, 0])
        alone.append(model.score(x[test], suite.targets[name][test, 0]))
        weights.append(model.coef_)
    directions = np.linalg.svd(np.stack(weights))[2][:2].T
    together = []
    for name in suite.task_names:
        rows = development[~np.isnan(suite.targets[name][development, 0])]
        model = Ridge(alpha=1.0).fit(x[rows] @ directions, suite.targets[name][rows, 0])
        together.append(model.score(x[test] @ directions, suite.targets[name][test, 0]))
    assert np.mean(together) > np.mean(alone) + 0.05


def test_ranges() -> None:
    with pytest.raises(ConfigError, match="num_tasks must be from 2 to 4; got 5"):
        conflicting_tasks(num_tasks=5)
    with pytest.raises(ConfigError, match="labels_per_task must be from 12"):
        related_tasks(labels_per_task=3)
