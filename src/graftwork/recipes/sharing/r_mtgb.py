"""Reproduction of R-MTGB, robust multi-task gradient boosting.

The paper reports that on generated data with outlier tasks and on real multi-task tables outlier tasks are isolated and errors
fall for each task and overall (its numbers were not verified here).

Our setting is scenario 4 of its generator: 10 regression tasks over 5 features, 300 labelled and 1,000 test rows each, 2 tasks
that share another function than the rest, 20 repetitions. Every arm boosts trees of depth 3 for 160 iterations, so that a
prediction is a sum of 160 steps, and has six trials on 60 of a task's 300 rows; the best one is fitted again on all 300. Pooled
and single-task boosting have nothing to split and choose among six learning rates, which is the more generous search; the others
choose among three splits into blocks at two learning rates. Splits and rates were set once, after a calibration run with the
seeds 100 and 101 (rates 0.1, 0.2 and 0.4, two splits for MTGB and five for R-MTGB, no fit on all 300 rows; cut off in the last
three fits). There, the settings with the best validation error among rates 0.1 and 0.2 had a mean test RMSE of 0.324 and 0.278
(single-task), 0.423 and 0.488 (pooled), 0.281 and 0.260 (MTGB), 0.236 and 0.209 (R-MTGB), and every fit with a second block
found both outlier tasks. R-MTGB gained a little from a rate of 0.4 (0.234 and 0.198), which is left out, as MTGB lost by it.
About 6 minutes on 2 cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Inequality, Measurements, Recipe
from graftwork.data.suite import Suite
from graftwork.data.suites.outlier_tasks import outlier_tasks
from graftwork.domains.tabular.r_mtgb_estimator import RMTGBRegressor

__all__ = ["RECIPE"]

Array = NDArray[Any]
_ITERATIONS = 160
_LABELS = Access(source_labels=True)
_RATES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Choose on validation rows, fit again on all labelled rows, and measure test RMSE over all tasks and over the regular
    ones."""
    sizes: dict[str, Any] = context.choose(full={"val_rows": 60}, smoke={"train_rows": 60, "val_rows": 12, "test_rows": 50})
    suite = outlier_tasks(seed=seed, **sizes)
    data = context.guard(suite)
    visible = data.visible
    rows = {name: visible.splits[name] for name in ("train", "val")}
    y = _labels(visible)
    errors = []
    settings = list(_trials(arm.settings, context.choose(full=1.0, smoke=0.05)))
    for number, setting in enumerate(settings):
        model = _fit(arm, setting, visible, y, rows["train"], seed, context)
        found = _predict(arm, model, visible, rows["val"])
        errors.append(_mean_rmse(found, y[rows["val"]], visible.raw["task"][rows["val"]]))
        context.count("trials")
        context.progress((number + 1) / (len(settings) + 1))
    best = settings[int(np.argmin(errors))]
    # On all labelled rows: the settings are chosen, so validation rows may be learned from.
    model = _fit(arm, best, visible, y, np.concatenate(list(rows.values())), seed, context)
    asked = data.questions("test")
    predicted = _predict(arm, model, asked, asked.splits["test"])[:, None]
    # One number a row: a row has the label of its own task only, and is scored there.
    scores = data.score("test", dict.fromkeys(suite.task_names, predicted))
    rmse = np.array([scores[name]["rmse"] for name in suite.task_names])
    outliers = suite.raw["outliers"]
    measured: dict[str, Any] = {
        "rmse": rmse.mean(),
        "regular_rmse": np.delete(rmse, outliers).mean(),
        "outlier_rmse": rmse[outliers].mean(),
    }
    measured |= {"learning_rate": best["learning_rate"], "n_iter_2nd": best["n_iter_2nd"]}
    if best["n_iter_2nd"]:
        # Splits without a second block separate nothing.
        measured["outliers_found"] = float(list(model.outlier_tasks_) == outliers)
    return {name: float(value) for name, value in measured.items()}


def _trials(settings: Mapping[str, Any], scale: float) -> Iterator[dict[str, Any]]:
    """Yield every trial of an arm; iterations are multiplied by ``scale``."""
    for rate in settings["rates"]:
        for blocks in settings["splits"]:
            assert sum(blocks) == _ITERATIONS
            names = ("n_iter_1st", "n_iter_2nd", "n_iter_3rd")
            yield {"learning_rate": rate, **{name: round(scale * size) for name, size in zip(names, blocks, strict=True)}}


