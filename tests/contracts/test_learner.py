"""What every learner must do: the Learner seam. Learners are found through the plans; each runs on the first suite here that it
does not refuse."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discovery import found, plan_of

from graftwork.core.errors import CheckpointError, ConfigError, DataError
from graftwork.core.input_spec import image_input, table_input, text_input
from graftwork.core.optional import has
from graftwork.core.records import Component, Plan, TaskSpec
from graftwork.core.stages.merge import MergeStage
from graftwork.core.stages.train import TrainStage
from graftwork.data.splits import TIMES
from graftwork.data.suite import Suite
from graftwork.export.compose import needed_nodes
from graftwork.interfaces.learner import Learner, LearnerContext
from graftwork.training.stages import learner_of
from graftwork.workflows.fit.combined import blend_plan

LEARNERS = found(Learner)
TIES = "graftwork.methods.merging.ties:TiesMerger"
MERGED = "NeuralLearner, merged"
"""A plan of several stages has a learner of its own, which no plan names."""
BLENDED = "NeuralLearner, blended"
"""So has an average of plans, which a run makes for itself: here of two seeds."""
MIXED = "NeuralLearner, mixed"
"""And what takes one plan for each task: here the second seed for the first target, the first for the others."""
STEPS = 8


def suite_of(seed: int = 0, rows: int = 120) -> Suite:
    """A table with gaps, and tasks of four kinds that depend on its columns."""
    draw = np.random.default_rng(seed)
    numeric = draw.normal(size=(rows, 4)).astype(np.float32)
    hidden = numeric @ draw.normal(size=(4, 4))
    targets: dict[str, Any] = {
        "sign": (hidden[:, 0] > 0).astype(np.int64),
        "level": np.digitize(hidden[:, 1], [-1.0, 1.0]).astype(np.int64),
        "marks": (hidden[:, 2:4] > 0).astype(np.float32),
        "amount": (10.0 * hidden[:, :2] + 5.0).astype(np.float32),
    }
    targets["sign"][::9] = -1
    targets["amount"][4::11] = np.nan
    order = draw.permutation(rows)
    tasks = [
        TaskSpec(name="sign", kind="binary", size=1, classes=("no", "yes")),
        TaskSpec(name="level", kind="multiclass", size=3, classes=("a", "b", "c")),
        TaskSpec(name="marks", kind="multilabel", size=2, classes=("x", "y")),
        TaskSpec(name="amount", kind="regression", size=2),
    ]
    return Suite.of_arrays(
        name="contract",
        input_specs=table_input(4, [3]),
        tasks=tasks,
        inputs={"numeric": numeric, "categorical": draw.integers(0, 3, size=(rows, 1))},
        targets=targets,
        splits={"train": order[:70], "val": order[70:95], "test": order[95:]},
        groups=np.arange(rows),  # each row its own: folds are those of rows
        raw={TIMES: np.arange(rows, dtype=np.float64)},
    )


def text_suite_of(seed: int = 0, rows: int = 120) -> Suite:
    """The same tasks and columns, and texts of words that say how large the columns are."""
    table, draw = suite_of(seed, rows), np.random.default_rng(seed + 100)
    tokens = np.zeros((rows, 9), dtype=np.int64)
    tokens[:, :4] = 2 + 4 * np.arange(4) + np.digitize(table.inputs["numeric"], [-1.0, 0.0, 1.0])
    tokens[:, 4:8] = draw.integers(20, 25, size=(rows, 4))
    tokens[5] = 0  # a text without words
    arrays = {name: name for name in table.inputs}
    specs = {
        "table": replace(table.input_specs["table"], arrays=arrays),
        "text": replace(text_input(25, 9)["text"], arrays={"tokens": "tokens"}),
    }
    return replace(table, input_specs=specs, inputs={**table.inputs, "tokens": tokens})


def picture_suite_of(seed: int = 0, rows: int = 120) -> Suite:
    """The same tasks, and pictures whose quarters are as bright as the columns are large."""
    table, draw = suite_of(seed, rows), np.random.default_rng(seed + 200)
    light = np.clip(128.0 + 50.0 * table.inputs["numeric"], 0.0, 240.0).reshape(rows, 2, 2)
    pictures = light.repeat(6, axis=1).repeat(6, axis=2)[..., None] + draw.integers(0, 16, size=(rows, 12, 12, 3))
    return replace(table, input_specs=image_input(12), inputs={"image": pictures.astype(np.uint8)})


SUITES = {"table": suite_of(), "text": text_suite_of(), "picture": picture_suite_of()}


class Case:
    """A learner as a plan names it; neural plans with the portfolio's shared trunk."""

    def __init__(self, name: str, folder: Path) -> None:
        component = LEARNERS[name.partition(",")[0]]
        self.folder, plan = folder, plan_of(component.path)
        assert plan is not None
        if component.settings:
            plan = plan.with_train(learner=component)
        if name == MERGED:
            plan = replace(plan, role="joint", stages=(TrainStage(), MergeStage(merger=Component(TIES))))
        if plan.source == "pretrained":  # an untrained trunk will do
            plan = replace(plan, source="scratch")
        kind = "table" if plan.fits(["table"]) or "LinearProbe" in name else "picture" if "Pixels" in name else "text"
        self.make = {"table": suite_of, "text": text_suite_of, "picture": picture_suite_of}[kind]
        self.suite = SUITES[kind]
        if "Neural" in name:
            plan = plan.with_train(training={**plan.train.training, "batch_size": 16})
        self.plan: Plan = blended(plan, name) if name in (BLENDED, MIXED) else plan

    def build(self, suite: Suite | None = None, **fields: Any) -> Learner:
        context = LearnerContext(
            suite=suite or self.suite, plan=self.plan, cache=self.folder / "cache", **{"seed": 0, "max_steps": STEPS, **fields}
        )
        return learner_of(context)


