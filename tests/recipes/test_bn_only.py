from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graftwork.claims.experiment import Access, ArmContext
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.data.suites.glyphs import glyphs
from graftwork.nn.freeze import is_batch_norm
from graftwork.recipes.tuning.bn_only import DEPTHS, RATES, RECIPE, SCRATCH, build_model, dead_share, decay_of, train


@pytest.fixture
def context(tmp_path: Path) -> ArmContext:
    access = Access(source_labels=True).parts()
    return ArmContext(slug="bn-only", arm="x", access=access, seed=0, smoke=True, work=tmp_path, shared=tmp_path)


@pytest.fixture
def data(context: ArmContext) -> GuardedSuite:
    return context.guard(glyphs(num_train=64, num_val=16, num_test=16, seed=0))


def learned(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def moved(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_only_norms_learn_and_the_head_stays_random(data: GuardedSuite, context: ArmContext) -> None:
    model = build_model("norms", 8, data, context)
    norms = {name for name, module in model.named_modules() if is_batch_norm(module)}
    assert learned(model) == {f"{name}.{part}" for name in norms for part in ("weight", "bias")}
    assert not any(name.startswith("heads") for name in learned(model))


def test_arms_of_a_depth_begin_with_equal_weights_and_learn_equally_many(data: GuardedSuite, context: ArmContext) -> None:
    norms, random = (build_model(learns, 8, data, context) for learns in ("norms", "random"))
    assert torch.equal(_head(norms), _head(random))
    inputs = {"image": torch.from_numpy(data.visible.inputs["image"][:4])}
    assert torch.equal(norms.eval()(inputs)["letter"], random.eval()(inputs)["letter"])
    count: Any = [sum(item.numel() for item in model.parameters() if item.requires_grad) for model in (norms, random)]
    assert count[0] == count[1] > 0


def _head(model: nn.Module) -> torch.Tensor:
    return next(module.weight for module in model.heads.modules() if isinstance(module, nn.Linear))  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("scales", ["uniform", "one"])
def test_scales_begin_as_said(data: GuardedSuite, context: ArmContext, scales: str) -> None:
    model = build_model("norms", 14, data, context, scales=scales)
    values = torch.cat([module.weight.detach() for module in model.modules() if is_batch_norm(module)])  # type: ignore[misc]
    if scales == "one":
        assert bool((values == 1.0).all())
    else:
        assert 0.0 <= float(values.min()) < 0.1 < 0.9 < float(values.max()) < 1.0


@pytest.mark.parametrize("learns", ["norms", "random", "head"])
def test_decay_and_momentum_move_nothing_that_is_frozen(data: GuardedSuite, context: ArmContext, learns: str) -> None:
    before = {name: tensor.clone() for name, tensor in build_model(learns, 8, data, context).state_dict().items()}
    model = train(learns, 8, 0.5, data, context, 4, "uniform").eval_model()
    changed = moved(before, model)
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert statistics <= changed, "running statistics follow the data although scales are frozen"
    assert changed - statistics <= learned(model)
    assert changed - statistics


@pytest.mark.parametrize("rate", [0.03, 3.0])
def test_decay_alone_shrinks_by_as_much_at_any_rate_as_the_schedule_of_the_paper(rate: float) -> None:
    epoch, momentum = 391, 0.9
    wanted = epoch * (80 * 0.1 + 40 * 0.01 + 40 * 0.001) * 1e-4 / (1 - momentum)
    steps = 800
    value, velocity, decay = 1.0, 0.0, decay_of(rate, steps)
    for step in range(steps):
        velocity = momentum * velocity + decay * value
        value -= rate * 0.5 * (1 + math.cos(math.pi * step / steps)) * velocity
    assert -math.log(value) == pytest.approx(wanted, rel=0.05)


def test_every_arm_has_a_rate_of_its_own_but_the_start_from_ones() -> None:
    assert {arm.name for arm in SCRATCH} - set(RATES) == {"ones-14"}
    rates = {arm.name: arm.settings["rate"] for arm in SCRATCH}
    assert rates["ones-14"] == rates["norms-14"]


def test_a_unit_that_is_never_above_zero_is_dead(data: GuardedSuite, context: ArmContext) -> None:
    model = build_model("norms", 8, data, context)
    assert dead_share(model.eval(), data) < 0.5
    for name, parameter in model.named_parameters():
        if "norm1" in name:
            nn.init.zeros_(parameter)
    assert dead_share(model, data) == 1.0


def test_every_depth_has_both_arms_and_one_arm_is_the_plan_of_the_card() -> None:
    names = {arm.name for arm in SCRATCH}
    assert {f"{kind}-{depth}" for kind in ("norms", "random") for depth in DEPTHS} <= names
    assert RECIPE.equal_budget[0].arms == tuple(arm.name for arm in SCRATCH)
    plan = card_plan("bn-only")
    assert plan.source == "pretrained"
    assert plan.train.tuning is not None
    assert plan.train.tuning.path.endswith("bn_only:BatchNormOnly")