def _labels(suite: Suite) -> Array:
    """Return the label of each row's own task ``[N]``, NaN where it is hidden."""
    targets = np.concatenate([suite.targets[name] for name in suite.task_names], axis=1)
    # [N, T] -> [N]: each row's own task
    return targets[np.arange(len(suite)), suite.raw["task"]]


def _features(arm: Arm, suite: Suite, rows: Array) -> tuple[Array, Array | None]:
    """Return what an arm's trees see, and the task ids if it knows of tasks."""
    x, task = suite.inputs["numeric"][rows], suite.raw["task"][rows]
    if arm.settings["task"] == "one-hot":
        return np.concatenate([x, np.eye(len(suite.tasks), dtype=x.dtype)[task]], axis=1), None
    return x, task if arm.settings["task"] == "ids" else None


def _fit(
    arm: Arm, setting: Mapping[str, Any], suite: Suite, y: Array, rows: Array, seed: int, context: ArmContext
) -> RMTGBRegressor:
    model = RMTGBRegressor(max_leaf_nodes=None, max_depth=3, random_state=seed, **setting)
    x, task = _features(arm, suite, rows)
    model.fit(x, y[rows], task)
    context.count("steps", model.n_iter_)
    # Iterations see all rows: rows times iterations, as a loop with full batches would count.
    context.count("samples", model.n_iter_ * len(rows))
    return model


def _predict(arm: Arm, model: RMTGBRegressor, suite: Suite, rows: Array) -> Array:
    return model.predict(*_features(arm, suite, rows))


def _mean_rmse(found: Array, expected: Array, task: Array) -> float:
    """Return the mean over tasks of the root mean squared error."""
    squares = np.bincount(task, weights=(found - expected) ** 2) / np.bincount(task)
    return float(np.sqrt(squares).mean())


def _arm(name: str, title: str, task: str, rates: tuple[float, ...], splits: tuple[tuple[int, int, int], ...]) -> Arm:
    return Arm(name, title, _LABELS, {"task": task, "rates": list(rates), "splits": [list(split) for split in splits]})


ARMS = (
    _arm("single", "one boosted model per task", "ids", _RATES, ((0, 0, 160),)),
    _arm("pooled", "one boosted model for all rows, tasks unknown", "none", _RATES, ((160, 0, 0),)),
    _arm("onehot", "one boosted model for all rows, the task as indicator columns", "one-hot", _RATES, ((160, 0, 0),)),
    # Iterations of shared, split and own trees: 160 in every trial.
    _arm("mtgb", "MTGB: shared, then task-specific trees", "ids", (0.1, 0.2), ((120, 0, 40), (80, 0, 80), (40, 0, 120))),
    _arm("r-mtgb", "R-MTGB", "ids", (0.1, 0.2), ((0, 100, 60), (0, 130, 30), (20, 100, 40))),
)


def _lower(name: str, than: str, measure: str = "rmse", *, primary: bool = True) -> Inequality:
    # 15 of 20 equal signs have a two-sided p of 0.041 in the sign test
    return Inequality(name, f"{than}.{measure}", f"r-mtgb.{measure}", min_sign_seeds=15, primary=primary, unit="RMSE")


RECIPE = Recipe(
    slug="r-mtgb",
    arms=ARMS,
    seeds=tuple(range(20)),
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        _lower("lower error than MTGB", "mtgb"),
        _lower("lower error than pooled boosting", "pooled"),
        _lower("lower error than single-task boosting", "single"),
        _lower("lower error than pooled boosting on the regular tasks", "pooled", "regular_rmse"),
        Inequality(
            "both outlier tasks are on the minority side in 80 % of the repetitions",
            "r-mtgb.outliers_found",
            0.8,
            demand="at least",
            unit="share",
        ),
        _lower("lower error than pooled boosting that knows the task", "onehot", primary=False),
        _lower("lower error than MTGB on the outlier tasks", "mtgb", "outlier_rmse", primary=False),
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels", "trials")),),
    minutes=6,
    notes=(
        "Iterations are equal, as a prediction sums one step of each; an iteration of block 2 grows two "
        "trees, one of block 3 a tree per task.",
        "Trees of depth 3 with at most 255 cuts a column; the released code grows stumps whatever depth is asked for.",
        "The paper's real tables are left out.",
    ),
)
