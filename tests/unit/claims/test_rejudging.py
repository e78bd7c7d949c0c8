from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graftwork.claims.rejudging import cards_of_earlier_rules, kept_measurements, rejudge_card
from graftwork.claims.reproduction import reproduce_card, stale_cards
from graftwork.claims.reproduction_job import load_recipe
from graftwork.core.cards import Card
from graftwork.core.errors import ConfigError, GraftworkError

RECIPE = """
from graftwork.claims.experiment import Arm, Inequality, Recipe

def run_arm(arm, seed, context):
    gain = (1.0, 1.3, 0.9, 1.2, 1.1, 1.0, 1.2, 1.1)[seed] if arm.name == "mine" else 0.0
    return {"score": seed + gain, "twice": 2 * (seed + gain)}

RECIPE = Recipe(
    slug="toy",
    arms=(Arm("base", "baseline"), Arm("mine", "method")),
    seeds=(0, 1, 2, 3, 4),
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(Inequality("beats it", "mine.score", "base.score", margin=0.5),),
)
"""


def card_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> Card:
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(Card, "evidence_file", tmp_path / "toy.json")
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    return Card(slug="toy", title="Toy", year=2020, room="merging", kind="method", summary="s", claim="c", recipe=name)


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    card = card_with(tmp_path, monkeypatch, RECIPE, f"toy_{abs(hash(tmp_path))}")
    reproduce_card(card, work=tmp_path / "work", workers=0)
    return replace(card)


def stored(tmp_path: Path) -> dict[str, Any]:
    return dict(json.loads((tmp_path / "toy.json").read_text(encoding="utf-8")))


def make_old(tmp_path: Path, **changes: Any) -> None:
    """Turn the evidence into that of the first format, whose words were other ones."""
    old = {**stored(tmp_path), "format": "graftwork-evidence-1", "verdict": "does not hold", **changes}
    for key in ("reason", "looks"):
        old.pop(key)
    for finding in old["inequalities"]:
        finding.pop("looks")
        finding["holds"] = finding.pop("state") != "shown"
    (tmp_path / "toy.json").write_text(json.dumps(old), encoding="utf-8")


def test_words_are_computed_from_the_measurements(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored(tmp_path)
    make_old(tmp_path)
    assert replace(card).status == "stale"
    monkeypatch.setattr("graftwork.claims.reproduction.load_cards", lambda: {"toy": replace(card)})
    assert stale_cards() == [], "nothing has to be run again"
    done = rejudge_card(replace(card))
    assert (done.before, done.verdict.word) == ("does not hold", "holds")
    after = stored(tmp_path)
    assert [item["before"] for item in after.pop("rejudged")] == ["does not hold"]
    assert after == before, "what a run of today would have written, and nothing else"
    assert replace(card).status == "holds"
    rejudge_card(replace(card))
    assert len(stored(tmp_path)["rejudged"]) == 1, "the same word again is no news"


def test_changed_measurements_change_the_word(card: Card, tmp_path: Path) -> None:
    evidence = stored(tmp_path)
    for seed in evidence["measurements"]["mine"]:
        evidence["measurements"]["mine"][seed]["score"] -= 3.0
    (tmp_path / "toy.json").write_text(json.dumps(evidence), encoding="utf-8")
    assert rejudge_card(replace(card)).verdict.word == "contradicted"


def test_a_changed_claim_is_judged_from_what_was_measured(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = card_with(tmp_path, monkeypatch, RECIPE.replace("margin=0.5", "margin=5.0"), f"other_{abs(hash(tmp_path))}")
    with pytest.raises(ConfigError, match="changed since its run. Say with --because"):
        rejudge_card(replace(other))
    done = rejudge_card(replace(other), because="the margin is that of the paper.")
    assert done.verdict.word == "contradicted"
    assert "the margin is that of the paper; the smoke numbers came out bit for bit" in stored(tmp_path)["migrated"]
    assert replace(other).status == "contradicted"


def test_code_that_computes_something_else_is_not_kept(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored(tmp_path)
    other = card_with(tmp_path, monkeypatch, RECIPE.replace("seed + gain", "seed + 7 * gain"), f"else_{abs(hash(tmp_path))}")
    with pytest.raises(GraftworkError, match=r"smoke numbers of 'toy' no longer come out.*\n  seed 0, mine, score"):
        rejudge_card(replace(other), because="nothing changed, honestly")
    assert stored(tmp_path) == before


def test_what_cannot_be_judged_again_says_so(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = stored(tmp_path)
    recipe = load_recipe(card.recipe, "toy")
    with pytest.raises(ConfigError, match="has the arms base and the recipe base, mine"):
        kept_measurements(recipe, {**evidence, "measurements": {"base": evidence["measurements"]["base"]}})
    short = {name: {seed: by_seed[seed] for seed in list(by_seed)[:4]} for name, by_seed in evidence["measurements"].items()}
    (tmp_path / "toy.json").write_text(json.dumps({**evidence, "seeds": [0, 1, 2, 3], "measurements": short}), encoding="utf-8")
    with pytest.raises(ConfigError, match="has 4 seeds, and the recipe looks after 5: it cannot be judged again"):
        rejudge_card(replace(card))
    with pytest.raises(ConfigError, match=r"has the seeds \[5, 6\], and the recipe begins with \[0, 1\]"):
        kept_measurements(
            recipe, {"seeds": [5, 6], "measurements": {name: {"5": {}, "6": {}} for name in evidence["measurements"]}}
        )
    other = RECIPE.replace('"mine.score"', '"mine.other"')
    wanting = card_with(tmp_path, monkeypatch, other, f"wanting_{abs(hash(tmp_path))}")
    (tmp_path / "toy.json").write_text(json.dumps({**evidence, "evidence_hash": wanting.evidence_hash()}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"needs 'mine\.other', but arm 'mine' measured score, twice"):
        rejudge_card(replace(wanting))
    (tmp_path / "toy.json").unlink()
    with pytest.raises(ConfigError, match="has no measurements to judge: run graftwork reproduce toy"):
        rejudge_card(replace(card))


def test_shipped_evidence_is_judged_by_the_rules_of_today() -> None:
    assert cards_of_earlier_rules() == []
