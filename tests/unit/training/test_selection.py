from __future__ import annotations

import torch
from small_runs import assert_equal_weights, small_model, small_suite, weights_of
from torch import nn

from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.training.assembly import FeatureInput
from graftwork.training.selection import BestWeights, last_improvement, still_improves, tensors_by_task

SUITE = small_suite()


def shift(model: nn.Module, amount: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(amount)


def test_a_shared_model_keeps_the_moment_with_the_lowest_mean() -> None:
    model = small_model(SUITE)
    best = BestWeights(model)
    assert not best.is_filled
    best.offer(model, {"sign": 1.0, "level": 1.0, "amount": 1.0})
    shift(model, 1.0)
    best.offer(model, {"sign": 0.1, "level": 1.0, "amount": 1.0})
    wanted = weights_of(model)
    shift(model, 1.0)
    best.offer(model, {"sign": 0.9, "level": 0.9, "amount": 0.9})
    assert_equal_weights(weights_of(best.model), wanted)


def test_separate_models_keep_their_own_best_moments() -> None:
    model = small_model(SUITE, "separate")
    best = BestWeights(model)
    moments = []
    for losses in ((1.0, 1.0, 1.0), (0.5, 2.0, 1.5), (0.7, 0.7, float("nan"))):
        best.offer(model, dict(zip(SUITE.task_names, losses, strict=True)))
        moments.append(weights_of(model))
        shift(model, 1.0)
    kept = weights_of(best.model)
    groups = tensors_by_task(model)
    assert sorted(name for names in groups.values() for name in names) == sorted(kept)
    for task, moment in (("sign", 1), ("level", 2), ("amount", 0)):
        assert all(torch.equal(kept[name], moments[moment][name]) for name in groups[task])


def test_nan_is_never_the_best() -> None:
    model = small_model(SUITE)
    best = BestWeights(model)
    best.offer(model, {"sign": float("nan")})
    assert not best.is_filled
    best.offer(model, {"sign": 3.0})
    assert best.is_filled


def test_models_that_share_have_no_tensors_by_task() -> None:
    assert tensors_by_task(small_model(SUITE, "mmoe")) == {}


def test_heads_on_fixed_features_are_chosen_one_by_one() -> None:
    tasks = SUITE.tasks
    model = SharedTrunk(tasks, lambda: FeatureInput(5), inputs={})
    assert {task: len(names) for task, names in tensors_by_task(model).items()} == {"sign": 6, "level": 6, "amount": 6}
    frozen = small_model(SUITE)
    assert tensors_by_task(frozen) == {}
    for parameter in frozen.shared_parameters():
        parameter.requires_grad_(False)
    assert set(tensors_by_task(frozen)) == set(SUITE.task_names)


def test_buffers_belong_to_the_model_around_them() -> None:
    model = small_model(SUITE, "separate")
    model.backbones[1].trunk.norm = nn.BatchNorm1d(16)  # type: ignore[union-attr, index]
    groups = tensors_by_task(model)
    assert "backbones.1.trunk.norm.running_mean" in groups["level"]
    assert not any("running_mean" in name for name in groups["sign"] + groups["amount"])


def test_a_state_goes_in_and_out() -> None:
    model = small_model(SUITE)
    best, other = BestWeights(model), BestWeights(small_model(SUITE, seed=1))
    assert best.state_dict() == {}
    best.offer(model, {"sign": 0.5})
    other.load_state_dict(best.state_dict())
    assert_equal_weights(weights_of(best.model), weights_of(other.model))
    shift(model, 1.0)
    other.offer(model, {"sign": 0.6})
    assert_equal_weights(weights_of(best.model), weights_of(other.model))


def test_without_any_loss_nothing_is_kept() -> None:
    model = small_model(SUITE)
    best = BestWeights(model)
    best.offer(model, {})
    assert not best.is_filled
    best.offer(model, {"sign": 3.0})
    wanted = weights_of(model)
    shift(model, 1.0)
    best.offer(model, {})
    assert_equal_weights(weights_of(best.model), wanted)


def history(*means: float) -> list[tuple[int, dict[str, float]]]:
    return [(10 * number, {"a": mean, "b": mean}) for number, mean in enumerate(means, 1)]


def test_the_last_improvement_is_told_from_rounding_and_from_noise() -> None:
    assert last_improvement([]) == 0
    assert last_improvement(history(0.9, 0.5, 0.7, 0.6)) == 20
    assert last_improvement(history(0.9, 0.5, 0.4999, 0.49)) == 40, "gains below a thousandth do not count"
    assert last_improvement(history(0.9, float("nan"), 0.5)) == 30
    apart = [(10, {"a": 0.9, "b": 0.5}), (20, {"a": 0.8, "b": 0.9})]
    assert last_improvement(apart) == 10
    assert last_improvement(apart, ("a", "b")) == 20, "tasks that share nothing are judged one by one"


def test_a_training_that_gains_to_its_end_still_improves() -> None:
    assert still_improves(history(1.0, 0.9, 0.8, 0.7))
    assert not still_improves(history(1.0, 0.7, 0.7, 0.699)), "a hundredth is needed"
    assert not still_improves(history(1.0, 0.9, 0.5, 0.6))
    assert not still_improves(history(1.0, 0.5)), "two validations say nothing"
