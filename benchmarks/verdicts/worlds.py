"""Four kinds of generated suites of which it is known whether their tasks help each other.

Rows, tasks, kinds of targets, noise and the number of data sets vary with the seed. Every suite has a split ``transfer`` of many
rows that no training sees and no verdict reads: the oracle measures on them what is true of the trained models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.encoders.columns import NumericColumn
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.folds import DRAWN
from graftwork.data.splits import split_rows
from graftwork.data.suite import Suite

__all__ = ["ORACLE_ROWS", "WORLDS", "World", "WorldSuite", "make_world"]

World = Literal["related", "conflicting", "unrelated", "shuffled"]
WORLDS: tuple[World, ...] = ("related", "conflicting", "unrelated", "shuffled")
ORACLE_ROWS = 4000
"""Rows on which the oracle measures."""
FEATURES = 10
LEAST, MOST = 60, 3000
"""Rows that a suite may have."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSuite:
    """One suite and what is known of it."""

    world: World
    seed: int
    suite: Suite
    rows: int
    """Rows that `fit` gets."""
    kinds: Mapping[str, str]
    """``{task: kind}``."""
    data_sets: int
    """More than one: each row has the label of one task only."""
    signal: Mapping[str, bool]
    """``{task: whether inputs tell anything about its training targets}``."""


def _unit(draw: np.random.Generator, *shape: int) -> Floats:
    found: Floats = draw.normal(size=shape)
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def _related(draw: np.random.Generator, inputs: Floats, tasks: int) -> Floats:
    """All tasks follow one wave along a hidden direction, up or down: one task shows the others where to look."""
    direction = _unit(draw, FEATURES)
    return np.sin(draw.uniform(1.8, 2.2) * inputs @ direction)[:, None] * draw.choice([-1.0, 1.0], size=tasks)


def _conflicting(draw: np.random.Generator, inputs: Floats, tasks: int) -> Floats:
    """Every task is a sum of waves along directions of its own: one trunk would have to hold all of them."""
    directions = 2.0 * _unit(draw, tasks, 3, FEATURES)
    phases = draw.uniform(0.0, 2.0 * np.pi, size=(tasks, 3))
    found: Floats = np.sin(np.einsum("nf,twf->ntw", inputs, directions) + phases).sum(axis=2)
    return found


def _unrelated(draw: np.random.Generator, inputs: Floats, tasks: int) -> Floats:
    """Every task is one smooth step along a direction of its own."""
    slopes = draw.uniform(0.5, 2.0, size=tasks)
    return np.tanh(slopes * (inputs @ _unit(draw, tasks, FEATURES).T))


_TARGETS: Mapping[World, Callable[[np.random.Generator, Floats, int], Floats]] = {
    "related": _related,
    "conflicting": _conflicting,
    "unrelated": _unrelated,
    "shuffled": _related,
}
_ROWS: Mapping[World, tuple[int, int]] = {
    # Tasks with many rows do not need each other; waves cannot be learned from few.
    "related": (300, 900),
    "conflicting": (600, MOST),
    "unrelated": (LEAST, MOST),
    "shuffled": (LEAST, MOST),
}
_NOISE: Mapping[World, tuple[float, float]] = {
    "related": (0.2, 0.4),
    "conflicting": (0.05, 0.2),
    "unrelated": (0.2, 1.0),
    "shuffled": (0.2, 1.0),
}


def _target(kind: str, name: str, values: Floats) -> tuple[TaskSpec, NDArray[Any]]:
    if kind == "regression":
        return TaskSpec(name=name, kind=kind, size=1, columns=(name,)), values[:, None].astype(np.float32)
    classes = ("low", "high") if kind == "binary" else ("low", "middle", "high")
    edges = np.quantile(values, [0.5] if kind == "binary" else [1 / 3, 2 / 3])
    spec = TaskSpec(name=name, kind=kind, size=1 if kind == "binary" else 3, classes=classes, columns=(name,))
    return spec, np.searchsorted(edges, values).astype(np.int64)


def make_world(world: World, seed: int, *, oracle_rows: int = ORACLE_ROWS, most_rows: int = MOST) -> WorldSuite:
    """Return a generated suite.

    Args:
        world: ``related``: tasks share their hidden directions; ``conflicting``: one trunk must hold many waves of each;
            ``unrelated``: directions of their own; ``shuffled``: related tasks of which all, or all but the first, have had their
            labels dealt anew.
        seed: Root of all draws.
        oracle_rows: Rows of the split ``transfer``.
        most_rows: Largest suite.
    """
    draw = np.random.default_rng([WORLDS.index(world), seed])
    low, high = _ROWS[world]
    rows = int(np.exp(draw.uniform(np.log(low), np.log(min(high, most_rows)))))
    related = world == "related"
    tasks = int(draw.choice([2, 3, 4, 6, 8], p=[0.0, 0.35, 0.35, 0.2, 0.1] if related else [0.3, 0.35, 0.2, 0.1, 0.05]))
    noise = draw.uniform(*_NOISE[world])
    kinds = [str(kind) for kind in draw.choice(["regression", "binary", "multiclass"], size=tasks, p=[0.6, 0.2, 0.2])]
    several = bool(draw.random() < (0.6 if related else 0.25))
    if several and related:
        rows = min(tasks * int(draw.integers(150, 300)), most_rows)
    inputs = draw.normal(size=(rows + oracle_rows, FEATURES))
    values = _TARGETS[world](draw, inputs, tasks)
    values = (values - values.mean(axis=0)) / values.std(axis=0) + noise * draw.normal(size=values.shape)
    first = 0
    if world == "shuffled":
        # Half of these suites keep the labels of their first task.
        first = int(draw.integers(0, 2))
        for index in range(first, tasks):
            # The oracle's rows stay as they are: what was learned from noise fails there as well.
            values[:rows, index] = draw.permutation(values[:rows, index])
    names = [f"target_{index + 1}" for index in range(tasks)]
    made = [_target(kind, name, values[:, index]) for index, (kind, name) in enumerate(zip(kinds, names, strict=True))]
    specs, targets = [spec for spec, _ in made], {spec.name: target for spec, target in made}
    owner = np.arange(rows) % tasks if several else None
    if owner is not None:
        for index, name in enumerate(names):
            missing = np.flatnonzero(owner != index)
            targets[name][missing] = np.nan if targets[name].dtype == np.float32 else -1
    domain = None if owner is None else np.concatenate([owner, np.zeros(oracle_rows, dtype=np.int64)])
    parts = split_rows(
        specs, {name: target[:rows] for name, target in targets.items()}, seed=seed, domain=None if owner is None else owner
    )
    encoder = TableEncoder([NumericColumn(f"x{index + 1}", 0.0, 1.0, False) for index in range(FEATURES)])
    suite = Suite.of_arrays(
        name=f"{world}-{seed}",
        input_specs={"table": encoder.spec()},
        tasks=specs,
        inputs={"numeric": inputs.astype(np.float32), "categorical": np.zeros((len(inputs), 0), dtype=np.int64)},
        targets=targets,
        splits={**parts, "transfer": np.arange(rows, rows + oracle_rows)},
        domain=domain,
        domains=() if owner is None else tuple(f"set {index + 1}" for index in range(tasks)),
        raw={DRAWN: True},
    )
    return WorldSuite(
        world=world,
        seed=seed,
        suite=suite,
        rows=rows,
        kinds=dict(zip(names, kinds, strict=True)),
        data_sets=tasks if several else 1,
        signal={name: world != "shuffled" or index < first for index, name in enumerate(names)},
    )
