from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftwork.claims.experiment import ArmContext
from graftwork.core.batch import Batch
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suites.click_log import click_log
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.sharing.esmm import ESMM
from graftwork.recipes.sharing.esmm import RECIPE, Reweighted, derive, run_arm
from graftwork.tasks.losses import task_loss

TASKS = tuple(TaskSpec(name=name, kind="binary", size=1) for name in ("click", "conversion"))


def test_weights_by_hand() -> None:
    target = torch.tensor([1, 0, -1, 0])
    click, conversion = torch.tensor([[0.0], [-10.0], [3.0], [2.0]]), torch.tensor([[0.3], [-0.2], [5.0], [0.7]])
    outputs = {"click": click, "conversion": conversion}
    targets = {"click": torch.tensor([1, 1, 0, 1]), "conversion": target}
    losses = torch.stack([task_loss(task, outputs[task.name], targets[task.name]) for task in TASKS])
    model = ESMM(TASKS, inputs=table_input(1), product=False)
    batch = Batch({}, targets, {}, torch.arange(4), torch.zeros(4))
    inputs = ObjectiveInputs(batch, model, outputs, losses, None, 0)
    each = F.binary_cross_entropy_with_logits(conversion.squeeze(1), target.clamp(min=0).float(), reduction="none")
    for objective, weights in (
        (Reweighted(positives=5.0), [5.0, 1.0, 0.0, 1.0]),
        (Reweighted(floor=0.1), [2.0, 10.0, 0.0, 1.0 / torch.sigmoid(torch.tensor(2.0)).item()]),
    ):
        expected = np.average(each.numpy(), weights=weights)
        assert (losses[1] + objective.loss(inputs)).item() == pytest.approx(expected, rel=1e-5)


def test_gain_is_the_difference_of_the_arms() -> None:
    seed = {"base": {"cvr": 60.0}, "esmm": {"cvr": 63.0}, "base-fair": {"cvr": 70.0}, "esmm-fair": {"cvr": 70.5}}
    assert derive(seed) == {"esmm": {"gain": 3.0}, "esmm-fair": {"gain": 0.5}}


def test_arms_differ_only_in_what_is_compared() -> None:
    base, apart, ours = (RECIPE.arm(name).settings for name in ("base", "esmm-ns", "esmm"))
    assert {key: value for key, value in apart["model"].items() if key != "share_embeddings"} == ours["model"]
    assert base["model"] == {"share_embeddings": False, "product": False}
    assert len({arm.access for arm in RECIPE.arms}) == 1


def test_competitors_of_the_paper_are_primary_and_the_bound_is_outside_of_equal_labels() -> None:
    primary = {str(item.right).split(".")[0] for item in RECIPE.inequalities if item.primary}
    assert primary == {"base", "esmm-ns", "oversampling", "unbias", "aman", "division"}
    labels = [set(budget.arms) for budget in RECIPE.equal_budget if "labels" in budget.counters]
    assert set.union(*labels) == {arm.name for arm in RECIPE.arms} - {"told"}
    assert all(str(item.bound).startswith("told.") for item in RECIPE.headroom)
    assert RECIPE.pilot is not None
    assert not set(RECIPE.pilot.seeds) & set(RECIPE.seeds)


@pytest.mark.slow
def test_the_bound_is_told_what_no_log_holds(tmp_path: Path) -> None:
    counts = {}
    for name in ("base", "told"):
        arm = RECIPE.arm(name)
        context = ArmContext(
            slug="esmm", arm=name, access=arm.access.parts(), seed=0, smoke=True, work=tmp_path / name, shared=tmp_path / "shared"
        )
        run_arm(arm, 0, context)
        counts[name] = context.counts
    rows = 6_000
    # Click, purchase and conversion of every row; without being told, conversions of clicked rows alone, one in twenty.
    assert counts["told"]["labels"] == 3 * rows
    assert 2 * rows < counts["base"]["labels"] < 2.2 * rows
    assert counts["told"]["steps"] == counts["base"]["steps"]


@pytest.mark.slow
def test_training_sees_no_conversion_of_rows_without_a_click(tmp_path: Path) -> None:
    arm = RECIPE.arm("base")
    context = ArmContext(
        slug="esmm", arm="base", access=arm.access.parts(), seed=0, smoke=True, work=tmp_path, shared=tmp_path / "shared"
    )
    suite = click_log(rows=2_000, test_rows=500, with_conversion=True, seed=0)
    visible = context.guard(suite).visible
    assert not visible.raw, "hidden factors stay hidden"
    assert (visible.targets["conversion"][visible.targets["click"] != 1] == -1).all()
    measured = run_arm(arm, 0, context)
    assert set(measured) == {"cvr", "ctcvr", "ctr", "cvr_on_clicks", "click_calibration"}
    assert all(np.isfinite(list(measured.values())))
