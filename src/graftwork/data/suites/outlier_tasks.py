"""Outlier tasks: many regression tasks that are nearly one function, and a few that are nearly another.

Scenario 4 of the generator of R-MTGB (https://github.com/GAA-UAM/R-MTGB), from its formulas. A random function is a sum of 500
waves,

    ``f(x) = sum_j a_j sqrt(2 / 500) cos(w_j . x / l + b_j)``,  ``a_j, w_j ~ N(0, 1)``,  ``b_j ~ U(0, 2 pi)``,  ``l = 0.25 D``.

Regular tasks are ``0.9 common + 0.1 own``; outlier tasks share another common function in the same way, so they are coherent and
not noise. ``x`` is uniform in ``[-1, 1]^D``, drawn afresh for each task, and labels have no noise. With ``labels="classes"`` the
sign is the label, and functions are drawn again until both classes have a tenth of each task's rows. The last tasks are the
outliers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

__all__ = ["outlier_tasks", "random_waves"]

Floats = NDArray[np.float64]
_WAVES = 500
_COMMON = 0.9
_RAREST = 0.1


def random_waves(x: Floats, generator: np.random.Generator) -> Floats:
    """Draw a function and return its values ``[N]`` at ``x`` ``[N, D]``; unit variance over functions."""
    dimensions = x.shape[1]
    directions = generator.normal(size=(_WAVES, dimensions))
    phases = generator.uniform(0.0, 2.0 * np.pi, size=_WAVES)
    heights = generator.normal(size=_WAVES)
    values: Floats = np.cos(x @ directions.T / (0.25 * dimensions) + phases) @ heights * np.sqrt(2.0 / _WAVES)
    return values


def outlier_tasks(
    *,
    num_tasks: int = 10,
    num_outliers: int = 2,
    num_features: int = 5,
    train_rows: int = 300,
    val_rows: int = 0,
    test_rows: int = 1000,
    labels: Literal["values", "classes"] = "values",
    seed: int = 0,
) -> Suite:
    """A generated table with many regression tasks that are nearly one function, and a few that are nearly another.

    Each row has the label of one task: ``raw["task"]`` tells which, ``raw["outliers"]`` which tasks are odd.

    Args:
        num_tasks: Tasks ``y0, y1, ...``.
        num_outliers: Of them the last ones, fewer than half.
        num_features: ``D``.
        train_rows: Training and validation rows of each task together.
        val_rows: Validation rows of each task, taken out of ``train_rows``.
        test_rows: Test rows of each task.
        labels: ``values`` for regression, ``classes`` for binary tasks.
        seed: Root of all draws.

    Raises:
        ConfigError: If sizes do not fit together.
    """
    problems = []
    if not 0 <= 2 * num_outliers < num_tasks:
        problems.append(f"num_outliers must be at least 0 and fewer than half of the {num_tasks} tasks; got {num_outliers}")
    if not 0 <= val_rows < train_rows or test_rows < 1 or num_features < 1:
        problems.append(
            f"rows and features: 0 <= val_rows < train_rows, test_rows and num_features at least 1; got "
            f"{val_rows}, {train_rows}, {test_rows}, {num_features}"
        )
    if labels not in ("values", "classes"):
        problems.append(f"labels must be 'values' or 'classes'; got {labels!r}")
    if problems:
        raise ConfigError("The suite outlier-tasks cannot be drawn.", problems)
    generator = Seeds(seed).child("outlier-tasks").numpy("functions")
    each = train_rows + test_rows
    while True:
        x = generator.uniform(-1.0, 1.0, size=(num_tasks, each, num_features))
        values = _draw_values(x, num_tasks - num_outliers, generator)
        positive = (values > 0).mean(axis=1)
        # Redrawn as a whole: single tasks redrawn would no longer share their common function.
        if labels == "values" or ((positive >= _RAREST) & (positive <= 1.0 - _RAREST)).all():
            break
    task = np.repeat(np.arange(num_tasks), each)
    names = [f"y{number}" for number in range(num_tasks)]
    targets = {}
    for number, name in enumerate(names):
        if labels == "values":
            targets[name] = np.where(task == number, values.reshape(-1), np.nan).astype(np.float32)[:, None]
        else:
            targets[name] = np.where(task == number, (values.reshape(-1) > 0).astype(np.int64), -1)
    place = np.tile(np.arange(each), num_tasks)
    binary = labels == "classes"
    tasks = [
        TaskSpec(name=name, kind="binary", size=1, classes=("no", "yes"))
        if binary
        else TaskSpec(name=name, kind="regression", size=1)
        for name in names
    ]
    return Suite.of_arrays(
        name="outlier-tasks",
        input_specs=table_input(num_features),
        tasks=tasks,
        inputs={
            "numeric": x.reshape(-1, num_features).astype(np.float32),
            "categorical": np.zeros((len(task), 0), dtype=np.int64),
        },
        targets=targets,
        splits={
            "train": np.flatnonzero(place < train_rows - val_rows),
            "val": np.flatnonzero((place >= train_rows - val_rows) & (place < train_rows)),
            "test": np.flatnonzero(place >= train_rows),
        },
        raw={"task": task, "outliers": list(range(num_tasks - num_outliers, num_tasks))},
        credits={"outlier-tasks": "generated here from the formulas of the R-MTGB generator"},
    )


def _draw_values(x: NDArray[np.float64], num_regular: int, generator: np.random.Generator) -> Floats:
    """Return labels ``[T, N]`` for features ``[T, N, D]``."""
    num_tasks, each, dimensions = x.shape
    groups = [slice(0, num_regular), slice(num_regular, num_tasks)]
    # one function at the rows of all its tasks: its waves are drawn once
    common = [random_waves(x[group].reshape(-1, dimensions), generator).reshape(-1, each) for group in groups]
    own = np.stack([random_waves(x[number], generator) for number in range(num_tasks)])
    return _COMMON * np.concatenate(common) + (1.0 - _COMMON) * own
