"""Real runs on suites whose answer is known: separate models win where tasks conflict, sharing wins where few labels are
related."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from graftwork.data.suites.generated import conflicting_tasks, related_tasks
from graftwork.workflows.fit import fit

pytestmark = pytest.mark.slow


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
        related_tasks(num_tasks=4),
        plans="separate,shared-trunk",
        steps=150,
        seeds=4,
        overrides={"batch_size": 64},
        single=True,
        keep="chosen",
        out=tmp_path / "run",
    )
    assert run.choice == "shared-trunk"
    assert run.result["plans"]["shared-trunk"]["delta_m"]["low"] > 0
    labels = [row["label"] for row in run.result["comparisons"] if row["plan"] == "shared-trunk"]
    assert not {"worse", "probably worse"} & set(labels)
    controls = [row["label"] for row in run.result["controls"]]
    assert "transfer" in controls
    assert "harm" not in controls
