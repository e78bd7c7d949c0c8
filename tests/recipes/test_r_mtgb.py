from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.recipes.sharing.r_mtgb import ARMS, RECIPE, _mean_rmse, _trials, run_arm


def test_the_error_is_averaged_over_tasks_by_hand() -> None:
    found, expected = np.array([1.0, 3.0, 0.0]), np.array([0.0, 2.0, 4.0])
    assert _mean_rmse(found, expected, np.array([0, 0, 1])) == pytest.approx((1.0 + 4.0) / 2)


def test_every_arm_has_as_many_trials_of_as_many_iterations() -> None:
    for arm in ARMS:
        trials = list(_trials(arm.settings, 1.0))
        assert len(trials) == 6
        assert {trial["n_iter_1st"] + trial["n_iter_2nd"] + trial["n_iter_3rd"] for trial in trials} == {160}
        assert arm.access == ARMS[0].access
    assert all(trial["n_iter_2nd"] == 0 for trial in _trials(RECIPE.arm("mtgb").settings, 1.0)), "MTGB has no second block"


def test_the_sign_test_of_the_claim() -> None:
    from scipy.stats import binomtest

    (seeds,) = {inequality.min_sign_seeds for inequality in RECIPE.inequalities if inequality.demand == "better"}
    assert binomtest(seeds, len(RECIPE.seeds)).pvalue < 0.05 < binomtest(seeds - 1, len(RECIPE.seeds)).pvalue


@pytest.mark.slow
def test_arms_measure_and_count_the_same(tmp_path: Path) -> None:
    counts = {}
    for arm in ARMS:
        context = ArmContext(
            slug="r-mtgb",
            arm=arm.name,
            access=arm.access.parts(),
            seed=0,
            smoke=True,
            work=tmp_path / arm.name,
            shared=tmp_path / "shared",
        )
        measured = run_arm(arm, 0, context)
        assert 0 < measured["rmse"] < 2
        assert ("outliers_found" in measured) == (arm.name == "r-mtgb")
        counts[arm.name] = context.counts
    assert all(count == counts["single"] for count in counts.values())
    assert counts["single"]["trials"] == 6
