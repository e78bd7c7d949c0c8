"""The sentences of a recommendation follow from standings, costs and the control."""

from __future__ import annotations

from graftwork.evaluation.choice.source_choice import RankedSource, choose_source
from graftwork.evaluation.score_stability import Standing


def source(name: str, rank: float, first: float, cost: float = 10.0, control: bool = False) -> RankedSource:
    return RankedSource(name=name, standing=Standing(rank, rank - 0.5, rank + 0.5, first), milliseconds=cost, is_control=control)


def choose(*sources: RankedSource) -> tuple[str, str, str, str]:
    found = choose_source(sources, num_tasks=2, num_scores=3, draws=30)
    return found.name, found.strength, found.cheaper, " ".join(found.sentences)


def test_a_clear_winner_is_taken() -> None:
    name, strength, cheaper, text = choose(
        source("b", 2.0, 0.0, 1.0), source("a", 1.0, 1.0), source("scratch", 3.0, 0.0, 1.0, True)
    )
    assert (name, strength, cheaper) == ("a", "sure", "")
    assert "Take `a`: mean rank 1.00 of 3 over 2 tasks and 3 scores, first in 100 % of 30 half-samples." in text


def test_a_cheaper_source_that_is_not_ruled_out_is_named() -> None:
    name, strength, cheaper, text = choose(source("a", 1.2, 0.85), source("b", 1.6, 0.15, 2.0))
    assert (name, strength, cheaper) == ("a", "probable", "b")
    assert "`b` costs 2 ms a row, `a` 10 ms" in text
    assert "Not ruled out: `b` (15 %)" in text


def test_an_open_field_is_called_open() -> None:
    name, strength, _, text = choose(source("a", 1.4, 0.5), source("b", 1.6, 0.5, 9.0))
    assert (name, strength) == ("a", "open")
    assert "No source is clearly the best" in text


def test_equal_ranks_go_to_the_quicker_source() -> None:
    assert choose(source("slow", 1.5, 0.5, 20.0), source("quick", 1.5, 0.5, 5.0))[0] == "quick"


def test_a_control_in_front_is_never_recommended() -> None:
    name, strength, _, text = choose(source("a", 2.0, 0.0), source("scratch", 1.0, 1.0, control=True))
    assert (name, strength) == ("a", "control")
    assert "Consider training from scratch" in text


def test_a_single_source_is_not_compared() -> None:
    assert "only source" in choose(source("a", 1.0, 1.0))[3]


def test_tasks_with_another_first_source_are_named() -> None:
    sources = [source("a", 1.2, 1.0), source("b", 1.8, 0.0)]
    own = {"x": [Standing(1, 1, 1, 1.0), Standing(2, 2, 2, 0.0)], "y": [Standing(2, 2, 2, 0.1), Standing(1, 1, 1, 0.9)]}
    found = choose_source(sources, num_tasks=2, num_scores=3, draws=30, by_task=own)
    assert "`b` is first for `y` in at least 80 %" in " ".join(found.sentences)
    assert "`x`" not in " ".join(found.sentences)
