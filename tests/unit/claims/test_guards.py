from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graftwork.claims.arm_context import ArmContext
from graftwork.claims.budgets import check_budgets
from graftwork.claims.experiment import Access, Arm, EqualBudget, Inequality, Recipe
from graftwork.core.errors import AccessError, BudgetError, ConfigError, DataError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite


@pytest.fixture
def suite() -> Suite:
    """Twelve rows: four train, two val, three target, three test; row ``i`` has the input ``i + 1`` and the label ``i % 2``."""
    return Suite(
        name="toy",
        input_specs={"table": InputSpec(kind="table")},
        tasks=(TaskSpec(name="odd", kind="binary", size=1), TaskSpec(name="size", kind="regression", size=1)),
        inputs={"numeric": np.arange(1, 13, dtype=np.float32)[:, None]},
        targets={"odd": np.arange(12) % 2, "size": np.arange(12, dtype=np.float32)[:, None]},
        splits={"train": np.arange(4), "val": np.arange(4, 6), "target": np.arange(6, 9), "test": np.arange(9, 12)},
        raw={"text": [f"row {row}" for row in range(12)], "secret": "the whole table"},
    )


def make_context(tmp_path: Path, **access: bool) -> ArmContext:
    return ArmContext(
        slug="toy",
        arm="mine",
        access=Access(**access).parts(),
        seed=0,
        smoke=True,
        work=tmp_path / "work",
        shared=tmp_path / "shared",
    )


def test_supervised_arm_sees_training_data_only(tmp_path: Path, suite: Suite) -> None:
    visible = make_context(tmp_path, source_labels=True).guard(suite).visible
    assert visible.inputs["numeric"].ravel().tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0]
    assert visible.targets["odd"].tolist() == [0, 1, 0, 1, 0, 1, -1, -1, -1, -1, -1, -1]
    assert np.isnan(visible.targets["size"][6:]).all()
    assert np.isfinite(visible.targets["size"][:6]).all()
    assert visible.raw["text"][5:7] == ["row 5", ""]
    assert "secret" not in visible.raw
    assert suite.targets["odd"][11] == 1, "the world itself must stay as it was"


def test_undeclared_splits_raise_by_name(tmp_path: Path, suite: Suite) -> None:
    visible = make_context(tmp_path, source_labels=True).guard(suite).visible
    assert visible.splits["train"].tolist() == [0, 1, 2, 3]
    with pytest.raises(AccessError, match=r"Arm 'mine' of 'toy' asked for split 'target' .* target_inputs is not declared"):
        visible.splits["target"]
    with pytest.raises(AccessError, match=r"split 'test' .* questions\('test'\)"):
        visible.splits["test"]
    with pytest.raises(KeyError, match="no split 'tset'"):
        visible.splits["tset"]


@pytest.mark.parametrize(
    ("access", "inputs", "labels"),
    [
        ({}, 6, 0),
        ({"source_labels": True}, 6, 6),
        ({"source_labels": True, "target_inputs": True}, 9, 6),
        ({"source_labels": True, "target_inputs": True, "target_labels": True}, 9, 9),
        ({"source_labels": True, "test_batches": True}, 9, 6),
        ({"target_inputs": True, "target_labels": True, "test_batches": True}, 12, 3),
    ],
)
def test_each_declaration_opens_its_part(tmp_path: Path, suite: Suite, access: dict[str, bool], inputs: int, labels: int) -> None:
    context = make_context(tmp_path, **access)
    visible = context.guard(suite).visible
    assert int((visible.inputs["numeric"] != 0).sum()) == inputs
    assert int((visible.targets["odd"] >= 0).sum()) == labels
    assert context.counts["labels"] == 2 * labels
    assert context.used == {name for name, is_open in access.items() if is_open}


def test_test_labels_are_never_handed_out(tmp_path: Path, suite: Suite) -> None:
    everything = make_context(tmp_path, source_labels=True, target_inputs=True, target_labels=True, test_batches=True)
    assert (everything.guard(suite).visible.targets["odd"][9:] == -1).all()


def test_questions_hold_one_split_and_no_label(tmp_path: Path, suite: Suite) -> None:
    asked = make_context(tmp_path).guard(suite).questions("test")
    assert asked.inputs["numeric"].ravel().tolist() == [0] * 9 + [10, 11, 12]
    assert (asked.targets["odd"] == -1).all()
    with pytest.raises(AccessError, match="one split only"):
        asked.splits["train"]


def test_questions_about_the_target_domain_need_its_inputs(tmp_path: Path, suite: Suite) -> None:
    with pytest.raises(AccessError, match=r"the inputs of split 'target' .* target_inputs=True"):
        make_context(tmp_path).guard(suite).questions("target")


def test_scores_come_from_inside(tmp_path: Path, suite: Suite) -> None:
    context = make_context(tmp_path)
    guarded = context.guard(suite)
    assert guarded.rows("test").tolist() == [9, 10, 11]
    scores = guarded.score("test", {"size": np.array([[9.0], [10.0], [14.0]])})
    assert scores["size"]["rmse"] == pytest.approx(3**0.5)
    assert context.reports["scored_test"] == 1
    with pytest.raises(ConfigError, match="split 'test' has 3 rows, but there are 2 predictions"):
        guarded.score("test", {"size": np.zeros((2, 1))})


