"""What the arms of PED score, and what their truth is."""

from __future__ import annotations

import numpy as np

from graftwork.data.suites.glyph_styles import TARGETS
from graftwork.methods.selection.logme import LogME
from graftwork.methods.selection.ped import PotentialEnergyDescent
from graftwork.methods.selection.sfda import SelfChallengingFisher
from graftwork.recipes.selection.osborn import percentile
from graftwork.recipes.selection.ped import MEMBERS, RECIPE, scorer


def test_arms_differ_in_the_motion_alone() -> None:
    made = {name: scorer("logme", RECIPE.arm(name)) for name in ("plain", "ped", "attract")}
    assert isinstance(made["plain"], LogME)
    ped, attract = made["ped"], made["attract"]
    assert isinstance(ped, PotentialEnergyDescent)
    assert isinstance(attract, PotentialEnergyDescent)
    assert isinstance(ped.base, LogME)
    assert ped.repulsion.constant == -attract.repulsion.constant == 1.0
    assert (ped.repulsion.sigmas, ped.repulsion.time_step) == (attract.repulsion.sigmas, attract.repulsion.time_step)
    inner = scorer("sfda", RECIPE.arm("ped"))
    assert isinstance(inner, PotentialEnergyDescent)
    assert isinstance(inner.base, SelfChallengingFisher)


def test_the_pool_is_as_large_as_the_claim_asks() -> None:
    assert len(MEMBERS) >= 10
    assert sum(name.endswith(("-turns", "-views")) for name in MEMBERS) >= 5
    assert len(TARGETS) >= 4


def test_percentiles_by_hand() -> None:
    values = np.array([0.1, 0.4, 0.4, 0.9])
    assert percentile(values, 3) == 100.0
    assert percentile(values, 0) == 0.0
    assert percentile(values, 1) == 50.0
