"""Real runs on suites whose answer is known: separate models win where tasks conflict, sharing wins where few labels are
related."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from graftwork.core.components import Component
from graftwork.core.records import Plan
from graftwork.core.stages.train import TrainStage
from graftwork.data.suites.generated import conflicting_tasks, related_tasks
from graftwork.workflows.fit import fit

pytestmark = pytest.mark.slow


def small_plans(num_features: int) -> list[str | Plan]:
    """Separate models and a shared trunk, with trunks of a tenth of the usual size: few labels need no more."""
    trunk = Component(
        "graftwork.nn.backbones.mlp:TableBackbone", {"num_numeric": num_features, "width": 32, "num_blocks": 1, "dropout": 0.0}
    )
    kinds = {
        "alone": ("reference", Component("graftwork.methods.sharing.separate:Separate", {"head_hidden": 32})),
        "together": ("joint", Component("graftwork.methods.sharing.shared_trunk:SharedTrunk", {"head_hidden": 32})),
    }
    plans = [
        Plan(
            name=name,
            title=name,
            role=role,  # type: ignore[arg-type]
            modalities=("table",),
            stages=(TrainStage(backbone=trunk, sharing=sharing),),
        )
        for name, (role, sharing) in kinds.items()
    ]
    return ["none", *plans]


def test_conflicting_tasks_are_best_trained_separately(tmp_path: Path) -> None:
    run = fit(
        conflicting_tasks(rows=600),
        plans="separate,shared-trunk",
        steps=150,
        seeds=3,
        overrides={"batch_size": 64},
        single=True,
        keep="chosen",
        out=tmp_path / "run",
    )
    verdict = run.result["verdict"]
    assert run.choice == "separate"
    assert "separate" in verdict["sentences"][0]
    shared = run.result["plans"]["shared-trunk"]
    assert shared["delta_m"]["high"] < 0
    labels = {row["label"] for row in run.result["comparisons"] if row["plan"] == "shared-trunk"}
    assert not labels & {"better", "probably better"}
    assert labels & {"worse", "probably worse"}
    controls = [row["label"] for row in run.result["controls"]]
    assert "transfer" not in controls
    assert any(sentence.startswith(("Learning together", "The tasks")) for sentence in verdict["sentences"])


def test_related_tasks_with_few_labels_are_best_shared(tmp_path: Path) -> None:
    run = fit(
        related_tasks(num_tasks=6),
        plans=small_plans(20),
        steps=200,
        seeds=5,
        overrides={"batch_size": 32},
        single=True,
        keep="chosen",
        out=tmp_path / "run",
    )
    assert run.choice == "together"
    assert run.result["plans"]["together"]["delta_m"]["low"] > 0
    labels = [row["label"] for row in run.result["comparisons"] if row["plan"] == "together"]
    assert not {"worse", "probably worse"} & set(labels)
    controls = [row["label"] for row in run.result["controls"]]
    assert "transfer" in controls
    assert "harm" not in controls