def test_scores_weigh_rows_where_asked(tmp_path: Path, suite: Suite) -> None:
    data = make_context(tmp_path, source_labels=True).guard(suite)
    found = data.score("test", {"odd": np.array([0.9, 0.9, 0.1])}, weights=np.array([1.0, 0.0, 3.0]))  # labels 1, 0, 1
    assert found["odd"]["accuracy"] == pytest.approx(0.25)
    with pytest.raises(DataError, match="give one per row"):
        data.score("test", {"odd": np.array([0.9, 0.9, 0.1])}, weights=np.ones(2))


def test_scores_on_training_data_need_its_labels(tmp_path: Path, suite: Suite) -> None:
    prediction = {"size": np.array([[4.0], [5.0]])}
    assert make_context(tmp_path, source_labels=True).guard(suite).score("val", prediction)["size"]["rmse"] == 0
    with pytest.raises(AccessError, match="scores on split 'val'"):
        make_context(tmp_path).guard(suite).score("val", prediction)


def test_ranks_come_from_inside_too(tmp_path: Path, suite: Suite) -> None:
    ids, cameras = np.arange(12) // 2, np.arange(12) % 2
    seen = replace(
        suite,
        tasks=(TaskSpec(name="who", kind="embedding", size=2),),
        targets={"who": ids},
        splits={"train": np.arange(4), "test": np.arange(4, 12)},
        domain=cameras,
    )
    context = make_context(tmp_path)
    guarded = context.guard(seen)
    vectors = np.stack([np.cos(ids[4:]), np.sin(ids[4:])], axis=1)
    assert guarded.retrieve("test", "who", vectors).mean_average_precision == 1.0
    assert guarded.retrieve("test", "who", np.ones((8, 2)), distance="euclidean").rank_1 == 0.0
    assert context.reports["scored_test"] == 2
    with pytest.raises(AccessError, match="ranks on split 'train'"):
        guarded.retrieve("train", "who", vectors[:4])
    with pytest.raises(ConfigError, match="has no domains; retrieval takes them as cameras"):
        context.guard(replace(seen, domain=None)).retrieve("test", "who", vectors)


def test_splits_need_a_role(tmp_path: Path, suite: Suite) -> None:
    other = suite.with_splits({**suite.splits, "extra": np.array([0])})
    with pytest.raises(ConfigError, match=r"split 'extra' has no role"):
        make_context(tmp_path).guard(other)
    with pytest.raises(ConfigError, match=r"split 'extra' has the role 'free'"):
        make_context(tmp_path).guard(other, roles={"extra": "free"})
    assert make_context(tmp_path).guard(other, roles={"extra": "source"}).visible.splits["extra"].tolist() == [0]


def test_the_same_suite_is_charged_once(tmp_path: Path, suite: Suite) -> None:
    context = make_context(tmp_path, source_labels=True)
    context.guard(suite)
    context.guard(suite)
    assert context.counts["labels"] == 12


def test_data_outside_suites_is_asked_for(tmp_path: Path) -> None:
    context = make_context(tmp_path, target_inputs=True)
    context.require_access("target_inputs")
    with pytest.raises(AccessError, match=r"asked for conversions but declares access to target_inputs.*source_labels=True"):
        context.require_access("source_labels", "conversions")


