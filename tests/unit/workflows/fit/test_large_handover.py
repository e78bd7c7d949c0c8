"""What is handed over where finals learned from a sample of the rows: models of all rows, if they can be made in time."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.fit import handover as module
from graftwork.workflows.fit import whole_models
from graftwork.workflows.fit.ensemble import chosen_again
from graftwork.workflows.fit.handover import handover
from graftwork.workflows.fit.whole_models import WholeModels
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.schedule import NO_SCHEDULE


def plan(name: str, **training: Any) -> Plan:
    return Plan(name=name, title=name, role="independent", modalities=("table",)).with_train(training=training)


PLANS = {"trees": plan("trees", max_steps=1000), "net": plan("net")}
WEIGHTS = {"trees": {"y": 0.7}, "net": {"y": 0.3}}


def context_of(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, dict[str, Any]], left: float | None
) -> tuple[Any, list[TrainJob]]:
    """Return a run whose finals took 4 s (trees, 475 rounds on 30,000 of 240,000 rows) and 7 s (net)."""
    asked: list[TrainJob] = []

    def run_jobs(jobs: list[TrainJob], **_: Any) -> dict[str, dict[str, Any]]:
        asked.extend(jobs)
        return {job.id: answers[job.plan.name] for job in jobs if job.plan.name in answers}

    schedule = dataclasses.replace(NO_SCHEDULE, horizons={"trees": 1000, "net": 600}, final_rows=30_000)
    results = {"final-trees-s0": {"seconds": 4.0, "steps": 475}, "final-net-s0": {"seconds": 7.0, "steps": 600}}
    estimates = {
        "trees": {"sees_all_rows": True, "seconds_per_step": 0.01},
        "net": {"sees_all_rows": False, "seconds_per_step": 0.01},
    }
    state: dict[str, Any] = {"estimates": estimates}
    run = SimpleNamespace(
        result=results.get, state=state, emit=lambda *_, **__: None, save=lambda **changes: state.update(changes)
    )
    context: Any = SimpleNamespace(
        plans=PLANS,
        schedule=schedule,
        maker=JobMaker(plans=PLANS, facts=RunFacts(cache="cache", race_rows=30_000), schedule=schedule),
        settings=SimpleNamespace(refit=True, single=False, num_workers=2, time_limit=None if left is None else 100.0),
        suite=SimpleNamespace(splits={"train": range(200_000), "val": range(20_000), "test": range(20_000)}, kinds=("table",)),
        run=run,
        run_jobs=run_jobs,
    )
    for one in (module, whole_models):
        monkeypatch.setattr(one, "seconds_for_all_rows", lambda _: None if left is None else left + whole_models.GRACE * 100.0)
    monkeypatch.setattr(module, "weights_chosen_again", lambda _, weights, __: weights)
    return context, asked


def finals(context: Any) -> dict[str, dict[int, TrainJob]]:
    return {name: {0: context.maker.final(name, 0)} for name in PLANS}


DONE = {"status": "ok", "steps": 900, "cut": False}


def test_models_are_made_of_all_rows_though_finals_saw_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    context, asked = context_of(monkeypatch, {"trees": DONE, "net": DONE}, 60.0)
    found = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    assert {job.id for job in found.trained} == {"whole-trees-1of1", "whole-net-1of1"}
    assert not any(job.rows for job in asked)
    trees, net = (next(job for job in asked if job.plan.name == name) for name in ("trees", "net"))
    # 32 s of trees on all rows are most of the work: they take both cores, and end in time to be judged.
    assert trees.threads == 2
    assert 0 < trees.seconds < 68.0
    assert (net.threads, net.seconds) == (1, 0.0)
    assert not found.note


@pytest.mark.parametrize(("steps", "taken"), [(300, True), (200, False)])
def test_boosted_trees_that_the_limit_ended_need_most_of_their_rounds(
    monkeypatch: pytest.MonkeyPatch, steps: int, taken: bool
) -> None:
    cut = {"status": "ok", "steps": steps, "cut": True}
    context, _ = context_of(monkeypatch, {"trees": cut, "net": DONE}, 60.0)
    found = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    assert ("whole-trees-1of1" in {job.id for job in found.trained}) is taken
    if taken:
        assert "`trees` after 300 steps" in found.note
    else:
        assert "could learn from all rows" in found.note


def test_trees_that_cannot_learn_from_all_rows_in_time_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 s of rounds on two cores: six tenths of them do not fit into 5 s and the little that the limit leaves beyond its end."""
    context, asked = context_of(monkeypatch, {"trees": DONE, "net": DONE}, 0.5)
    found = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    assert [job.plan.name for job in asked] == ["net"]
    assert {job.id for job in found.trained} == {"final-trees-s0", "whole-net-1of1"}
    assert "`trees` could learn from all rows" in found.note


def test_what_was_made_in_time_is_handed_over_however_late_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    context, asked = context_of(monkeypatch, {"trees": DONE, "net": DONE}, 60.0)
    first = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    for one in (module, whole_models):
        monkeypatch.setattr(one, "seconds_for_all_rows", lambda _: 0.0)
    names = [job.id for job in asked]
    again = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    assert [job.id for job in asked] == 2 * names
    assert again.facts() == first.facts()
    other, begun = context_of(monkeypatch, {"trees": DONE, "net": DONE}, 60.0)
    for one in (module, whole_models):
        monkeypatch.setattr(one, "seconds_for_all_rows", lambda _: 0.0)
    assert handover(other, "ensemble", "both", WEIGHTS, finals(other)).parts == 0, "models of the race"
    assert not begun, "nothing begins after the end"


