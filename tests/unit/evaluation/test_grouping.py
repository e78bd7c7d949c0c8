"""The best partition of tasks: against brute force, by hand, and what its words may claim."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graftwork.evaluation.affinity import summarise_affinity
from graftwork.evaluation.grouping import advise_grouping, advised_groups, best_grouping, group_tasks, grouping_value


def partitions(tasks: list[int]) -> list[list[list[int]]]:
    if not tasks:
        return [[]]
    found = []
    for rest in partitions(tasks[1:]):
        found.append([[tasks[0]], *rest])
        found += [[*rest[:k], [tasks[0], *group], *rest[k + 1 :]] for k, group in enumerate(rest)]
    return found


def tables(most: int) -> st.SearchStrategy[np.ndarray]:
    cells = st.floats(-1, 1, allow_nan=False).map(lambda value: round(value, 3)) | st.just(float("nan"))
    return st.integers(1, most).flatmap(lambda size: arrays(np.float64, (size, size), elements=cells))


def brute_value(table: np.ndarray, groups: list[list[int]]) -> float:
    total = 0.0
    for group in groups:
        for task in group:
            others = [table[other, task] for other in group if other != task]
            total += float(np.mean([0.0 if np.isnan(value) else value for value in others])) if others else 0.0
    return total


@given(table=tables(6), most=st.integers(1, 6))
@settings(max_examples=80)
def test_exact_search_finds_what_brute_force_finds(table: np.ndarray, most: int) -> None:
    allowed = [groups for groups in partitions(list(range(len(table)))) if len(groups) <= most]
    best = max(brute_value(table, groups) for groups in allowed)
    found = best_grouping(table, most)
    assert found.is_exact
    assert found.value == pytest.approx(best, abs=1e-9)
    assert brute_value(table, [list(group) for group in found.groups]) == pytest.approx(best, abs=1e-9)
    assert len(found.groups) == min(len(groups) for groups in allowed if brute_value(table, groups) >= best - 1e-13)


@given(table=tables(7), most=st.integers(1, 4))
@settings(max_examples=80)
def test_greedy_search_gives_a_partition_that_no_single_move_betters(table: np.ndarray, most: int) -> None:
    found, exact = best_grouping(table, most, exact_limit=0), best_grouping(table, most)
    assert not found.is_exact
    assert sorted(task for group in found.groups for task in group) == list(range(len(table)))
    assert len(found.groups) <= most
    assert found.value <= exact.value + 1e-9
    for task in range(len(table)):
        rest = [[member for member in group if member != task] for group in found.groups]
        rest = [group for group in rest if group]
        places = [[*rest[:k], [*group, task], *rest[k + 1 :]] for k, group in enumerate(rest)]
        places += [[*rest, [task]]] if len(rest) < most else []
        assert all(brute_value(table, other) <= found.value + 1e-9 for other in places)


@given(table=tables(5), most=st.integers(1, 5), seed=st.integers(0, 100))
@settings(max_examples=40)
def test_the_order_of_tasks_does_not_matter(table: np.ndarray, most: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(table))
    assert best_grouping(table[np.ix_(order, order)], most).value == pytest.approx(best_grouping(table, most).value, abs=1e-9)


def test_two_blocks_are_found_at_any_size() -> None:
    for size in (6, 14):  # exact, greedy
        block = np.arange(size) % 2
        table = np.where(block[:, None] == block[None, :], 0.4, -0.3)
        found = best_grouping(table, 4)
        assert found.groups == (tuple(range(0, size, 2)), tuple(range(1, size, 2)))
        assert found.is_exact == (size == 6)


def test_tasks_that_hurt_everybody_stay_alone_unless_there_is_no_room() -> None:
    table = [[1, 0.5, -0.9], [0.5, 1, -0.9], [-0.2, -0.2, 1]]
    assert best_grouping(table, 3).groups == ((0, 1), (2,))
    assert best_grouping(table, 1).groups == ((0, 1, 2),)
    against = -np.ones((3, 3))
    assert best_grouping(against, 3).groups == ((0,), (1,), (2,))
    assert best_grouping(against, 3).value == 0.0


def test_a_tie_goes_to_fewer_groups() -> None:
    assert best_grouping(np.zeros((4, 4)), 4).groups == ((0, 1, 2, 3),)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \[T, T\]"):
        best_grouping(np.zeros((2, 3)), 1)
    with pytest.raises(ValueError, match="`max_groups` must be at least 1; got 0"):
        best_grouping(np.zeros((2, 2)), 0)
    with pytest.raises(ValueError, match="infinities"):
        best_grouping([[0, np.inf], [0, 0]], 1)
    with pytest.raises(ValueError, match="each of the 3 tasks once"):
        grouping_value(np.zeros((3, 3)), [[0, 1]])


def measured(noise: float, count: int = 6) -> dict[str, object]:
    draw = np.random.default_rng(1)
    truth = np.array([[1.0, 0.4, -0.3], [0.4, 1.0, -0.3], [-0.3, -0.3, 1.0]])
    return summarise_affinity(
        [torch.tensor(truth + noise * draw.normal(size=(3, 3))) for _ in range(count)], ["depth", "normals", "edges"]
    )


def test_sure_measurements_give_sure_words() -> None:
    found = group_tasks(measured(0.01), 3)
    assert found["groups"] == [["depth", "normals"], ["edges"]]
    assert min(found["confidence"]) > 0.99
    assert found["value"] > 0.7 > 0.0 > found["together"]
    assert advise_grouping(found, {"depth": "transfer", "normals": "transfer", "edges": "harm"}) == [
        "Train `depth` with `normals` (confidence 99 %).",
        "Keep `edges` apart (confidence 99 %).",
    ]
    assert json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("label", ["unclear", "no gain", "regularisation", "gain", "cost", "loss"])
def test_steady_measurements_advise_nothing_that_shuffled_companions_do_not_bear_out(label: str) -> None:
    found = group_tasks(measured(0.01), 3)
    assert min(found["confidence"]) > 0.99
    assert advise_grouping(found, dict.fromkeys(found["tasks"], label)) == [
        "No grouping is advised: against shuffled companions, no group of tasks was shown to help all its members."
    ]
    half = {"depth": "transfer", "normals": label, "edges": "transfer"}
    assert advised_groups(found, half) == []  # one member is not enough, and who is helped is not to be kept apart
    assert advise_grouping(found, None)[0].startswith("No grouping is advised: the affinities were not checked against shuffled")


def test_noise_takes_the_advice_away() -> None:
    found = group_tasks(measured(2.0), 3)
    assert min(found["confidence"]) < 0.8
    borne_out = {name: "transfer" if len(group) > 1 else "harm" for group in found["groups"] for name in group}
    assert len(advised_groups(found, borne_out)) < len(found["groups"])


def test_advice_agrees_with_the_controls_whatever_the_affinities_are() -> None:
    draw = np.random.default_rng(3)
    labels = ["transfer", "harm", "unclear"]
    seen = set()
    for _ in range(60):
        found = group_tasks(measured(float(draw.choice([0.01, 0.3, 2.0])), count=int(draw.choice([1, 6]))), 3, draws=100)
        controls = {name: str(draw.choice(labels, p=[0.6, 0.25, 0.15])) for name in found["tasks"]}
        advice = advise_grouping(found, controls)
        for sentence in advice:
            words, names = sentence.lower(), sentence.split("`")[1::2]
            seen.add(sentence.partition("`")[0])
            if "no group of tasks was shown to help all its members" in sentence:
                assert all(any(controls[name] != "transfer" for name in group) or len(group) < 2 for group in found["groups"])
            elif words.startswith(("train", "probably train")):
                assert names in found["groups"]
                assert {controls[name] for name in names} == {"transfer"}
            elif "apart" in words:
                assert [controls[name] for name in names] == ["harm"]
    assert len(seen) >= 4


def test_one_measurement_says_nothing_of_its_noise() -> None:
    found = group_tasks(measured(0.01, count=1), 3)
    assert found["confidence"] is None
    assert advised_groups(found, {"depth": "transfer", "normals": "transfer", "edges": "harm"}) == []


def test_confidence_is_the_share_of_draws_in_which_no_other_place_is_better() -> None:
    """Two tasks, affinities 0.1 each way: together is better whenever their sum is positive."""
    summary = {"tasks": ["a", "b"], "value": [[1, 0.1], [0.1, 1]], "low": [[1, -0.1], [-0.1, 1]], "high": [[1, 0.3], [0.3, 1]]}
    found = group_tasks({**summary, "measurements": 4}, 2, draws=20_000)
    from scipy.stats import t

    error = 0.2 / t.ppf(0.975, 3)
    draw = np.random.default_rng(9).standard_t(3, size=(200_000, 2))
    expected = ((0.2 + error * draw.sum(axis=1)) > 0).mean()
    assert found["confidence"] == [pytest.approx(expected, abs=0.02)] * 2
