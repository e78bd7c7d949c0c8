from __future__ import annotations

import pytest

from graftwork.claims.smoke_numbers import changed_numbers, repeatable, smoke_record


def numbers(**values: float) -> dict[str, dict[str, dict[str, float]]]:
    return {"0": {"mine": {f"m{index}": 50.0 for index in range(20)} | values}}


def test_equal_numbers_are_fine() -> None:
    assert changed_numbers(numbers(), numbers()) == []


def test_one_flipped_answer_is_rounding_but_many_are_a_change() -> None:
    assert changed_numbers(numbers(), numbers(m0=52.0)) == []
    moved = {f"m{index}": 55.0 for index in range(5)}
    assert len(changed_numbers(numbers(), numbers(**moved))) == 5


def test_the_training_loss_is_held_tighter() -> None:
    assert changed_numbers(numbers(training_loss=1.0), numbers(training_loss=1.0005)) == []
    assert changed_numbers(numbers(training_loss=1.0), numbers(training_loss=1.005)) == [
        "seed 0, mine, training_loss: 1.005, was 1"
    ]


def test_missing_numbers_count() -> None:
    assert changed_numbers(numbers(more=1.0), numbers()) == ["seed 0, mine, more: not measured any more"]
    assert changed_numbers(numbers(), numbers(more=1.0)) == ["seed 0, mine, more: measured now"]
    assert changed_numbers({}, numbers())[0].endswith("measured now")


@pytest.mark.parametrize("name", ["step_ms", "fit_seconds", "peak_rss_bytes"])
def test_times_and_memory_do_not_count(name: str) -> None:
    assert not repeatable(name)
    assert changed_numbers(numbers(**{name: 1.0}), numbers(**{name: 9.0})) == []
    assert name not in smoke_record({0: {"mine": {name: 1.0}}}, {0: {}})["numbers"]["0"]["mine"]


def test_a_record_has_losses_where_there_are_some() -> None:
    record = smoke_record({0: {"a": {"x": 1.0}, "b": {"x": 2.0}}}, {0: {"a": 0.5, "b": None}})
    assert record["numbers"] == {"0": {"a": {"x": 1.0, "training_loss": 0.5}, "b": {"x": 2.0}}}
