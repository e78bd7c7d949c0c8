"""The merge stage against a slow, written-out reference: single-task learners from one start, merged outside of the learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graftwork.core.errors import CheckpointError, ConfigError
from graftwork.core.files import read_json
from graftwork.core.records import Component, Plan
from graftwork.core.stages.merge import MergeStage
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite
from graftwork.data.suites.generated import conflicting_tasks
from graftwork.interfaces.learner import LearnerContext
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.ties import TiesConfig, TiesMerger
from graftwork.training.learner import NeuralLearner
from graftwork.training.model_loading import load_model
from graftwork.training.stages import learner_of
from graftwork.training.stages.merge import MergeLearner

SUITE = conflicting_tasks(rows=160, seed=3)
STEPS = 16
TIES = Component("graftwork.methods.merging.ties:TiesMerger", {"density": 0.4})
TRAIN = TrainStage(training={"batch_size": 32, "evaluations": 4})


def plan_of(merge: MergeStage | None, train: TrainStage = TRAIN, **fields: Any) -> Plan:
    stages = (train,) if merge is None else (train, merge)
    return Plan(name="merged", title="", role="joint", modalities=("table",), stages=stages, **fields)


def context_of(plan: Plan, folder: Path, suite: Suite = SUITE, **fields: Any) -> LearnerContext:
    return LearnerContext(suite=suite, plan=plan, **{"seed": 5, "max_steps": STEPS, "cache": folder, **fields})


def merged(folder: Path, merge: MergeStage, train: TrainStage = TRAIN, **fields: Any) -> MergeLearner:
    learner = learner_of(context_of(plan_of(merge, train), folder, **fields))
    assert isinstance(learner, MergeLearner)
    return learner


def single(task: str, folder: Path, start: Mapping[str, torch.Tensor]) -> NeuralLearner:
    """One task by itself, without any merge stage."""
    learner = learner_of(context_of(plan_of(None), folder, SUITE.with_tasks((task,)), start=start))
    assert isinstance(learner, NeuralLearner)
    return learner


def weights(model: torch.nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("rule", ["ties", "averaging"])
def test_it_is_what_single_task_trainings_and_a_merge_by_hand_give(rule: str, tmp_path: Path) -> None:
    stage = MergeStage(merger=TIES) if rule == "ties" else MergeStage()
    learner = merged(tmp_path, stage)
    start = weights(learner_of(context_of(plan_of(None), tmp_path)).model)  # type: ignore[attr-defined]
    trunk = {name: values for name, values in start.items() if name.startswith("backbone.")}
    learner.train(STEPS)
    experts = []
    for task in SUITE.task_names:
        expert = single(task, tmp_path, {name: torch.from_numpy(values) for name, values in trunk.items()})
        expert.train(STEPS)
        experts.append(weights(expert.best_model))
    merger = TiesMerger(TiesConfig(density=0.4)) if rule == "ties" else AveragingMerger()
    expected = merge_arrays(trunk, [{name: expert[name] for name in trunk} for expert in experts], merger)
    found = weights(learner.best_model)
    for name in trunk:
        np.testing.assert_array_equal(found[name], expected[name].astype(np.float32))
        assert not np.array_equal(found[name], start[name]), "it learned"
    for number, expert in enumerate(experts):
        heads = [name for name in expert if name.startswith("heads.0.")]
        assert heads
        for name in heads:
            np.testing.assert_array_equal(found[name.replace("heads.0.", f"heads.{number}.")], expert[name])


def test_one_task_is_trained_as_without_merging(tmp_path: Path) -> None:
    suite = SUITE.with_tasks(SUITE.task_names[:1])
    learner, plain = merged(tmp_path, MergeStage(), suite=suite), learner_of(context_of(plan_of(None), tmp_path, suite))
    for one in (learner, plain):
        one.train(STEPS)
    rows = suite.splits["test"]
    name = suite.task_names[0]
    np.testing.assert_array_equal(learner.predict(rows)[name], plain.predict(rows)[name])


def test_tasks_of_a_group_are_trained_together(tmp_path: Path) -> None:
    first, *others = SUITE.task_names
    learner = merged(tmp_path, MergeStage(groups=((first,), tuple(others))))
    learner.train(4)
    assert [one.suite.task_names for one in learner.learners] == [(first,), tuple(others)]
    assert set(learner.predict(SUITE.splits["test"])) == set(SUITE.task_names)
    whole = merged(tmp_path, MergeStage(groups=(SUITE.task_names,)))
    plain = learner_of(context_of(plan_of(None), tmp_path))
    for one in (whole, plain):
        one.train(STEPS)
    rows = SUITE.splits["test"]
    for name, values in plain.predict(rows).items():
        np.testing.assert_array_equal(whole.predict(rows)[name], values)


def test_a_cut_finds_all_groups_equally_far_and_rungs_are_merged_models(tmp_path: Path) -> None:
    class CutError(Exception):
        pass

    seen: list[int] = []

    def cut(step: int) -> None:
        seen.append(step)
        if step >= 6:
            raise CutError

    learner = merged(tmp_path, MergeStage())
    with pytest.raises(CutError):
        learner.train(STEPS, on_progress=cut)
    assert seen == sorted(seen)
    assert {one.step for one in learner.learners} == {6} == {learner.step}
    early = weights(learner.best_model)
    learner.train(8)
    late = weights(learner.best_model)
    name = next(name for name in early if name.startswith("backbone.") and early[name].ndim == 2)
    assert not np.array_equal(early[name], late[name]), "an answer in between is merged anew later"


def test_costs_of_all_groups_count(tmp_path: Path) -> None:
    learner = merged(tmp_path, MergeStage(merger=TIES))
    learner.train(4)
    ledger, one = learner.ledger(), learner.learners[0].ledger()
    assert ledger.steps == 4
    assert ledger.samples == one.samples == 4 * 32
    assert ledger.parameters_stored < ledger.parameters_trained == ledger.parameters_total
    assert ledger.parameters_stored == sum(values.size for values in weights(learner.best_model).values())
    assert ledger.wall_seconds > sum(each.training_ledger().wall_seconds for each in learner.learners)


def test_checkpoints_hold_all_groups(tmp_path: Path) -> None:
    whole, first, second = (merged(tmp_path, MergeStage(merger=TIES)) for _ in range(3))
    whole.train(STEPS)
    first.train(5)
    first.ledger()
    first.save(tmp_path / "checkpoint")
    second.load(tmp_path / "checkpoint")
    spent = [[group.training_ledger().wall_seconds for group in one.learners] for one in (first, second)]
    assert spent[0] == spent[1]
    second.save(tmp_path / "again")
    saved = [read_json(tmp_path / name / "merge.json") for name in ("checkpoint", "again")]
    assert saved[0] == saved[1]
    assert saved[0]["costs"]["wall_seconds"] > 0
    second.train(STEPS)
    for name, values in weights(whole.best_model).items():
        np.testing.assert_array_equal(values, weights(second.best_model)[name])
    (tmp_path / "checkpoint" / "merge.json").unlink()
    with pytest.raises(CheckpointError, match=r"merge\.json"):
        merged(tmp_path, MergeStage(merger=TIES)).load(tmp_path / "checkpoint")


def test_the_exported_model_is_the_merged_one(tmp_path: Path) -> None:
    learner = merged(tmp_path, MergeStage(merger=TIES))
    learner.train(STEPS)
    learner.export(tmp_path / "model")
    model, _, config = load_model(tmp_path / "model")
    assert (config["step"], config["plan"]["stages"][1]["merger"]) == (STEPS, TIES.to_json())
    for name, values in weights(learner.best_model).items():
        np.testing.assert_array_equal(values, weights(model)[name])


class Probe(ModelMerger):
    """Takes the last expert; looks at everything it is handed."""

    seen: dict[str, Any] = {}

    def merge(self, base: MergeModel | None, experts: Sequence[MergeModel], context: MergeContext) -> Mapping[str, Any]:
        assert base is not None
        batch = next(context.batches("train", 8))
        outputs = [set(expert.build()(batch.inputs)) for expert in experts]
        Probe.seen = {"names": [expert.name for expert in experts], "rows": sorted(context.rows), "outputs": outputs}
        context.count("steps", 3)
        return {name: np.asarray(values) for name, values in experts[-1].tensors.items()}


def test_whole_models_and_rows_reach_mergers_that_need_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.core.components import components_allowed

    with components_allowed(__name__.partition(".")[0]):
        learner = merged(tmp_path, MergeStage(model_merger=Component(f"{__name__}:Probe")))
        learner.train(4)
        learner.predict(SUITE.splits["test"])
        assert Probe.seen["names"] == list(SUITE.task_names)
        assert Probe.seen["rows"] == ["train", "val"], "test rows are never among them"
        assert Probe.seen["outputs"] == [{name} for name in SUITE.task_names]
        ledger = learner.ledger()
    assert (ledger.steps, ledger.samples) == (4 + 3, 4 * 32 + 8)
    last = weights(learner.learners[-1].best_model)
    found = weights(learner.best_model)
    assert all(np.array_equal(found[name], last[name]) for name in found if name.startswith("backbone."))


@pytest.mark.parametrize(
    ("stage", "train", "message"),
    [
        (MergeStage(groups=(("no such task",),)), TRAIN, "must hold every task once; they hold no such task"),
        (
            MergeStage(),
            TrainStage(learner=Component("graftwork.domains.tabular.lightgbm:LightGBMLearner")),
            "LightGBMLearner has no weights that could be merged",
        ),
        (MergeStage(), TrainStage(sharing=Component("graftwork.methods.sharing.separate:Separate")), "there is nothing to merge"),
        (
            MergeStage(),
            TrainStage(tuning=Component("graftwork.methods.tuning.lora:LoRA")),
            "merged factors are not merged weights",
        ),
    ],
)
def test_what_cannot_be_merged_is_said(stage: MergeStage, train: TrainStage, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        merged(tmp_path, stage, train)


def test_a_start_that_does_not_fit_is_said(tmp_path: Path) -> None:
    name = next(iter(learner_of(context_of(plan_of(None), tmp_path)).model.state_dict()))  # type: ignore[attr-defined]
    for start, message in (({"trunk": torch.zeros(2)}, "there is none"), ({name: torch.zeros(1)}, "it is")):
        with pytest.raises(ConfigError, match=rf"cannot begin from tensor .*: {message}"):
            learner_of(replace(context_of(plan_of(None), tmp_path), start=start))