def blended(plan: Plan, kind: str) -> Plan:
    """Two models of a plan: for the first target the second alone, for the others both, or the first alone."""
    others = (0.5, 0.5) if kind == BLENDED else (1.0, 0.0)
    members = [
        {
            "plan": plan.to_json(),
            "steps": STEPS,
            "seed": part,
            "weights": {
                name: share for name in SUITES["table"].task_names if (share := float(part) if name == "sign" else others[part])
            },
        }
        for part in range(2)
    ]
    return blend_plan("average", "An average", members, SUITES["table"].kinds)


@pytest.fixture(params=[*sorted(LEARNERS), MERGED, BLENDED, MIXED])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    for library in ("LightGBM", "CatBoost", "XGBoost"):
        if library in request.param and not has(library.lower()):
            pytest.skip(f"needs {library.lower()}")
    return Case(request.param, tmp_path)


def answers(learner: Learner, rows: Any = None) -> dict[str, Any]:
    return learner.predict(learner.context.suite.splits["test"] if rows is None else rows)


def assert_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert list(first) == list(second)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_the_known_learners_are_found() -> None:
    assert {"NeuralLearner", "LightGBMLearner"} <= set(LEARNERS)


def test_predictions_are_in_the_users_units(case: Case) -> None:
    learner = case.build()
    learner.train(STEPS)
    rows = case.suite.splits["test"]
    found = answers(learner)
    assert {name: values.shape for name, values in found.items()} == {
        "sign": (len(rows),),
        "level": (len(rows), 3),
        "marks": (len(rows), 2),
        "amount": (len(rows), 2),
    }
    assert all(bool(np.isfinite(values).all()) for values in found.values())
    np.testing.assert_allclose(found["level"].sum(axis=1), 1.0, atol=1e-5)
    for name in ("sign", "level", "marks"):
        assert found[name].min() >= 0
        assert found[name].max() <= 1


def test_asked_tasks_and_rows_give_what_all_give(case: Case) -> None:
    learner = case.build()
    learner.train(STEPS)
    rows, whole = case.suite.splits["test"], answers(learner)
    some = learner.predict(rows[::-1], ["amount", "sign"])
    assert set(some) == {"amount", "sign"}
    for name, values in some.items():
        np.testing.assert_allclose(values, whole[name][::-1], rtol=1e-5, atol=1e-5)
    none = learner.predict(rows[:0])
    assert {name: len(values) for name, values in none.items()} == dict.fromkeys(case.suite.task_names, 0)


