"""Comparisons with a simple baseline ask whether the models that were made predict new rows, not whether others would."""

from __future__ import annotations

import numpy as np

from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.comparison import compare_means, compare_with_baseline
from graftwork.evaluation.choice.scores import FinalRun, ScoreBank
from graftwork.evaluation.choice.ship_sentences import beats

FOLDS = 3


def bank_of(signal: float, seed: int = 0, rows: int = 120) -> ScoreBank:
    """Return scores of a learned plan and of a mean in a cross-validation of three folds with uneven noise."""
    rng = np.random.default_rng(seed)
    value, noise = rng.normal(size=rows), rng.normal(size=rows)
    target = (signal * value + noise)[:, None].astype(np.float32)
    parts = np.arange(rows) % FOLDS
    # A map learned from few rows: each fold has an error of its own.
    learned = np.array([signal + rng.normal(scale=0.15) for _ in range(FOLDS)])[parts] * value
    suite = Suite.of_arrays(
        name="numbers",
        input_specs={"table": InputSpec(kind="table")},
        tasks=[TaskSpec(name="y", kind="regression", size=1, center=(0.0,), scale=(1.0,))],
        inputs={"numeric": np.zeros((rows, 1), np.float32), "categorical": np.zeros((rows, 0), np.int64)},
        targets={"y": target},
        splits={"train": np.arange(rows * 2 // 3), "val": np.arange(rows * 2 // 3, rows), "test": np.arange(rows)},
    )
    predictions = {"learned": learned[:, None], "mean": np.zeros((rows, 1))}
    arms = {
        name: [FinalRun(plan_name=name, seed=0, predictions={"y": prediction}, validation={}, parts=parts)]
        for name, prediction in predictions.items()
    }
    return ScoreBank(suite, arms, num_resamples=300)


def test_what_was_learned_in_three_folds_is_seen() -> None:
    seen = [bank_of(1.0, seed) for seed in range(10)]
    rows = [compare_with_baseline(bank, "learned", "mean") for bank in seen]
    assert all(mean is not None and beats(mean) and beats(tasks[0]) for mean, tasks in rows)
    # Against other plans the training rows that folds share still widen the interval.
    for bank, (mean, _) in zip(seen, rows, strict=True):
        other = compare_means(bank, ["learned"], "mean")[0]["difference"]
        assert mean is not None
        assert other["high"] - other["low"] > mean["difference"]["high"] - mean["difference"]["low"]


def test_nothing_learned_is_not_seen() -> None:
    wins = [beats(row) for seed in range(40) if (row := compare_with_baseline(bank_of(0.0, seed), "learned", "mean")[0])]
    assert sum(wins) <= 2


def test_a_score_that_is_zero_for_a_constant_does_not_drown_the_others() -> None:
    """Relative to a kappa of zero any other is hundreds of percent away, and the mean over tasks says nothing."""
    rng = np.random.default_rng(0)
    rows, steps = 90, 5
    grade, number = rng.integers(0, steps, rows), rng.normal(size=rows)
    suite = Suite.of_arrays(
        name="grades",
        input_specs={"table": InputSpec(kind="table")},
        tasks=[
            TaskSpec(name="grade", kind="ordinal", size=steps, classes=tuple("abcde")),
            TaskSpec(name="y", kind="regression", size=1, center=(0.0,), scale=(1.0,)),
        ],
        inputs={"numeric": np.zeros((rows, 1), np.float32), "categorical": np.zeros((rows, 0), np.int64)},
        targets={"grade": grade, "y": number[:, None].astype(np.float32)},
        splits={"train": np.arange(60), "val": np.arange(60, rows), "test": np.arange(rows)},
    )
    guess = np.where(rng.random(rows) < 0.25, grade, rng.integers(0, steps, rows))
    answers = {
        "learned": {"grade": np.eye(steps)[guess], "y": (0.9 * number)[:, None]},
        "mean": {"grade": np.tile(np.eye(steps)[2], (rows, 1)), "y": np.zeros((rows, 1))},
    }
    arms = {
        name: [FinalRun(plan_name=name, seed=0, predictions=found, validation={}, parts=np.arange(rows) % FOLDS)]
        for name, found in answers.items()
    }
    bank = ScoreBank(suite, arms, num_resamples=300)
    assert bank.scores("mean", "grade") is not None
    mean, _ = compare_with_baseline(bank, "learned", "mean")
    assert mean is not None
    assert beats(mean)
    assert 40 < mean["difference"]["value"] < 80
    relative = bank.delta_m("learned", "mean")
    assert relative is not None
    assert relative.value > 100, "as a change relative to the baseline it is no share"


def test_plans_without_a_task_in_common_have_no_row() -> None:
    assert compare_with_baseline(bank_of(1.0), "learned", "absent") == (None, [])