def test_only_known_counters(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no budget counter 'step'; the counters are steps"):
        make_context(tmp_path).count("step")


def test_shared_work_is_built_once_and_charged_to_all(tmp_path: Path, suite: Suite) -> None:
    calls: list[str] = []
    drawn: list[float] = []

    def arm(name: str) -> ArmContext:
        context = make_context(tmp_path, source_labels=True)
        context.guard(suite)

        def build(folder: Path) -> None:
            calls.append(name)
            context.guard(suite)
            context.count("steps", 70)
            np.random.default_rng().random()
            np.random.rand(5)
            (folder / "model.txt").write_text("tuned", encoding="utf-8")

        folder = context.once("expert", build)
        drawn.append(float(np.random.rand()))
        assert (folder / "model.txt").read_text(encoding="utf-8") == "tuned"
        return context

    first, second = arm("first"), arm("second")
    assert calls == ["first"]
    assert first.counts == second.counts == {"steps": 70, "labels": 12}
    assert drawn[0] == drawn[1], "who built must draw the same numbers afterwards as who did not"


def test_shared_work_does_not_smuggle_labels(tmp_path: Path, suite: Suite) -> None:
    builder = make_context(tmp_path, source_labels=True)

    def build(folder: Path) -> None:
        builder.guard(suite)

    builder.once("expert", build)
    with pytest.raises(AccessError, match=r"the shared 'expert', which was made with source labels"):
        make_context(tmp_path).once("expert", lambda folder: None)


def test_failed_building_leaves_nothing(tmp_path: Path) -> None:
    context = make_context(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        context.once("expert", fail)
    assert not list((tmp_path / "shared").glob("*expert*/*"))
    assert (context.once("expert", lambda folder: None) / "half").exists() is False


def test_names_of_shared_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"without slashes .* got '\.\./x'"):
        make_context(tmp_path).once("../x", lambda folder: None)


def test_independence_report_is_kept_for_the_evidence(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    shape = np.arange(400) % 4
    context.independence({"shape": shape, "copy": shape, "colour": np.repeat(np.arange(4), 100)})
    pairs = {tuple(pair["names"]): pair["dependent"] for pair in context.reports["independence"]["factors"]["pairs"]}
    assert pairs == {("shape", "copy"): True, ("shape", "colour"): False, ("copy", "colour"): False}


def budget_recipe(budget: EqualBudget) -> Recipe:
    return Recipe(
        slug="toy",
        arms=(Arm("base", ""), Arm("mine", ""), Arm("bound", "")),
        seeds=(0, 1),
        smoke_seeds=(0,),
        run_arm=lambda arm, seed, context: {},
        inequalities=(Inequality("x", "mine.a", "base.a"),),
        equal_budget=(budget,),
    )


def test_equal_budgets_pass() -> None:
    counts = {0: {"base": {"steps": 10}, "mine": {"steps": 10}, "bound": {"steps": 99}}}
    check_budgets(budget_recipe(EqualBudget(("steps",), ("base", "mine"))), counts)
    with pytest.raises(BudgetError, match="steps, seed 0: base 10, mine 10, bound 99"):
        check_budgets(budget_recipe(EqualBudget(("steps",))), counts)


def test_budgets_may_differ_within_the_tolerance() -> None:
    counts = {0: {"base": {"samples": 100}, "mine": {"samples": 96}, "bound": {"samples": 100}}}
    check_budgets(budget_recipe(EqualBudget(("samples",), tolerance=0.05)), counts)
    with pytest.raises(BudgetError, match="no verdict is given"):
        check_budgets(budget_recipe(EqualBudget(("samples",), tolerance=0.03)), counts)


def test_uncounted_budgets_are_no_equal_budgets() -> None:
    counts: dict[int, dict[str, dict[str, Any]]] = {0: {"base": {}, "mine": {}, "bound": {}}}
    with pytest.raises(BudgetError, match="trials, seed 0: declared equal, but nothing was counted"):
        check_budgets(budget_recipe(EqualBudget(("trials",))), counts)


def test_callback_counts_real_steps_and_survives_a_checkpoint(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    callback = context.budget_callback()
    for _ in range(3):
        callback.on_step(None, range(8), torch.tensor([1.0, 3.0]))  # type: ignore[arg-type]
    callback.on_end(None)  # type: ignore[arg-type]
    assert context.training_loss == pytest.approx(2.0)
    assert {name: context.counts[name] for name in ("steps", "samples")} == {"steps": 3, "samples": 24}
    resumed = make_context(tmp_path)
    resumed.budget_callback().load_state_dict(callback.state_dict())
    assert {name: resumed.counts[name] for name in ("steps", "samples")} == {"steps": 3, "samples": 24}


def test_a_plan_trains_on_the_target_rows_that_the_arm_may_see(suite: Suite, tmp_path: Path) -> None:
    plain = make_context(tmp_path, source_labels=True).guard(suite)
    assert plain.for_training() is plain.visible
    adapting = make_context(tmp_path, source_labels=True, target_inputs=True).guard(suite).for_training()
    assert adapting.splits["train"].tolist() == [0, 1, 2, 3, 6, 7, 8]
    assert adapting.inputs["numeric"][6:9, 0].tolist() == [7.0, 8.0, 9.0]
    assert adapting.targets["odd"][:9].tolist() == [0, 1, 0, 1, 0, 1, -1, -1, -1]
    with pytest.raises(AccessError):
        adapting.splits["test"]
    bound = make_context(tmp_path, source_labels=True, target_inputs=True, target_labels=True).guard(suite).for_training()
    assert bound.targets["odd"][6:9].tolist() == [0, 1, 0]


@pytest.mark.parametrize("order", [("train", "val", "target", "test"), ("test", "target", "val", "train")])
@pytest.mark.parametrize("test_batches", [False, True])
def test_test_labels_stay_hidden_whatever_the_order_of_splits_that_share_rows(
    tmp_path: Path, suite: Suite, order: tuple[str, ...], test_batches: bool
) -> None:
    splits = {**suite.splits, "test": np.array([3, 8, 9])}  # a row of `train` and one of `target` are among them
    suite = replace(suite, splits={name: splits[name] for name in order})
    access = {"source_labels": True, "target_inputs": True, "target_labels": True, "test_batches": test_batches}
    visible = make_context(tmp_path, **access).guard(suite).visible
    assert visible.targets["odd"].tolist() == [0, 1, 0, -1, 0, 1, 0, 1, -1, -1, -1, -1]
    assert visible.inputs["numeric"].ravel().tolist() == [*range(1, 10), 10 if test_batches else 0, 0, 0]