def test_a_network_that_the_limit_ended_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = {"status": "ok", "steps": 590, "cut": True}
    context, _ = context_of(monkeypatch, {"trees": DONE, "net": cut}, 60.0)
    found = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    assert {job.id for job in found.trained} == {"whole-trees-1of1", "final-net-s0"}


def test_without_a_limit_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    context, asked = context_of(monkeypatch, {"trees": DONE, "net": DONE}, None)
    handover(context, "ensemble", "both", WEIGHTS, finals(context))
    assert {(job.threads, job.seconds) for job in asked} == {(1, 0.0)}


@pytest.mark.parametrize(
    ("made", "taken", "note"),
    [
        ({"trees": [0, 1, 2], "net": [0, 1]}, {"trees": [0, 1], "net": [0, 1]}, "2 of `trees` and 2 of `net` were finished"),
        ({"trees": [0, 1, 2], "net": [0]}, {"trees": [0, 1, 2]}, "`net` could learn from all rows"),
        ({"trees": [0, 1], "net": [1, 2]}, {"trees": [0, 1], "net": [1, 2]}, "2 of `trees` and 2 of `net` were finished"),
        ({"trees": [0], "net": [0]}, {}, "the model is one of the race"),
    ],
)
def test_one_part_alone_has_not_seen_all_rows(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, list[int]], taken: dict[str, list[int]], note: str
) -> None:
    context, _ = context_of(monkeypatch, {}, 60.0)
    monkeypatch.setattr(module, "see_a_part", lambda *_: False)
    monkeypatch.setattr(module, "whole_models", lambda *_: WholeModels(members=3, parts=3))
    context.run_jobs = lambda jobs, **_: {job.id: DONE for job in jobs if job.seed in made[job.plan.name]}
    found = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    whole = {f"whole-{name}-{part + 1}of3" for name, parts in taken.items() for part in parts}
    assert {job.id for job in found.trained} == whole | {f"final-{name}-s0" for name in WEIGHTS if name not in taken}
    assert set(found.whole) == set(taken)
    assert note in found.note


def test_weights_are_chosen_again_where_members_gain_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees of all rows were averaged with networks by weights from trees of a sample, and were better alone."""
    context, _ = context_of(monkeypatch, {"trees": DONE, "net": DONE}, 60.0)
    monkeypatch.setattr(module, "weights_chosen_again", lambda *_: {"trees": {"y": 1.0}})
    found = handover(context, "ensemble", "both", WEIGHTS, finals(context))
    assert [job.id for job in found.trained] == ["whole-trees-1of1"]
    assert found.weights == {"trees": {"y": 1.0}}


def test_weights_follow_the_errors_of_these_models() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(400, 1)).astype(np.float32)
    suite = Suite.of_arrays(
        name="rows",
        input_specs=table_input(1),
        tasks=(TaskSpec(name="y", kind="regression", size=1), TaskSpec(name="z", kind="regression", size=1)),
        inputs={"numeric": truth},
        targets={"y": truth, "z": truth},
        splits={"train": np.arange(100), "val": np.arange(100, 400), "test": np.arange(0)},
    )
    rows = suite.splits["val"]
    near, far = (truth[rows] + scale * rng.normal(size=(300, 1)).astype(np.float32) for scale in (0.01, 1.0))
    answers = {"a": {"y": near, "z": near}, "b": {"y": far, "z": near}}
    found = chosen_again(suite, rows, answers, {"a": {"y": 0.4, "z": 0.5}, "b": {"y": 0.6, "z": 0.5}})
    assert found["a"]["y"] == 1.0
    assert "y" not in found.get("b", {})
    assert sum(one.get("z", 0.0) for one in found.values()) == pytest.approx(1.0)


def test_a_task_without_labels_in_these_rows_keeps_its_weights() -> None:
    truth = np.arange(20, dtype=np.float32)[:, None]
    unlabelled = np.where(np.arange(20)[:, None] < 10, truth, np.nan)
    suite = Suite.of_arrays(
        name="rows",
        input_specs=table_input(1),
        tasks=(TaskSpec(name="y", kind="regression", size=1), TaskSpec(name="z", kind="regression", size=1)),
        inputs={"numeric": truth},
        targets={"y": truth, "z": unlabelled.astype(np.float32)},
        splits={"train": np.arange(10), "val": np.arange(10, 20), "test": np.arange(0)},
    )
    rows = suite.splits["val"]
    answers = {"a": {"y": truth[rows], "z": truth[rows]}, "b": {"y": truth[rows] + 5, "z": truth[rows]}}
    found = chosen_again(suite, rows, answers, {"a": {"y": 0.4, "z": 0.3}, "b": {"y": 0.6, "z": 0.7}})
    assert (found["a"]["z"], found["b"]["z"]) == (0.3, 0.7)
    assert found["a"]["y"] == 1.0
