"""R-MTGB's trees beside LightGBM's: as many trees of the same size on the same rows and columns, in turns, one thread, CPU
seconds.

A round runs all three blocks equally long: trees over all rows, pairs of trees over all rows, and a tree for each task on its
own rows. LightGBM grows as many trees on as many rows, one booster for all rows and one for each task. Binning is done before,
by both. Columns have few enough values that both see the same bins, so that pooled boosting must give the same numbers
(``details.largest_difference``).

Two leaves are R-MTGB's released form: its histograms come from one sparse product for all tasks, which also serves both trees of
a pair. Deeper trees need
histograms of parts of the rows, which NumPy gathers and counts in two passes where LightGBM fuses them: they have no target.
"""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from benchmarks._rows import Row, as_rows
from benchmarks._timing import take_turns
from graftwork.domains.tabular.r_mtgb import RobustBoosting
from graftwork.domains.tabular.r_mtgb_forest import Blocks
from graftwork.domains.tabular.regression_tree import TreeShape

__all__ = ["largest_difference", "rows"]

TARGET = 1.5
TASKS = 4
LEVELS = 200
RATE = 0.1


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return a row per size of tree."""
    size, columns = (2_000, 6) if quick else (100_000, 30)
    return as_rows([_compare(size, columns, leaves, quick=quick) for leaves in (2, 8)])


def table(size: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features of ``LEVELS`` values each, targets and tasks."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, LEVELS, size=(size, columns)).astype(np.float32)
    task = np.sort(generator.integers(0, TASKS, size))
    wave = np.sin(x[:, 0] / 30.0) + x[:, 1] * x[:, 2] / LEVELS**2
    return x, wave * np.where(task == TASKS - 1, -1.0, 1.0) + 0.3 * generator.normal(size=size), task


def booster(x: np.ndarray, y: np.ndarray, leaves: int) -> lightgbm.Booster:
    """Return LightGBM with R-MTGB's trees: no penalty, no smallest leaf, from zero."""
    settings = {
        "objective": "regression",
        "boost_from_average": False,
        "learning_rate": RATE,
        "num_leaves": leaves,
        "min_data_in_leaf": 1,
        "min_sum_hessian_in_leaf": 0.0,
        "min_data_in_bin": 1,
        "max_bin": 255,
        "num_threads": 1,
        "verbosity": -1,
    }
    return lightgbm.Booster(settings, lightgbm.Dataset(x, y, params=settings).construct())


def boosting(x: np.ndarray, y: np.ndarray, task: np.ndarray, leaves: int, blocks: Blocks) -> RobustBoosting:
    """Return ours, binned and ready."""
    shape = TreeShape(max_leaf_nodes=leaves, max_depth=None)
    return RobustBoosting(x, y, task, num_tasks=TASKS, loss="squared_error", blocks=blocks, shape=shape, learning_rate=RATE)


def largest_difference(size: int, columns: int, leaves: int, trees: int) -> float:
    """Return how far pooled boosting by both differs on the training rows."""
    x, y, task = table(size, columns)
    ours, peer = boosting(x, y, task, leaves, Blocks(trees, 0, 0)), booster(x, y, leaves)
    for _ in range(trees):
        ours.advance()
        peer.update()
    return float(np.abs(ours.training_outputs()[0] - peer.predict(x)).max())


def _compare(size: int, columns: int, leaves: int, *, quick: bool) -> Row:
    x, y, task = table(size, columns)
    each = 2 if quick else 10
    pooled = booster(x, y, leaves)
    own = [booster(x[task == number], y[task == number], leaves) for number in range(TASKS)]
    model = boosting(x, y, task, leaves, Blocks(each, each, each))
    start = model.forest.to_arrays()

    def ours() -> None:
        model.resume(start)  # from the first iteration again, binned once
        while not model.is_done:
            model.advance()

    def peer() -> None:
        for _ in range(3 * each):
            pooled.update()
        for _ in range(each):
            for part in own:
                part.update()

    timings = take_turns({"ours": ours, "peer": peer}, rounds=3 if quick else 7)
    trees = each * (3 + TASKS)
    return Row(
        benchmark="r_mtgb",
        what=f"{size:,} rows x {columns} columns x {TASKS} tasks, trees of {leaves} leaves",
        ours=1000.0 * timings["ours"].median / trees,
        peer=1000.0 * timings["peer"].median / trees,
        beside="LightGBM",
        unit="ms",
        target=TARGET if leaves == 2 else None,
        ratio=timings["ours"].ratio(timings["peer"]),
        details={"trees": trees, "largest_difference": largest_difference(size, columns, leaves, 5)},
    )
