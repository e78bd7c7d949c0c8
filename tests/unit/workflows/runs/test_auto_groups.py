"""Groupings for plans that leave their groups to the workflow: training rows only, once a run, with reasons where it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import Component, Plan, TaskSpec
from graftwork.core.stages.train import TrainStage
from graftwork.data.store import save_suite
from graftwork.data.suite import Suite
from graftwork.workflows.compare import compare
from graftwork.workflows.runs.auto_groups import needs_grouping, resolve_groupings, suggest_grouping
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.jobs.affinity import within_training
from graftwork.workflows.runs.jobs.grouping import GroupingJob
from graftwork.workflows.runs.run_folder import RunFolder

AUTO = Plan(
    name="grouped",
    title="",
    role="joint",
    modalities=("table",),
    stages=(TrainStage(sharing=Component("graftwork.methods.sharing.grouped:Grouped", {"groups": "auto", "max_groups": 2})),),
    min_tasks=3,
)


def table(rows: int = 200, groups: bool = False) -> Suite:
    """Two tasks that are one, and one against both."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(rows, 4)).astype(np.float32)
    signal = x[:, :1] + x[:, 1:2]
    order = draw.permutation(rows)
    names = ("up", "also_up", "noise")
    targets = dict(zip(names, (signal, 2 * signal, draw.normal(size=(rows, 1)).astype(np.float32))))
    return Suite.of_arrays(
        name="three",
        input_specs=table_input(4),
        tasks=[TaskSpec(name=name, kind="regression", size=1) for name in names],
        inputs={"numeric": x, "categorical": np.zeros((rows, 0), dtype=np.int64)},
        targets=targets,
        splits={"train": np.sort(order[: rows // 2]), "val": np.sort(order[rows // 2 : -40]), "test": np.sort(order[-40:])},
        groups=(np.arange(rows) // 5) if groups else None,
    )


@pytest.mark.parametrize("groups", [False, True])
def test_measuring_sees_training_rows_only(groups: bool) -> None:
    suite = table(groups=groups)
    inner = within_training(suite, 3)
    train, val = set(inner.splits["train"].tolist()), set(inner.splits["val"].tolist())
    assert train | val == set(suite.splits["train"].tolist())
    assert not train & val
    assert 0.1 < len(val) / len(suite.splits["train"]) < 0.4
    assert inner.splits["test"].tolist() == inner.splits["val"].tolist()
    if groups:
        assert suite.groups is not None
        assert not set(suite.groups[sorted(train)].tolist()) & set(suite.groups[sorted(val)].tolist())


def measured(folder: Path, suite: Suite) -> dict[str, Any]:
    save_suite(suite, folder / "suite")
    plan = Plan(name="shared", title="", role="joint", modalities=("table",))
    job = GroupingJob(id="grouping", plan=plan, facts=RunFacts(cache=str(folder / "cache")), until=12, max_steps=12)
    return job.run(RunFolder(folder), JobControl())


def test_validation_and_test_targets_do_not_change_what_is_measured(tmp_path: Path) -> None:
    suite = table()
    spoiled = {}
    for name in suite.task_names:
        target = np.array(suite.targets[name])
        target[np.concatenate([suite.splits["val"], suite.splits["test"]])] = 1e3
        spoiled[name] = target
    first, second = measured(tmp_path / "a", suite), measured(tmp_path / "b", suite.with_targets(spoiled))
    assert first["affinity"] == second["affinity"]
    assert first["gradients"] == second["gradients"]
    assert first["status"] == "ok"
    assert first["gradients"]["stages"]


def test_a_suggestion_needs_affinities() -> None:
    assert suggest_grouping(None) is None
    gains = [[None, 4.0], [4.0, None]]
    affinity: dict[str, Any] = {
        "tasks": ["a", "b"],
        "value": gains,
        "low": [[None, 3.0], [3.0, None]],
        "high": [[None, 5.0], [5.0, None]],
    }
    affinity["measurements"] = 4
    controls = {"a": "transfer", "b": "transfer"}
    plain, doubted = (suggest_grouping(affinity, controls=controls, separate_is_chosen=chosen) for chosen in (False, True))
    assert plain is not None
    assert doubted is not None
    assert plain["groups"] == plain["advised"] == [["a", "b"]]
    assert doubted["advice"][1:] == plain["advice"]
    assert doubted["advice"][0].startswith("Separate models were chosen.")
    unchecked = suggest_grouping(affinity)
    assert unchecked is not None
    assert unchecked["advised"] is None
    assert suggest_grouping({"tasks": ["a"], "value": [[1.0]], "low": [[None]], "high": [[None]]}) is None
    assert needs_grouping(AUTO)
    assert not needs_grouping(Plan(name="x", title="", role="joint", modalities=("table",)))


def test_a_comparison_fills_the_groups_in_and_says_so(tmp_path: Path) -> None:
    found = compare(table(), plans=["none", AUTO.__class__.from_json({**AUTO.to_json(), "name": "mine"})], steps=8, seeds=1, workers=0,
                    backbone="none", out=tmp_path / "run")  # fmt: skip
    settings = found.result["plans"]["mine"]["plan"]["stages"][0]["sharing"]["settings"]
    assert sorted(task for group in settings["groups"] for task in group) == ["also_up", "noise", "up"]
    assert len(settings["groups"]) <= 2
    assert found.result["grouping"]["tasks"] == ["up", "also_up", "noise"]
    # A comparison makes no control, so it shows the groups and advises none.
    assert [sentence.partition(":")[0] for sentence in found.advice] == ["No grouping is advised"]
    assert any("were measured on training rows before, in 4 steps" in note for note in found.result["verdict"]["warnings"])
    page = found.report.read_text(encoding="utf-8")
    for word in (
        "plot-gradients",
        "plot-affinity",
        "Groups by the affinities alone, which no control bears out",
        "layer by layer",
    ):
        assert word in page


def test_groups_that_are_not_found_in_time_leave_the_plan_out() -> None:
    asked: list[float | None] = []

    def run_jobs(jobs: Any, *, past_deadline: bool, seconds: float | None) -> dict[str, Any]:
        asked.append(seconds)
        return {}  # ended before a first measurement

    context: Any = SimpleNamespace(
        settings=SimpleNamespace(steps=None),
        maker=SimpleNamespace(grouping=lambda plan, until: SimpleNamespace(id=plan.name)),
        run=SimpleNamespace(emit=lambda *_, **__: None),
        suite=table(),
        run_jobs=run_jobs,
    )
    plans, reasons, measured = resolve_groupings(context, [AUTO], seconds=3.0)
    assert asked == [3.0]
    assert reasons == {"grouped": "its groups could not be measured: there was no time; give more with --time-limit"}
    assert measured is None
    assert plans == [AUTO]
