"""A suite for simulated predictions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite

__all__ = ["make_suite"]


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