def test_inputs_of_other_rows_take_the_place_of_the_suites(case: Case) -> None:
    learner = case.build()
    learner.train(STEPS)
    rows = case.suite.splits["test"]
    copied = {name: np.array(array[rows]) for name, array in case.suite.inputs.items()}
    found = learner.predict(np.arange(len(rows)), inputs=copied)
    for name, values in answers(learner).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


def test_equal_contexts_give_equal_bits_whatever_else_draws(case: Case) -> None:
    first, second = case.build(), case.build()
    first.train(STEPS)
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    second.train(STEPS)
    assert_equal(answers(first), answers(second))


def test_global_generators_are_left_alone(case: Case) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index, union-attr]
    learner = case.build()
    learner.train(STEPS)
    answers(learner)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]


def test_slices_with_a_file_between_them_change_nothing(case: Case, tmp_path: Path) -> None:
    whole, first, second = case.build(), case.build(), case.build()
    whole.train(STEPS)
    first.train(3)
    answers(first)  # a look in between is no step
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    assert second.step == first.step
    assert_equal(answers(first), answers(second))
    second.train(5)
    second.train(STEPS)
    assert second.step == whole.step
    assert_equal(answers(whole), answers(second))


def test_steps_are_counted_and_told(case: Case) -> None:
    learner, seen = case.build(), []
    assert learner.step == 0
    learner.train(4, on_progress=seen.append)
    assert 0 < learner.step <= 4
    assert seen == sorted(seen)
    assert seen[-1] == learner.step
    learner.train(2, on_progress=lambda step: pytest.fail("it is further already"))
    learner.train(STEPS)
    assert learner.step <= STEPS


def test_a_stop_from_outside_leaves_the_learner_whole(case: Case) -> None:
    class StopError(Exception):
        pass

    def stop(step: int) -> None:
        if step >= last:
            raise StopError

    whole, stopped = case.build(), case.build()
    whole.train(STEPS)
    last = min(3, whole.step)  # what is fitted in one go has one step
    with pytest.raises(StopError):
        stopped.train(STEPS, on_progress=stop)
    assert stopped.step == last
    stopped.train(STEPS)
    assert_equal(answers(whole), answers(stopped))


def test_data_are_read_and_never_written(case: Case) -> None:
    suite = case.make()
    for arrays in (suite.inputs, suite.targets, suite.splits):
        for array in arrays.values():
            array.setflags(write=False)
    before = suite.fingerprint()
    learner = case.build(suite)
    learner.train(STEPS)
    learner.predict(suite.splits["test"])
    assert suite.fingerprint() == before


def test_test_labels_are_never_looked_at(case: Case) -> None:
    hidden = case.make()
    for name, target in hidden.targets.items():
        target[hidden.splits["test"]] = -1 if np.issubdtype(target.dtype, np.integer) else np.nan
        assert name in hidden.task_names
    seen, blind = case.build(), case.build(hidden)
    seen.train(STEPS)
    blind.train(STEPS)
    assert_equal(answers(seen), answers(blind))


def _check_it_goes_on(learner: Learner, other: Learner, checkpoint: Path) -> None:
    other.load(checkpoint)
    for one in (learner, other):
        one.train(STEPS)
    assert_equal(answers(learner), answers(other))


@pytest.mark.parametrize("changed", [{"seed": 1}, {"suite": 1}, {"max_steps": STEPS + 1}])
def test_a_checkpoint_of_another_run_is_refused(case: Case, tmp_path: Path, changed: dict[str, Any]) -> None:
    learner = case.build()
    learner.train(2)
    learner.save(tmp_path / "checkpoint")
    ((name, value),) = changed.items()
    changed = {"suite": case.make(seed=value)} if name == "suite" else changed
    if name == "max_steps" and learner.ignores_horizon:
        _check_it_goes_on(learner, case.build(**changed), tmp_path / "checkpoint")
        return
    with pytest.raises(CheckpointError, match=f"written for another {name}"):
        case.build(**changed).load(tmp_path / "checkpoint")


