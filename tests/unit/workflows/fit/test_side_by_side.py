"""Which finished plans can be put together: those that answered the same rows, seed by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graftwork.workflows.fit.answers import Answers
from graftwork.workflows.fit.combined import side_by_side
from graftwork.workflows.fit.ensemble import build_ensemble
from graftwork.workflows.fit.mixed import build_mixed

from .test_mixed import TASKS, answers_of, suite_of  # type: ignore[import-not-found]


def trained(plan: str, error: float, seeds: list[int], rows: int = 60) -> list[Answers]:
    """Answers of trainings that have validation rows of their own, seed by seed."""
    suite, found = suite_of(), []
    for seed in seeds:
        own = np.sort(np.random.default_rng(seed).permutation(160)[:rows])
        divided = suite.with_splits({**suite.splits, "val": own})
        (one,) = answers_of(divided, f"{plan} {seed}", dict.fromkeys(TASKS, error))
        found.append(replace(one, final=replace(one.final, seed=seed)))
    return found


def test_a_plan_that_lacks_another_seed_is_left_out() -> None:
    # `lost` diverged with seed 1, and the time was up before the others had seed 2: all have two runs, of other seeds.
    answers = {"lost": trained("lost", 0.2, [0, 2]), "one": trained("one", 0.5, [0, 1]), "two": trained("two", 0.5, [0, 1])}
    plans, runs = side_by_side(answers)
    assert plans == ["one", "two"]
    assert [[run.final.seed for run in parts] for parts in runs] == [[0, 0], [1, 1]]
    suite = suite_of()
    found = build_ensemble(suite, answers)
    assert found is not None
    assert set(found.weights) == {"one", "two"}
    alone = build_ensemble(suite, {name: answers[name] for name in ("one", "two")})
    assert alone is not None
    assert [run.final.validation for run in found.runs] == [run.final.validation for run in alone.runs]


def test_plans_that_were_judged_on_other_rows_are_not_put_together() -> None:
    # Of a large suite, a final that was cut is judged on the validation rows of its rung, which are fewer.
    answers = {"cut": trained("cut", 0.2, [0], rows=40), "one": trained("one", 0.5, [0]), "two": trained("two", 0.5, [0])}
    plans, _ = side_by_side(answers)
    assert plans == ["one", "two"]
    assert build_mixed(suite_of(), answers) is None, "equal plans: one serves all tasks as well as two"
    assert build_ensemble(suite_of(), answers) is not None


def test_the_most_runs_count_then_the_most_plans() -> None:
    answers = {"a": trained("a", 0.5, [0]), "b": trained("b", 0.5, [0]), "c": trained("c", 0.5, [0, 1])}
    assert side_by_side(answers)[0] == ["c"]
    later = {"a": trained("a", 0.5, [1]), "b": trained("b", 0.5, [0]), "c": trained("c", 0.5, [0])}
    assert side_by_side(later)[0] == ["b", "c"]
    assert side_by_side({}) == ([], [])
