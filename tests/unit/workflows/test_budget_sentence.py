"""What a comparison says of its budget."""

from __future__ import annotations

from graftwork.workflows.compare.budget import budget_sentence
from graftwork.workflows.portfolio import load_catalogue
from graftwork.workflows.runs.schedule import Schedule


def test_what_is_fitted_in_one_go_has_no_rounds() -> None:
    plans = {name: load_catalogue()[name].plan for name in ("shared-trunk", "linear", "lightgbm")}
    schedule = Schedule(horizons={"shared-trunk": 8, "linear": 1, "lightgbm": 1000}, seeds=(0,), control_seeds=0)
    sentence = budget_sentence(plans, schedule, steps=8, seconds=None)
    assert sentence == (
        "Budget: 8 steps for each training, 1 seed of every plan. Plans that count otherwise: linear (fitted in one go), lightgbm "
        "(1,000 rounds)."
    )