def test_the_ledger_counts(case: Case) -> None:
    learner = case.build()
    learner.train(STEPS)
    ledger = learner.ledger()
    # a step of an average is one of each member
    assert ledger.steps == learner.step * (2 if case.plan.name == "average" else 1)
    assert ledger.samples > 0
    assert ledger.parameters_total >= ledger.parameters_trained > 0
    assert ledger.parameters_stored > 0
    assert ledger.wall_seconds > 0


def test_a_mixed_plan_answers_each_task_as_its_plan_does_alone(tmp_path: Path) -> None:
    case, alone = Case(MIXED, tmp_path), Case("NeuralLearner", tmp_path)
    learner = case.build()
    learner.train(STEPS)
    found = answers(learner)
    for seed, names in ((1, ["sign"]), (0, ["level", "marks", "amount"])):
        member = alone.build(seed=seed)
        member.train(STEPS)
        assert_equal({name: found[name] for name in names}, {name: answers(member)[name] for name in names})


@pytest.mark.parametrize("name", ["ExtraTreesLearner", "GaussianProcessLearner", "NeuralLearner", "NeuralLearner, shared"])
def test_what_a_task_has_for_itself_is_known(name: str, tmp_path: Path) -> None:
    case, trunk = Case(name.partition(",")[0], tmp_path), Component("graftwork.methods.sharing.shared_trunk:SharedTrunk")
    case.plan = case.plan.with_train(sharing=trunk) if "," in name else case.plan
    learner = case.build()
    learner.train(STEPS)
    own, whole = sum(costs.parameters_stored for costs in learner.own_costs().values()), learner.ledger().parameters_stored
    # A trunk for all, and heads; or a model for each task.
    assert 0 < own < 0.5 * whole if "," in name else own == whole


def test_the_exported_graph_gives_the_predictions(case: Case, tmp_path: Path) -> None:
    session_of = pytest.importorskip("onnxruntime").InferenceSession
    pytest.importorskip("onnx")
    learner = case.build()
    learner.train(STEPS)
    learner.export(tmp_path / "model")
    session = session_of(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    rows = case.suite.splits["test"]
    feed = {item.name: np.asarray(case.suite.inputs[item.name][rows]) for item in session.get_inputs()}
    assert {item.name for item in session.get_outputs()} >= set(case.suite.task_names)
    for name, values in answers(learner).items():
        (graph,) = session.run([name], feed)
        np.testing.assert_allclose(np.asarray(graph).reshape(values.shape), values, rtol=1e-3, atol=1e-4)
    check_own_costs(learner, tmp_path / "model" / "model.onnx")


def check_own_costs(learner: Learner, file: Path) -> None:
    """What a task has for itself is part of the whole, and a graph that does not answer the task leaves it out."""
    import onnx

    own, whole, graph = learner.own_costs(), learner.ledger(), onnx.load(str(file)).graph
    assert set(own) <= set(learner.context.suite.task_names)
    assert sum(costs.parameters_stored for costs in own.values()) <= whole.parameters_stored
    assert 0 <= whole.without(list(own.values())).flops_per_sample <= whole.flops_per_sample
    outputs = [item.name for item in graph.output]

    def size(wanted: list[str]) -> int:
        return sum(one.ByteSize() for part in needed_nodes(graph.node, graph.initializer, wanted) for one in part)

    for task, costs in own.items():
        spared = size(outputs) - size([name for name in outputs if name != task])
        assert costs.parameters_stored <= spared, task


def test_wrong_data_are_refused_by_name(case: Case) -> None:
    if "ConstantLearner" in case.plan.train.learner.path:
        pytest.skip("the same answer for every row can be given to any task")
    dense = TaskSpec(name="map", kind="multiclass", size=3, positions="pixels")
    rows = len(case.suite)
    suite = Suite(
        name="maps",
        input_specs=case.suite.input_specs,
        tasks=(dense,),
        inputs=case.suite.inputs,
        targets={"map": np.zeros((rows, 4, 4), dtype=np.int64)},
        splits=case.suite.splits,
    )
    with pytest.raises((ConfigError, DataError), match=r"map|position|vector|picture"):
        case.build(suite).train(1)
