"""Plans, a suite and simulated predictions of known quality."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from graftwork.core.input_spec import InputSpec
from graftwork.core.records import Ledger, Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.verdict import FinalRun, build_verdict

__all__ = ["LEDGERS", "PLANS", "SEPARATE", "TWO", "Qualities", "finals_of", "judge", "labels", "make_suite", "predict"]

SEPARATE = Plan(name="separate", title="Separate models", role="reference", modalities=("image",))
SHARED = Plan(name="shared", title="Shared trunk", role="joint", modalities=("image",))
EXPERTS = Plan(name="experts", title="Experts", role="joint", modalities=("image",))
FROZEN = Plan(name="frozen", title="Frozen features", role="independent", modalities=("image",), source="pretrained")
PLANS = {plan.name: plan for plan in (SEPARATE, SHARED, EXPERTS, FROZEN)}
COSTS = {"separate": 3_000_000, "shared": 1_000_000, "experts": 2_000_000, "frozen": 5_000_000}
LEDGERS = {name: Ledger(parameters_stored=cost, latency_ms_batch1=cost / 1e6) for name, cost in COSTS.items()}

Qualities = Mapping[str, Mapping[str, float]]
"""``{plan: {task: quality}}``: accuracy for a class task, RMSE for a value task."""


def make_suite(tasks: Mapping[str, str], rows: int = 600, groups: int | None = None) -> Suite:
    """A suite of class tasks (``"multiclass"``) and value tasks (``"regression"``), ``rows`` of them for test."""
    rng = np.random.default_rng(1)
    total = rows + 1200
    specs = tuple(TaskSpec(name=name, kind=kind, size=4 if kind == "multiclass" else 1) for name, kind in tasks.items())
    targets = {
        spec.name: rng.integers(0, 4, total) if spec.kind == "multiclass" else rng.normal(size=(total, 1)).astype(np.float32)
        for spec in specs
    }
    return Suite.of_arrays(
        name="toy",
        input_specs={"image": InputSpec(kind="image")},
        tasks=specs,
        inputs={"image": np.zeros((total, 1, 1, 3), np.uint8)},
        targets=targets,
        splits={"train": np.arange(1000), "val": np.arange(1000, 1200), "test": np.arange(1200, total)},
        groups=None if groups is None else np.arange(total) % groups,
    )


def predict(suite: Suite, task: TaskSpec, quality: float, rng: np.random.Generator, split: str = "test") -> np.ndarray:
    """Predictions of a known quality; what is hard for one plan is hard for all (the same rows, drawn from a fixed stream)."""
    target = suite.targets[task.name][suite.splits[split]]
    hardness = np.random.default_rng(9).random(len(target))
    if task.kind == "multiclass":
        right = 0.85 * hardness + 0.15 * rng.random(len(target)) < quality
        return np.eye(4)[np.where(right, target, (target + 1) % 4)] * 0.7 + 0.075
    common = np.random.default_rng(8).normal(size=target.shape)
    return target + quality * (0.9 * common + np.sqrt(1 - 0.81) * rng.normal(size=target.shape))


def finals_of(
    suite: Suite, qualities: Qualities, *, seeds: int = 3, spread: float = 0.01, noise: float = 0.01, stream: int = 3
) -> dict[str, list[FinalRun]]:
    """Runs whose quality varies by ``spread`` (relative) over seeds; validation scores have ``noise`` (relative) on top."""
    rng = np.random.default_rng(stream)
    finals: dict[str, list[FinalRun]] = {}
    split_luck = 1 + noise * rng.normal(size=(seeds, len(suite.tasks)))  # hard validation rows are hard for every plan
    for plan, by_task in qualities.items():
        for seed in range(seeds):
            predictions, validation = {}, {}
            for index, task in enumerate(suite.tasks):
                if task.name not in by_task:
                    continue
                quality = by_task[task.name] * (1 + spread * rng.normal())
                predictions[task.name] = predict(suite, task, quality, rng)
                metric = "accuracy" if task.kind == "multiclass" else "rmse"
                validation[task.name] = {metric: quality * split_luck[seed, index]}
            run = FinalRun(plan_name=plan, seed=seed, predictions=predictions, validation=validation)
            finals.setdefault(plan, []).append(run)
    return finals


def judge(suite: Suite, qualities: Qualities, *, options: Mapping[str, Any] | None = None, **simulation: Any) -> dict[str, Any]:
    settings = {"controls": {}, "affinity": None, "ledgers": LEDGERS, "plans": PLANS, "limits": {}, "num_resamples": 400}
    result = build_verdict(suite, finals_of(suite, qualities, **simulation), **{**settings, **(options or {})})
    json.dumps(result, allow_nan=False)
    return result


TWO = {"topic": "multiclass", "price": "regression"}


def labels(result: Mapping[str, Any], plan: str) -> dict[str, str]:
    return {row["task"]: row["label"] for row in result["comparisons"] if row["plan"] == plan}
