"""One suite through ``fit`` with a small fixed budget, and what an oracle with many rows finds of the trained models."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.verdicts.worlds import WorldSuite
from graftwork.core.components import Component
from graftwork.core.plan import Plan
from graftwork.data.suite import Suite
from graftwork.evaluation.delta_m import relative_change
from graftwork.evaluation.metrics import default_metric, score_task
from graftwork.workflows.fit import fit
from graftwork.workflows.portfolio import portfolio
from graftwork.workflows.runs.job_data import read_predictions

__all__ = ["ENOUGH_ROWS", "changes_of_scores", "oracle_changes", "run_world"]

ENOUGH_ROWS = 2000
"""Rows from which on one split is used, as `fit` does by itself."""
_NETWORK = "graftwork.nn.backbones.mlp:TableBackbone"
_SIZES = {"width": 64, "num_blocks": 1, "dropout": 0.0}
TREES_EVERY = 4
"""Trees, which take the most time, race in one of so many suites."""
_TREES = {"extra-trees": 40, "extra-trees-joint": 40}
_NAMES = ("separate", "shared-trunk", "constant", "linear", "linear-joint")


def _plans(suite: Suite, *, trees: bool) -> list[Plan]:
    """Return the plans of the race: those of the portfolio that the two questions need, made small."""
    found = []
    for plan in portfolio(suite.kinds, len(suite.tasks), (*_NAMES, *_TREES) if trees else _NAMES):
        if plan.name in ("separate", "shared-trunk"):
            plan = plan.with_train(backbone=Component(_NETWORK, {"num_numeric": suite.inputs["numeric"].shape[1], **_SIZES}))
        if plan.name in _TREES:
            plan = plan.with_train(learner=Component(plan.train.learner.path, {"num_trees": _TREES[plan.name]}))
        found.append(plan)
    return found


def run_world(world: WorldSuite, *, steps: int) -> dict[str, Any]:
    """Return ``result`` (as ``result.json``), ``oracle`` (see :func:`oracle_changes`) and ``cpu_seconds``.

    Args:
        world: The suite.
        steps: Steps of a training.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "run"
        begun = time.process_time()
        run = fit(
            world.suite,
            plans=["none", *_plans(world.suite, trees=world.seed % TREES_EVERY == 0)],
            steps=steps,
            seed=world.seed,
            folds=5 if world.rows < ENOUGH_ROWS else 0,
            seeds=3,
            single=True,
            refit=False,
            keep="chosen",
            workers=0,
            overrides={"learning_rate": 5e-3},
            progress=False,
            out=folder,
        )
        seconds = time.process_time() - begun
        assert run.result is not None
        return {"result": dict(run.result), "oracle": oracle_changes(world.suite, folder), "cpu_seconds": seconds}


def oracle_changes(suite: Suite, folder: Path) -> dict[str, Any]:
    """Return ``{plan: {task: {"value", "error"}}}``: change against ``separate`` on the oracle's rows, percent, mean over all
    trainings of a plan with its standard error.

    Args:
        suite: The suite with its split ``transfer``.
        folder: The run.
    """
    scores: dict[str, dict[int, Mapping[str, float]]] = {}
    rows = suite.splits["transfer"]
    for file in sorted(folder.glob("jobs/final-*/predictions.safetensors")):
        name, _, number = file.parent.name.removeprefix("final-").rpartition("-s")
        found = read_predictions(file, suite).get("transfer", {})
        scores.setdefault(name, {})[int(number)] = {
            task.name: score_task(task, np.asarray(suite.targets[task.name][rows]), found[task.name])[default_metric(task)]
            for task in suite.tasks
            if task.name in found
        }
    return changes_of_scores(suite, scores)


def changes_of_scores(suite: Suite, scores: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Return what :func:`oracle_changes` does.

    Args:
        suite: The suite.
        scores: ``{plan: {seed or fold: {task: primary metric on the oracle's rows}}}``.
    """
    base = scores.get("separate", {})
    return {name: _changes(suite, own, base) for name, own in scores.items() if name != "separate" and base}


def _changes(
    suite: Suite, own: Mapping[int, Mapping[str, float]], base: Mapping[int, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    found = {}
    numbers: Sequence[int] = sorted(set(own) & set(base))
    for task in suite.tasks:
        metric = default_metric(task)
        middle = float(np.mean([base[number][task.name] for number in numbers]))
        values = [
            relative_change(metric, middle + own[number][task.name] - base[number][task.name], middle) for number in numbers
        ]
        error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
        found[task.name] = {"value": float(np.mean(values)), "error": error}
    return found
