"""Worlds in which nothing differs must stay silent: simulated score tables of plans that are equal in truth, hundreds of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from graftwork.evaluation.changes import Change, SeedScores, change, mean_change
from graftwork.evaluation.choice.word import NEGATIVE, POSITIVE, word_of
from graftwork.evaluation.controls import classify_control
from graftwork.evaluation.grouping import advised_groups, group_tasks
from graftwork.evaluation.pair_judgement import judge_pairs, pair_p_values
from graftwork.evaluation.paired import holm

RESAMPLES = 100


def scores_of(errors: np.ndarray, counts: np.ndarray) -> SeedScores:
    """RMSE of one plan from its squared errors ``[S, N]`` and the resamples' row counts ``[B, N]``."""
    point = np.sqrt(errors.mean(axis=1))
    return SeedScores(tuple(range(len(errors))), point, np.sqrt(errors @ counts.T / counts.sum(axis=1)))


def folds_of(errors: np.ndarray, counts: np.ndarray, folds: int) -> SeedScores:
    """The same for a cross-validation: errors ``[N]``, of which each fold has an equal part."""
    parts = np.sqrt(errors.reshape(folds, -1).mean(axis=1))
    point, resampled = np.sqrt(errors.mean()), np.sqrt(counts @ errors / counts.sum(axis=1))
    return SeedScores((0,), np.array([point]), resampled[None], parts, tuple(range(folds)))


def changes_of_a_world(
    rng: np.random.Generator,
    *,
    tasks: int,
    seeds: int,
    rows: int,
    spread: float = 0.01,
    steady: float = 0.5,
    lead: float = 0.0,
    folds: bool = False,
) -> list[Change]:
    """Changes of one plan against another that is equal in truth (or better by ``lead``, relative), for each task.

    Some rows are hard for both plans alike; a share of what is left is each plan's own in all of its trainings (``steady``), the
    rest is each training's own, as is its luck on all rows together (``spread``, relative).
    """
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(float)
    changes = []
    for _ in range(tasks):
        common = rng.normal(size=rows)
        sides = []
        for better in (lead, 0.0):
            luck = 1 + spread * rng.normal(size=(seeds, 1))
            own = np.sqrt(steady) * rng.normal(size=rows) + np.sqrt(1 - steady) * rng.normal(size=(seeds, rows))
            answers = (0.8 * common + 0.6 * own) * luck * (1 - better)
            if folds:
                # Each fold is answered by one training.
                errors = answers.reshape(seeds, seeds, -1)[np.arange(seeds), np.arange(seeds)].reshape(-1) ** 2
                sides.append(folds_of(errors, counts, seeds))
            else:
                sides.append(scores_of(answers**2, counts))
        changes.append(change("rmse", *sides, exchange=1 / 3, units=rows))
    return changes


def words_of_a_world(rng: np.random.Generator, *, tasks: int, seeds: int, rows: int, **more: Any) -> list[str]:
    """Words for the tasks of :func:`changes_of_a_world`."""
    changes = changes_of_a_world(rng, tasks=tasks, seeds=seeds, rows=rows, **more)
    p_values = holm([item.p_value for item in changes])
    evidence: Any = "enough" if seeds >= 3 and rows >= 100 else "some"
    ends = [item.interval() for item in changes]
    return [word_of(end.value, end.low, end.high, p, evidence) for end, p in zip(ends, p_values, strict=True)]


SETTINGS = [(3, 60, False), (3, 150, False), (5, 100, False), (5, 150, True)]


@pytest.mark.parametrize("steady", [0.0, 1.0])
@pytest.mark.parametrize(("seeds", "rows", "folds"), SETTINGS)
@pytest.mark.parametrize("tasks", [2, 5])
def test_equal_plans_are_called_different_in_at_most_one_task_of_twenty(
    tasks: int, seeds: int, rows: int, folds: bool, steady: float
) -> None:
    rng = np.random.default_rng([tasks, seeds, rows])
    worlds = 240 // tasks
    found = Counter(
        word
        for _ in range(worlds)
        for word in words_of_a_world(rng, tasks=tasks, seeds=seeds, rows=rows, steady=steady, folds=folds)
    )
    assert sum(found[word] for word in (*POSITIVE, *NEGATIVE)) <= 0.05 * tasks * worlds


def mean_word_of_a_world(rng: np.random.Generator, *, seeds: int, rows: int, **more: Any) -> str:
    """Word for the mean over tasks, as that over the controls with shuffled companions is judged."""
    mean = mean_change(changes_of_a_world(rng, seeds=seeds, rows=rows, **more))
    end = mean.interval()
    return word_of(end.value, end.low, end.high, mean.p_value, "enough" if seeds >= 3 and rows >= 100 else "some")


@pytest.mark.parametrize(("seeds", "rows", "folds"), SETTINGS)
def test_a_mean_over_equal_plans_is_called_different_in_at_most_one_world_of_twenty(seeds: int, rows: int, folds: bool) -> None:
    rng = np.random.default_rng([seeds, rows, 7])
    found = Counter(mean_word_of_a_world(rng, tasks=3, seeds=seeds, rows=rows, folds=folds) for _ in range(120))
    assert sum(found[word] for word in (*POSITIVE, *NEGATIVE)) <= 0.05 * 120


