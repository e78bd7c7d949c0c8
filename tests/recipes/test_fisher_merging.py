from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from graftwork.claims.experiment import Access, Arm, ArmContext
from graftwork.recipes.merging import fisher_merging as recipe
from graftwork.recipes.merging.fisher_merging import DONORS, RECIPE, RUNS, TARGETS, donor_suite, pretraining_suite, target_suite


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ArmContext:
    folder = tmp_path_factory.mktemp("fisher")
    access = Access(source_labels=True).parts()
    return ArmContext(slug="fisher-merging", arm="x", access=access, seed=0, smoke=True, work=folder, shared=folder)


def test_no_original_is_in_two_splits_or_in_pretraining_and_a_task() -> None:
    plain = recipe._digits("turned", 0)
    assert plain.groups is not None
    early = set(plain.groups[plain.splits["train"][recipe._is_early(plain, 0)]].tolist())
    assert len(early) == recipe.EARLY
    assert len(pretraining_suite(0)) == recipe.EARLY * 4 * 9, "four placements in nine drawings"
    for suite in (target_suite("turned", 0), donor_suite("turned", 0)):
        parts = {name: {*plain.groups[rows].tolist()} for name, rows in suite.splits.items()}
        assert not parts["train"] & (parts["val"] | parts["test"] | early)
        assert not parts["val"] & parts["test"]


def test_targets_have_few_labels_and_donors_ask_something_else() -> None:
    target, donor = target_suite("mirrored", 0), donor_suite("mirrored", 0)
    assert len(target.splits["train"]) == recipe.LABELS
    assert len(donor.splits["train"]) > 20 * recipe.LABELS
    digits, groups = target.targets["digit"], donor.targets["group"]
    for digit in range(10):
        assert len(np.unique(groups[digits == digit])) == 1
    assert [len(np.unique(digits[groups == group])) for group in range(5)] == [2] * 5


def test_all_models_of_a_seed_come_from_one_trunk_and_have_information(context: ArmContext) -> None:
    folder = context.once("models", lambda path: recipe.make_models(path, 0, context))
    names = [f"donor-{name}" for name in DONORS] + [f"target-{name}-{run}" for name in TARGETS for run in range(RUNS)]
    for name in names:
        state, information = (load_file(folder / f"{name}{kind}.safetensors") for kind in ("", ".fisher"))
        assert {f"fisher.{key}" for key in state} == set(information)
        assert all((value >= 0.0).all() for value in information.values())
    first, second = (load_file(folder / f"target-turned-{run}.safetensors") for run in (0, 1))
    assert not np.array_equal(first["heads.0.layers.0.weight"], second["heads.0.layers.0.weight"]), "runs differ in their heads"


def test_heads_alone_learn_first_and_the_trunk_moves_little(context: ArmContext) -> None:
    suite = context.guard(target_suite("turned", 0)).visible
    torch.manual_seed(0)
    start = recipe._state(recipe._model(recipe.DIGIT))
    still = recipe.tune(start, suite, (1, 1e-12), "x", 0, context, recipe.SETTINGS)
    trunk = [key for key in start if not key.startswith("heads.")]
    assert all(np.abs(still[key] - start[key]).max() < 1e-9 for key in trunk)
    assert np.abs(still["heads.0.layers.0.weight"] - start["heads.0.layers.0.weight"]).max() > 1e-3


@pytest.mark.parametrize("name", ["isotropic", "fisher"])
def test_merging_keeps_the_targets_head_and_counts_its_trials(context: ArmContext, name: str) -> None:
    folder = context.once("models", lambda path: recipe.make_models(path, 0, context))
    arm: Arm = RECIPE.arm(name)
    data = context.guard(target_suite("turned", 0))
    names = ["target-turned-0", *(f"donor-{other}" for other in DONORS)]
    states = [load_file(folder / f"{other}.safetensors") for other in names]
    tasks = [recipe.DIGIT, *[recipe.GROUP] * len(DONORS)]
    before = context.counts.get("trials", 0)
    merged, share = recipe._merge(arm, names, states, tasks, folder, data, 0, context)
    assert context.counts["trials"] == before + 3
    assert 0.0 <= share <= 100.0
    for key, value in merged.items():
        if key.startswith("heads."):
            np.testing.assert_array_equal(value, states[0][key])


def test_arms_that_are_compared_try_equally_many_coefficients() -> None:
    trials = [budget for budget in RECIPE.equal_budget if "trials" in budget.counters]
    assert [budget.arms for budget in trials] == [("isotropic", "fisher", "unscaled")]
    assert recipe.TRIALS >= 50
