"""All systems are listed from the first day, and a built one has all its files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from source_tree import PACKAGE, ROOT

from graftwork.core.cards import KINDS, ROOMS, Card, load_cards
from graftwork.core.verdicts import EVIDENCE_FORMAT, verdict_word

NUM_SYSTEMS = 142
AWAITING: dict[str, str] = {
    "atlas": "counting run outstanding",
    "autotransfer": "counting run outstanding",
    "codiemb": "counting run outstanding",
    "concrete-merging": "counting run outstanding",
    "distill-similar": "counting run outstanding",
    "dp4tl": "counting run outstanding",
    "guidance": "counting run outstanding",
    "logits-fusion": "counting run outstanding",
    "mhr": "counting run outstanding",
    "mobiletl": "counting run outstanding",
    "s2a": "counting run outstanding",
    "scalearn": "counting run outstanding",
    "scalekd": "counting run outstanding",
    "sft-compose": "counting run outstanding",
    "sherl": "counting run outstanding",
    "unipt": "counting run outstanding",
    "vl-adapter": "counting run outstanding",
}
"""Built systems whose counting run is still to come: they are shown as `no evidence`, never with a verdict."""
BUILT = [card for card in load_cards().values() if card.is_built]


def test_all_systems_have_a_card() -> None:
    cards = load_cards()
    assert len(cards) == NUM_SYSTEMS
    assert len(list((PACKAGE / "cards").glob("*.toml"))) == NUM_SYSTEMS
    assert set(Counter(card.room for card in cards.values())) == set(ROOMS)
    assert {card.kind for card in cards.values()} <= set(KINDS)


@pytest.mark.parametrize("card", load_cards().values(), ids=lambda card: card.slug)
def test_cards_tell_enough(card: Card) -> None:
    assert card.link == "" or card.link.startswith("https://")
    assert 1990 <= card.year <= 2030
    assert len(card.summary) >= 60
    assert len(card.claim) >= 60
    assert card.essentials
    assert card.tags
    if card.arxiv:
        assert card.arxiv in card.link


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_built_systems_have_all_five_files(card: Card) -> None:
    stem = card.slug.replace("-", "_")
    for file in card.source_files():
        assert file.exists(), file
    assert card.recipe == f"graftwork.recipes.{card.room}.{stem}"
    if card.components:
        assert any(f".{stem}:" in path for path in card.components), "the module carries the name of the system"
        assert list((ROOT / "tests" / "unit").rglob(f"test_{stem}.py")), f"no test_{stem}.py"
    if card.slug in AWAITING:
        assert not card.has_run, "it has evidence now: take it off the list"
        assert card.status == "no evidence"
    else:
        assert card.evidence_file.exists(), f"no evidence: run graftwork reproduce {card.slug}"


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_a_claim_that_does_not_hold_as_a_whole_is_explained(card: Card) -> None:
    if card.status in ("partly", "mixed", "open", "contradicted"):
        assert card.analysis, "say under `analysis` what was tried and what the numbers tell"


@pytest.mark.parametrize("card", BUILT, ids=lambda card: card.slug)
def test_evidence_is_judged_by_the_rules_of_today(card: Card) -> None:
    evidence = card.evidence or {}
    if evidence.get("format") == EVIDENCE_FORMAT and evidence.get("verdict"):
        states = [finding["state"] for finding in evidence["inequalities"] if finding["primary"]]
        assert evidence["verdict"] == verdict_word(states)
        assert all(len(finding["differences"]) == len(evidence["seeds"]) for finding in evidence["inequalities"])
    else:
        assert card.status in ("stale", "no evidence"), "words of earlier rules are never shown as a verdict"


@pytest.mark.parametrize("path", sorted((PACKAGE / "results").rglob("*.json")), ids=lambda path: path.stem)
def test_evidence_belongs_to_a_built_system(path: Path) -> None:
    card = load_cards()[path.stem]
    assert card.is_built
    assert card.room == path.parent.name
    assert card.evidence is not None
    assert card.evidence["slug"] == card.slug


def test_the_readme_says_how_many_systems_are_built() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"a catalogue of {NUM_SYSTEMS} published systems" in readme
    assert f"{len(BUILT)} are built" in readme
    assert f"({len(AWAITING)} of them wait for the full run)" in readme
    assert f"{NUM_SYSTEMS - len(BUILT)} are described" in readme