def test_the_mean_over_tasks_shows_what_single_tasks_are_too_noisy_for() -> None:
    worlds = {"tasks": 5, "seeds": 5, "rows": 150, "folds": True, "lead": 0.16}
    single = [word for seed in range(20) for word in words_of_a_world(np.random.default_rng(seed), **worlds)]
    means = [mean_word_of_a_world(np.random.default_rng(seed), **worlds) for seed in range(20)]
    found, found_alone = (sum(word in POSITIVE for word in words) / len(words) for words in (means, single))
    assert found >= 0.75
    assert found >= found_alone + 0.2


@pytest.mark.parametrize("steady", [0.0, 1.0])
@pytest.mark.parametrize(("seeds", "rows", "folds"), SETTINGS)
def test_a_clear_lead_is_found(seeds: int, rows: int, folds: bool, steady: float) -> None:
    rng = np.random.default_rng([seeds, rows])
    found = Counter(
        word
        for _ in range(20)
        for word in words_of_a_world(rng, tasks=3, seeds=seeds, rows=rows, steady=steady, lead=0.5, folds=folds)
    )
    assert found["better"] + found["probably better"] >= 0.8 * 60
    assert not found["worse"] + found["probably worse"]


@pytest.mark.parametrize("seeds", [2, 3])
def test_two_seeds_and_thirty_rows_assert_nothing(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    for lead in (0.0, 0.8):
        words = [word for _ in range(60) for word in words_of_a_world(rng, tasks=2, seeds=seeds, rows=30, lead=lead)]
        assert not {"better", "worse", "probably worse" if lead else "better"} & set(words)
        assert lead or words.count("unclear") >= 0.95 * len(words)


def steady_affinity(rng: np.random.Generator, tasks: int) -> dict[str, Any]:
    """Affinities of unrelated tasks: each pair pulls at random, the same in all measurements of the one training."""
    value = np.where(np.eye(tasks, dtype=bool), 1.0, 0.4 * rng.normal(size=(tasks, tasks)))
    half = np.full((tasks, tasks), 0.01)
    return {
        "tasks": [f"t{number}" for number in range(tasks)],
        "value": value.tolist(),
        "low": (value - half).tolist(),
        "high": (value + half).tolist(),
        "measurements": 6,
    }


@pytest.mark.parametrize("tasks", [2, 4, 6])
def test_unrelated_tasks_get_no_words_on_pairs_and_no_grouping_advice(tasks: int) -> None:
    """Their affinities look sure, and the shared plan even differs from separate models, but not from shuffled companions."""
    rng = np.random.default_rng(tasks)
    worlds, spoken, advised, steady = 40, 0, 0, 0
    for _ in range(worlds):
        affinity = steady_affinity(rng, tasks)
        over_control = words_of_a_world(rng, tasks=tasks, seeds=3, rows=60)
        gain = rng.choice(["better", "worse"], size=tasks)
        controls = {
            name: classify_control(str(one), over, 3.0 if one == "better" else -3.0, 9.0)
            for name, one, over in zip(affinity["tasks"], gain, over_control, strict=True)
        }
        words = judge_pairs(affinity, controls)
        spoken += sum(any(words[row][column] in ("helps", "hurts") for row in range(tasks)) for column in range(tasks))
        grouping = group_tasks(affinity, 3, draws=200)
        steady += sum(share >= 0.95 for share in grouping["confidence"])
        advised += sum(len(group) for group, _ in advised_groups(grouping, controls))
        assert not advised_groups(grouping, None)
        assert {word for row in judge_pairs(affinity, None) for word in row} == {"", "unclear"}
    assert steady >= 0.8 * worlds * tasks  # what the measurements alone would have asserted
    assert spoken <= 0.05 * worlds * tasks
    assert advised <= 0.05 * worlds * tasks


def test_related_tasks_get_their_words_and_their_group() -> None:
    affinity = steady_affinity(np.random.default_rng(0), 3)
    affinity["value"] = [[1.0, 0.5, -0.4], [0.4, 1.0, -0.3], [-0.5, -0.4, 1.0]]
    for key, shift in (("low", -0.01), ("high", 0.01)):
        affinity[key] = [[cell + shift for cell in row] for row in affinity["value"]]
    controls = {"t0": "transfer", "t1": "transfer", "t2": "harm"}
    assert judge_pairs(affinity, controls) == [["", "helps", "hurts"], ["helps", "", "hurts"], ["unclear", "unclear", ""]]
    assert [group for group, _ in advised_groups(group_tasks(affinity, 3), controls)] == [["t0", "t1"], ["t2"]]


def test_pairs_are_corrected_for_their_number() -> None:
    """Of affinities that are noise around zero, hardly a table has a sure pair, though single intervals often exclude zero."""
    rng = np.random.default_rng(7)
    alarms, single, tables, tasks = 0, 0, 200, 5
    for _ in range(tables):
        measured = rng.normal(size=(6, tasks, tasks))
        value, half = measured.mean(axis=0), 2.5706 * measured.std(axis=0, ddof=1) / np.sqrt(6)
        affinity = {
            "tasks": list("abcde"),
            "value": value.tolist(),
            "low": (value - half).tolist(),
            "high": (value + half).tolist(),
            "measurements": 6,
        }
        p_values = pair_p_values(affinity)
        assert np.isnan(np.diagonal(p_values)).all()
        alarms += bool(np.nanmin(p_values) < 0.05)
        single += bool((np.abs(value) > half)[~np.eye(tasks, dtype=bool)].any())
    assert alarms <= 0.08 * tables
    assert single >= 0.4 * tables
