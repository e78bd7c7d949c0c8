"""Suites and plans for tests of the race."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of ``fit`` and one of ``compare`` before anything is trained."""
    from graftwork.workflows.compare import compare
    from graftwork.workflows.fit import fit

    folder = tmp_path_factory.mktemp("runs")
    fields: dict[str, Any] = {"steps": 4, "seeds": 1, "workers": 0, "backbone": "none"}
    fit(linear_suite(), plans=["shared-trunk"], out=folder / "fit", dry_run=True, **fields)
    compare(linear_suite(), plans=["shared-trunk"], out=folder / "compare", **fields)
    for name in ("result.json", "report.html"):
        (folder / "compare" / name).unlink()
    shutil.rmtree(folder / "compare" / "jobs")
    state = json.loads((folder / "compare" / "run.json").read_text())
    (folder / "compare" / "run.json").write_text(json.dumps({**state, "state": "scheduled"}))
    return {verb: folder / verb for verb in ("fit", "compare")}


def received(run: Path, target: Path, change: Any) -> Path:
    """A copy of a run folder with another ``run.json``."""
    shutil.copytree(run, target)
    state = json.loads((target / "run.json").read_text())
    change(state)
    state["allow_components"] = state["allowed"] = ["os", "strange", "graftwork_parts"]  # what a stranger would try
    (target / "run.json").write_text(json.dumps(state))
    return target
