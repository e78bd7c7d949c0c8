"""Class weights in learners of tables: rare classes count as much as frequent ones, in predictions and in exported graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite

from graftwork.data.reading.class_weighting import with_class_weights
from graftwork.data.suite import Suite
from graftwork.domains.tabular.constant import ConstantLearner
from graftwork.domains.tabular.forests import ExtraTreesLearner, JointExtraTreesLearner
from graftwork.domains.tabular.lightgbm import LightGBMLearner
from graftwork.domains.tabular.linear import LinearLearner
from graftwork.domains.tabular.neighbours import NeighboursLearner

TASKS = ("late", "kind", "half", "tags")


def rare_suite() -> Suite:
    """Of each target's yes, three of four labels are hidden."""
    suite = mixed_suite(260)
    late = np.asarray(suite.targets["late"]).copy()
    yes = np.flatnonzero(late == 1)
    late[yes[: 3 * len(yes) // 4]] = -1
    return suite.with_targets({"late": late})


@pytest.mark.parametrize(
    "learner", [LinearLearner, ExtraTreesLearner, JointExtraTreesLearner, NeighboursLearner, ConstantLearner, LightGBMLearner]
)
def test_rare_classes_are_found_more_often(learner: type, tmp_path: Path) -> None:
    if learner is LightGBMLearner:
        pytest.importorskip("lightgbm")
    plain = rare_suite()
    weighted = with_class_weights(plain, dict.fromkeys(TASKS, "balanced"))
    rows = plain.splits["test"]
    found = {}
    for name, suite in (("plain", plain), ("weighted", weighted)):
        few = {"num_trees": 20} if issubclass(learner, ExtraTreesLearner | JointExtraTreesLearner) else {}
        built = learner(context_of(suite, tmp_path / name, max_steps=20), **few)
        built.train(20)
        found[name] = built.predict(rows)
        if name == "weighted":
            built.export(tmp_path / name)
            graph = graph_answers(tmp_path / name, suite, rows)
            for task in TASKS:
                np.testing.assert_allclose(graph[task], found[name][task], atol=1e-4)
    assert found["weighted"]["late"].mean() > found["plain"]["late"].mean() + 0.05
    np.testing.assert_allclose(found["weighted"]["price"], found["plain"]["price"], rtol=1e-5)
    for task in ("kind", "half"):
        np.testing.assert_allclose(found["weighted"][task].sum(axis=1), 1.0, atol=1e-5)
    if learner is ConstantLearner:
        assert found["weighted"]["late"] == pytest.approx(0.5)
        np.testing.assert_allclose(found["weighted"]["kind"], 0.25, atol=1e-6)


def test_a_suite_without_weights_is_left_alone(tmp_path: Path) -> None:
    suite = rare_suite()
    again = replace(suite, tasks=suite.tasks)
    assert again.fingerprint() == suite.fingerprint()
    assert with_class_weights(suite, {"late": "balanced"}).fingerprint() != suite.fingerprint()
