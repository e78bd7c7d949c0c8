"""Every built system runs from end to end in seconds: the same command that CI and a curious user type."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.claims.reproduction import reproduce_card
from graftwork.claims.smoke_numbers import processor_kind
from graftwork.core.cards import Card, load_cards

BUILT = [card for card in load_cards().values() if card.recipe]


def test_there_are_systems_to_run() -> None:
    assert BUILT


@pytest.mark.slow
@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_smoke_run_measures_everything(card: Card, tmp_path: Path) -> None:
    done = reproduce_card(card, smoke=True, work=tmp_path, out=tmp_path / "evidence.json", workers=0)
    assert set(done.results) == set(done.recipe.smoke_seeds)
    assert all(set(by_arm) == {arm.name for arm in done.recipe.arms} for by_arm in done.results.values())
    assert len(done.verdict.findings) == len(done.recipe.inequalities)
    assert not (tmp_path / "evidence.json").exists(), "a smoke run is no evidence"
    stored = (card.evidence or {}).get("smoke", {})
    if done.changed and stored["processor"] != processor_kind():
        pytest.skip(f"the numbers were kept on another kind of processor ({stored['processor']}): {done.changed[0]}")
    assert not done.changed, (
        f"the evidence of {card.slug} stands on shared code that computes something else now; measure it again, or say that "
        f"it is stale: graftwork reproduce {card.slug} --smoke --mark"
    )


@pytest.mark.parametrize("card", [card for card in BUILT if card.has_run], ids=lambda card: card.slug)
def test_evidence_keeps_the_numbers_of_its_smoke_run(card: Card) -> None:
    numbers = (card.evidence or {})["smoke"]["numbers"]
    assert numbers
    assert all(values for by_arm in numbers.values() for values in by_arm.values())
