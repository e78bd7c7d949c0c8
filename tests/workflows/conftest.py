"""Suites and plans for tests of the race."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graftwork.core.components import Component, components_allowed
from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, Role, TaskSpec
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite


def linear_suite(rows: int = 120, seed: int = 0) -> Suite:
    """Two regressions that are linear in four features."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 4)).astype(np.float32)
    truth = generator.normal(size=(4, 2))
    y = (x @ truth + 0.1 * generator.normal(size=(rows, 2))).astype(np.float32)
    order = generator.permutation(rows)
    cuts = [int(0.6 * rows), int(0.8 * rows)]
    parts = np.split(order, cuts)
    return Suite.of_arrays(
        name="linear",
        input_specs=table_input(4),
        tasks=[TaskSpec(name="first", kind="regression", size=1), TaskSpec(name="second", kind="regression", size=1)],
        inputs={"numeric": x, "categorical": np.zeros((rows, 0), dtype=np.int64)},
        targets={"first": y[:, :1], "second": y[:, 1:]},
        splits={name: np.sort(part) for name, part in zip(("train", "val", "test"), parts, strict=True)},
    )


def linear_plan(name: str, role: Role, **settings: object) -> Plan:
    """A plan that the learner of ``fake_learners`` trains."""
    return Plan(
        name=name,
        title=name,
        role=role,
        modalities=("table",),
        stages=(TrainStage(learner=Component("fake_learners:LinearLearner", settings)),),
    )


@pytest.fixture
def fake_learners(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``fake_learners`` importable and allow its components, here and in worker processes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    with components_allowed("fake_learners"):
        yield
