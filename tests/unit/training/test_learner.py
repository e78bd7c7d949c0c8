from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SHARING, assert_equal_weights, small_learner, small_plan, small_suite, weights_of

from graftwork.core.errors import CheckpointError, ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import Component
from graftwork.data.suite import Suite
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.training.assembly import ComposedModel, FeatureInput
from graftwork.training.learner import NeuralLearner
from graftwork.training.model_loading import load_model

SUITE = small_suite()
FROZEN = Component("graftwork.methods.tuning.frozen:Frozen")


def same_predictions(first: NeuralLearner, second: NeuralLearner, suite: Suite = SUITE) -> bool:
    mine, theirs = first.predict(suite.splits["test"]), second.predict(suite.splits["test"])
    return all(np.array_equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_resumed_slices_equal_one_run(tmp_path: Path, sharing: str) -> None:
    whole = small_learner(SUITE, tmp_path, small_plan(sharing))
    whole.train(40)
    first = small_learner(SUITE, tmp_path, small_plan(sharing))
    first.train(17)
    first.save(tmp_path / "checkpoint")
    second = small_learner(SUITE, tmp_path, small_plan(sharing))
    second.load(tmp_path / "checkpoint")
    assert same_predictions(first, second)
    second.train(23)
    second.train(40)
    assert second.validation == whole.validation
    assert_equal_weights(weights_of(whole.model), weights_of(second.model))
    assert_equal_weights(weights_of(whole.best_model), weights_of(second.best_model))
    assert same_predictions(whole, second)


def test_a_stop_right_before_a_validation_does_not_lose_it(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop_at_10(step: int) -> None:
        if step == 10:
            raise StopError

    whole = small_learner(SUITE, tmp_path)
    whole.train(20)
    assert 10 in [step for step, _ in whole.validation]
    stopped = small_learner(SUITE, tmp_path)
    with pytest.raises(StopError):
        stopped.train(20, on_progress=stop_at_10)
    assert stopped.step == 10
    stopped.save(tmp_path / "checkpoint")
    resumed = small_learner(SUITE, tmp_path)
    resumed.load(tmp_path / "checkpoint")
    resumed.train(20)
    assert resumed.validation == whole.validation


def test_the_best_weights_predict(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise = {name: random.permutation(SUITE.targets[name]) for name in ("sign", "level")}  # can be learned by heart only
    suite = SUITE.with_targets(noise).with_tasks(("sign", "level"))
    learner = small_learner(suite, tmp_path, overrides={"learning_rate": 0.02, "schedule": "constant", "ema_decay": 0.0})
    kept: list[tuple[float, dict[str, torch.Tensor]]] = []
    for step, losses in _validations(learner):
        kept.append((sum(losses.values()) / len(losses), weights_of(learner.model)))
        assert step == learner.step
    best = min(kept, key=lambda item: item[0])
    assert_equal_weights(weights_of(learner.best_model), best[1])
    assert best[0] < kept[-1][0], "the example should get worse in the end, or it shows nothing"


def _validations(learner: NeuralLearner) -> Any:
    for step in range(1, learner.context.max_steps + 1):
        learner.train(step)
        if learner.validation and learner.validation[-1][0] == step:
            yield learner.validation[-1]


def test_validation_scores_are_relative_to_a_constant(tmp_path: Path) -> None:
    learner = small_learner(SUITE, tmp_path, max_steps=200)
    learner.train(200)
    losses = dict(learner.validation)[200]
    assert set(losses) == set(SUITE.task_names)
    assert all(0.0 < loss < 0.8 for loss in losses.values())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"max_steps": 41}, "max_steps"),
        ({"overrides": {"batch_size": 8}}, "overrides"),
        ({"backbone": "x"}, "backbone"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    small_learner(SUITE, tmp_path).save(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=f"was written for another {named}"):
        small_learner(SUITE, tmp_path, **change).load(tmp_path / "checkpoint")


def test_a_checkpoint_of_another_suite_or_plan_is_refused(tmp_path: Path) -> None:
    small_learner(SUITE, tmp_path).save(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="was written for another suite. Run without --resume"):
        small_learner(small_suite(seed=1), tmp_path).load(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="was written for another plan"):
        small_learner(SUITE, tmp_path, small_plan("mmoe")).load(tmp_path / "checkpoint")


def test_predictions_have_the_shapes_of_the_seam(tmp_path: Path) -> None:
    learner = small_learner(SUITE, tmp_path)
    learner.train(3)
    rows = SUITE.splits["test"]
    found = learner.predict(rows)
    assert {name: values.shape for name, values in found.items()} == {"sign": (40,), "level": (40, 4), "amount": (40, 2)}
    assert list(learner.predict(rows, ["amount"])) == ["amount"]
    assert {name: values.shape for name, values in learner.predict(rows[:0]).items()} == {
        "sign": (0,),
        "level": (0, 4),
        "amount": (0, 2),
    }
    again = learner.predict(rows[::-1], inputs=SUITE.inputs)
    np.testing.assert_allclose(again["amount"][::-1], found["amount"], rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="`inputs` lacks categorical; got numeric"):
        learner.predict(rows, inputs={"numeric": SUITE.inputs["numeric"]})


def test_the_ledger_counts_what_was_spent(tmp_path: Path) -> None:
    learner = small_learner(SUITE, tmp_path)
    learner.train(6)
    first = learner.ledger()
    total = sum(parameter.numel() for parameter in learner.model.parameters())
    assert (first.parameters_total, first.parameters_trained, first.parameters_stored) == (total, total, total)
    assert (first.steps, first.samples) == (6, 96)
    assert min(first.wall_seconds, first.cpu_seconds, first.flops_per_sample, first.latency_ms_batch1) > 0
    assert min(first.peak_rss_bytes, first.activation_bytes) > 0
    learner.save(tmp_path / "checkpoint")
    other = small_learner(SUITE, tmp_path)
    other.load(tmp_path / "checkpoint")
    other.train(8)
    assert other.ledger().wall_seconds > first.wall_seconds
    assert other.ledger().activation_bytes == first.activation_bytes


@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_fixed_features_are_computed_once_and_deployed_whole(tmp_path: Path, sharing: str) -> None:
    learner = small_learner(SUITE, tmp_path, small_plan(sharing, tuning=FROZEN))
    assert any((tmp_path / "features").iterdir())
    assert not any(isinstance(module, TableBackbone) for module in learner.model.modules())
    assert any(isinstance(module, FeatureInput) for module in learner.model.modules())
    learner.train(40)
    ledger = learner.ledger()
    backbone = sum(p.numel() for p in TableBackbone(4, [3]).parameters())
    assert ledger.parameters_total == ledger.parameters_trained + backbone
    rows = SUITE.splits["test"]
    stored, computed = learner.predict(rows), learner.predict(rows, inputs=SUITE.inputs)
    for name, values in stored.items():
        np.testing.assert_allclose(values, computed[name], rtol=1e-4, atol=1e-4)
    learner.export(tmp_path / "model")
    model, tasks, config = load_model(tmp_path / "model")
    assert isinstance(model, ComposedModel)
    assert config["stored_features"]
    assert config["outputs"] == {task.name: task.name for task in tasks}
    assert (tmp_path / "model" / "model.onnx").is_file()


def test_pictures_that_change_in_training_are_not_stored(tmp_path: Path) -> None:
    """Stored features would hide the augmentation."""
    random = np.random.default_rng(0)
    suite = replace(
        SUITE,
        inputs={"image": random.integers(0, 256, size=(160, 16, 16, 3)).astype(np.uint8)},
        input_specs=image_input(16),
    )
    plan = small_plan(tuning=FROZEN, modalities=("image",), training={"batch_size": 16, "augment": "shift"})
    learner = small_learner(suite, tmp_path, plan)
    assert not (tmp_path / "features").exists()
    before = weights_of(learner.model)
    learner.train(4)
    after = weights_of(learner.model)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"heads"}


def test_an_exported_model_computes_the_same(tmp_path: Path) -> None:
    learner = small_learner(SUITE, tmp_path, small_plan("mmoe"))
    learner.train(10)
    learner.export(tmp_path / "model")
    model, tasks, config = load_model(tmp_path / "model")
    assert isinstance(model, SharedModel)
    assert tasks == SUITE.tasks
    assert config["inputs"]["numeric"] == {"dtype": "float32", "shape": [4]}
    assert config["onnx_difference"] <= 1e-4
    assert_equal_weights(weights_of(model), weights_of(learner.best_model))
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    rows = SUITE.splits["test"]
    outputs = session.run(list(SUITE.task_names), {name: array[rows] for name, array in SUITE.inputs.items()})
    expected = learner.predict(rows)
    for name, values in zip(SUITE.task_names, outputs, strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-3)


def test_tasks_without_validation_labels_do_not_vote(tmp_path: Path) -> None:
    sign = SUITE.targets["sign"].copy()
    sign[SUITE.splits["val"]] = -1
    learner = small_learner(SUITE.with_targets({"sign": sign}), tmp_path)
    learner.train(40)
    assert {tuple(losses) for _, losses in learner.validation} == {("level", "amount")}


def test_without_validation_rows_the_last_weights_predict(tmp_path: Path) -> None:
    suite = SUITE.with_splits({**SUITE.splits, "val": SUITE.splits["val"][:0]})
    learner = small_learner(suite, tmp_path)
    learner.train(40)
    assert learner.validation == []
    assert learner.best_model is learner.trainer.eval_model()


def test_settings_of_plan_and_user_meet_the_defaults(tmp_path: Path) -> None:
    learner = small_learner(SUITE, tmp_path, overrides={"batch_size": 8})
    assert (learner.config.batch_size, learner.config.ema_decay, learner.config.max_steps) == (8, 0.99, 40)
    assert learner.steps_per_epoch == 10
    with pytest.raises(ConfigError, match="unknown training setting 'batchsize'. Did you mean 'batch_size'"):
        small_learner(SUITE, tmp_path, overrides={"batchsize": 8})
    with pytest.raises(ConfigError, match="augment='flip' needs pictures"):
        small_learner(SUITE, tmp_path, overrides={"augment": "flip"})


def test_a_pretrained_plan_needs_a_backbone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Plan 'shared' starts from a pretrained backbone; name one with --backbone"):
        small_learner(SUITE, tmp_path, small_plan(source="pretrained"))
    with pytest.raises(ConfigError, match="source must be 'scratch' or 'pretrained'; got 'moon'"):
        small_learner(SUITE, tmp_path, small_plan(source="moon"))


def test_the_mixing_policy_of_the_suite_is_followed_and_can_be_overridden(tmp_path: Path) -> None:
    asked = replace(SUITE, raw={"mixing": "uniform"})
    assert small_learner(asked, tmp_path).config.mixing == "uniform"
    assert small_learner(asked, tmp_path, overrides={"mixing": 2.0}).config.mixing == 2.0
    assert small_learner(SUITE, tmp_path).config.mixing == "proportional"


def test_without_any_validation_label_the_last_weights_predict(tmp_path: Path) -> None:
    rows = SUITE.splits["val"]
    targets = {name: target.copy() for name, target in SUITE.targets.items()}
    for target in targets.values():
        target[rows] = -1 if target.dtype == np.int64 else np.nan
    learner = small_learner(SUITE.with_targets(targets), tmp_path)
    learner.train(40)
    assert [losses for _, losses in learner.validation] == [{}] * len(learner.validation)
    assert len(learner.validation) > 1
    assert_equal_weights(weights_of(learner.best_model), weights_of(learner.trainer.eval_model()))


def _noise_learner(cache: Path, **settings: Any) -> NeuralLearner:
    """A learner whose labels can be learned by heart only: validations soon become worse."""
    random = np.random.default_rng(0)
    noise = {name: random.permutation(SUITE.targets[name]) for name in ("sign", "level")}
    suite = SUITE.with_targets(noise).with_tasks(("sign", "level"))
    common = {"learning_rate": 0.02, "schedule": "constant", "ema_decay": 0.0, "evaluations": 40}
    return small_learner(suite, cache, max_steps=800, overrides={**common, **settings})


def test_training_stops_where_validations_no_longer_become_better(tmp_path: Path) -> None:
    patient, endless = _noise_learner(tmp_path, patience=0.1), _noise_learner(tmp_path)
    patient.train(800)
    endless.train(800)
    assert patient.is_converged
    assert not endless.is_converged
    assert 100 <= patient.step < endless.step == 800
    assert not patient.still_improving
    best = min(np.mean(list(losses.values())) for _, losses in patient.validation)
    assert any(np.mean(list(losses.values())) == best and step < patient.step for step, losses in patient.validation)
    patient.save(tmp_path / "checkpoint")
    resumed = _noise_learner(tmp_path, patience=0.1)
    resumed.load(tmp_path / "checkpoint")
    resumed.train(800)
    assert resumed.step == patient.step, "a training that has ended does not go on"


def test_settings_of_the_workflow_are_weaker_than_those_of_the_plan(tmp_path: Path) -> None:
    learner = small_learner(SUITE, tmp_path)
    context = replace(learner.context, defaults={"patience": 0.5, "batch_size": 7}, overrides={"patience": 0.25})
    plan = context.plan.with_train(training={"batch_size": 9})
    found = NeuralLearner(replace(context, plan=plan)).config
    assert (found.patience, found.batch_size) == (0.25, 9)
    assert NeuralLearner(replace(context, overrides={})).config.patience == 0.5
    assert "defaults" not in learner.context.identity()
    assert "defaults" in context.identity()


@pytest.mark.parametrize(("evaluations", "points"), [(8, 8), (40, 40), (11, 8), (6, 6)])
def test_many_validations_fall_on_quarters_of_the_horizon(tmp_path: Path, evaluations: int, points: int) -> None:
    learner = small_learner(SUITE, tmp_path, max_steps=400, overrides={"evaluations": evaluations})
    assert len(learner._points) == points
    assert evaluations == 6 or {100, 200, 400} <= set(learner._points)
