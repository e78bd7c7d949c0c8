"""MultiTab-Bench: synthetic tables with dials for the number of tasks, their correlation and their difficulty.

Paper: "MultiTab: A Scalable Foundation for Multitask Learning on Tabular Data", 2025 (generator of the released code, from its
formulas).

``T`` orthonormal directions ``u_i`` in ``R^D`` are mixed to task weights ``w_i`` of unit length whose pairwise cosine is
``rho``. With ``x ~ N(0, I)`` and ``a_i = w_i . x`` the label is ``y_i = sum_{k=1..degree_i} a_i^k + sigma * noise``: ``rho``
relates the linear part alone, the powers make tasks hard and heavy-tailed. Labels are standardised over all rows, since powers
would let one task rule a summed loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

__all__ = ["multitab_bench", "task_weights"]

_DEGREES = (1, 3, 2, 3, 4, 2, 3)


def task_weights(num_tasks: int, num_features: int, rho: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return unit vectors ``[T, D]`` whose pairwise cosine is ``rho``.

    Args:
        num_tasks: ``T``, at most ``D``.
        num_features: ``D``.
        rho: Cosine, above ``-1 / (T - 1)`` and at most 1.
        generator: Draws the orthonormal directions.

    Raises:
        ConfigError: If there are more tasks than features, or no such vectors exist.
    """
    if num_tasks > num_features:
        raise ConfigError(f"`num_tasks` must be at most `num_features`; got {num_tasks} and {num_features}.")
    lowest = -1.0 / (num_tasks - 1) if num_tasks > 1 else -1.0
    if not lowest <= rho <= 1.0:
        raise ConfigError(f"`rho` must lie between {lowest:.3f} (for {num_tasks} tasks) and 1; got {rho}.")
    # Wanted inner products: 1 on the diagonal, rho elsewhere.
    gram = np.full((num_tasks, num_tasks), rho) + (1.0 - rho) * np.eye(num_tasks)
    values, vectors = np.linalg.eigh(gram)
    directions = np.linalg.qr(generator.normal(size=(num_features, num_tasks)))[0].T
    # W = V sqrt(L) U with orthonormal U gives W W^T = V L V^T, the wanted products. clip: rounding can go below 0.
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))) @ directions)


def multitab_bench(
    *,
    rows: int = 25_000,
    num_tasks: int = 5,
    num_features: int = 16,
    rho: float = 0.4,
    degrees: Sequence[int] = _DEGREES,
    sigma: float = 0.01,
    test_rows: int = 5_000,
    seed: int = 0,
) -> Suite:
    """A generated table with dials for the number of tasks, their correlation and their difficulty.

    A tenth of the rows that are not for testing is the validation split.

    Args:
        rows: All rows.
        num_tasks: ``T``.
        num_features: ``D``.
        rho: Pairwise cosine of the linear parts.
        degrees: Polynomial degree of each task, repeated if there are more tasks.
        sigma: Standard deviation of the label noise before standardisation.
        test_rows: Rows of the test split.
        seed: Root of all draws.

    Raises:
        ConfigError: If fewer than ten rows are left besides the test rows, or `task_weights` refuses its arguments.
    """
    if not 1 <= test_rows <= rows - 10:
        raise ConfigError(
            f"`test_rows` must be between 1 and rows - 10, so that training and validation rows are left; got {test_rows} of "
            f"{rows} rows."
        )
    seeds = Seeds(seed)
    weights = task_weights(num_tasks, num_features, rho, seeds.numpy("weights"))
    features = seeds.numpy("features").normal(size=(rows, num_features))
    activity = features @ weights.T
    noise = seeds.numpy("noise").normal(size=(rows, num_tasks))
    targets = {}
    for task in range(num_tasks):
        powers = np.arange(1, degrees[task % len(degrees)] + 1)
        # sum of a^k for k up to the degree.
        value = (activity[:, task, None] ** powers).sum(axis=1) + sigma * noise[:, task]
        targets[f"y{task}"] = ((value - value.mean()) / value.std()).astype(np.float32)[:, None]
    order = seeds.numpy("split").permutation(rows)
    rest = rows - test_rows
    return Suite.of_arrays(
        name="multitab-bench",
        input_specs=table_input(num_features),
        tasks=[TaskSpec(name=name, kind="regression", size=1) for name in targets],
        inputs={"numeric": features.astype(np.float32), "categorical": np.zeros((rows, 0), np.int64)},
        targets=targets,
        splits={
            "train": np.sort(order[: rest - rest // 10]),
            "val": np.sort(order[rest - rest // 10 : rest]),
            "test": np.sort(order[rest:]),
        },
        raw={"weights": weights.tolist()},
        credits={"MultiTab-Bench": "generated here from the paper's formulas"},
    )
