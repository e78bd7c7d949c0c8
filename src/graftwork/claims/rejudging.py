"""Judging kept measurements again: the words of evidence follow the rules and the recipe of today, without a new run.

Nothing is edited by hand. The per-seed measurements of the evidence file are held against the inequalities of the recipe, looks,
intervals and words are computed anew, and the file says what it was before. Where the code of the system, its recipe or its claim
changed since the run, the smoke run has to give the stored numbers, and somebody has to say in words why the full run would.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.claims.evidence import judged_part, write_evidence
from graftwork.claims.experiment import Recipe
from graftwork.claims.judgement import Verdict, derive_measurements, judge
from graftwork.claims.piloting import chosen_settings
from graftwork.claims.reproduction import reproduce_card
from graftwork.claims.run_plan import choose_looks, recipe_of
from graftwork.claims.smoke_numbers import changed_numbers, smoke_record
from graftwork.core.cards import Card, load_cards
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.verdicts import EVIDENCE_FORMAT

__all__ = ["Rejudged", "cards_of_earlier_rules", "kept_measurements", "rejudge_card"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejudged:
    """What judging again gave."""

    card: Card
    before: str
    """The word that the file had."""
    verdict: Verdict
    path: Path


def cards_of_earlier_rules() -> list[Card]:
    """Return the cards whose evidence was judged by earlier rules, and has no word of today's."""
    return [
        card
        for card in load_cards().values()
        if card.is_built and card.evidence is not None and card.evidence.get("format") != EVIDENCE_FORMAT
    ]


def rejudge_card(card: Card, *, because: str = "") -> Rejudged:
    """Judge the kept measurements of a card's evidence by the rules and the recipe of today, and write the file.

    Args:
        card: A system with evidence.
        because: Why the numbers are those of today's code although module, recipe or claim changed since the run; it is kept in
            the file. Needed only there, and then the smoke numbers must come out as well.

    Raises:
        ConfigError: If there is no evidence, it is of other code and ``because`` is empty, or the recipe asks for what was not
            measured.
        GraftworkError: If the smoke numbers no longer come out.
    """
    if card.evidence is None or "measurements" not in card.evidence:
        raise ConfigError(f"{card.slug!r} has no measurements to judge: run graftwork reproduce {card.slug}.")
    evidence = dict(card.evidence)
    recipe = recipe_of(card)
    results = derive_measurements(recipe, kept_measurements(recipe, evidence))
    looks = choose_looks(recipe, len(results))
    if len(results) not in looks:
        raise ConfigError(
            f"The evidence of {card.slug!r} has {len(results)} seeds, and the recipe looks after {', '.join(map(str, looks))}: it "
            f"cannot be judged again. Run graftwork reproduce {card.slug}."
        )
    if recipe.pilot is not None:
        evidence["chosen"] = _counted_with(recipe, evidence)
    if not card.is_evidence_fresh:
        evidence |= _renewed(card, evidence, because)
    # Only now: a reason may have renewed the pilot as well.
    chosen_settings(card, recipe, evidence)
    verdict = judge(recipe, results, looks)
    before = str(evidence.get("verdict", ""))
    if before != verdict.word or evidence.get("format") != EVIDENCE_FORMAT:
        # Every word that the file ever had stays in it.
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        evidence["rejudged"] = [*evidence.get("rejudged", []), {"on": today, "before": before}]
    evidence |= {"format": EVIDENCE_FORMAT, **judged_part(verdict, looks)}
    write_evidence(evidence, card.evidence_file)
    return Rejudged(card=card, before=before, verdict=verdict, path=card.evidence_file)


def kept_measurements(recipe: Recipe, evidence: Mapping[str, Any]) -> dict[int, dict[str, dict[str, float]]]:
    """Return the measurements of an evidence file as ``{seed: {arm: {metric: value}}}``, seeds in the order of the recipe.

    Raises:
        ConfigError: If arms or seeds of the file are not those of the recipe.
    """
    kept: Mapping[str, Mapping[str, Mapping[str, float]]] = evidence["measurements"]
    seeds = [int(seed) for seed in evidence["seeds"]]
    names = {arm.name for arm in recipe.arms}
    if set(kept) != names or any({int(seed) for seed in by_seed} != set(seeds) for by_seed in kept.values()):
        raise ConfigError(
            f"The evidence of {recipe.slug!r} has the arms {', '.join(sorted(kept))} and the recipe {', '.join(sorted(names))}, or "
            f"some seed is missing: it cannot be judged again. Run graftwork reproduce {recipe.slug}."
        )
    if tuple(seeds) != recipe.seeds[: len(seeds)] and len(seeds) <= len(recipe.seeds):
        raise ConfigError(
            f"The evidence of {recipe.slug!r} has the seeds {seeds}, and the recipe begins with "
            f"{list(recipe.seeds[: len(seeds)])}: it cannot be judged again. Run graftwork reproduce {recipe.slug}."
        )
    return {seed: {name: dict(kept[name][str(seed)]) for name in kept} for seed in seeds}


def _counted_with(recipe: Recipe, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the pilot chose, after a check that the kept measurements were made with it."""
    chosen: dict[str, Any] = dict(evidence.get("pilot", {}).get("chosen", {}))
    ran = {arm["name"]: arm["settings"] for arm in evidence["arms"]}
    others = [
        f"arm {arm!r}: {name} = {ran[arm].get(name)!r}, the pilot chose {value!r}"
        for arm, settings in chosen.items()
        for name, value in settings.items()
        if ran[arm].get(name) != value
    ]
    if others:
        raise ConfigError(
            f"The measurements of {recipe.slug!r} were made with other settings than its pilot chose: run graftwork reproduce "
            f"{recipe.slug}.",
            others,
        )
    return chosen


def _renewed(card: Card, evidence: Mapping[str, Any], because: str) -> dict[str, Any]:
    """Return the hashes of today, after the smoke run has given the stored numbers."""
    if not because:
        raise ConfigError(
            f"The module, recipe or claim of {card.slug!r} changed since its run. Say with --because why a full run would give the "
            f"same numbers, or run it again: graftwork reproduce {card.slug}."
        )
    stored = evidence.get("smoke", {}).get("numbers", {})
    done = reproduce_card(card, smoke=True)
    found = smoke_record(done.results, done.losses)["numbers"]
    changed = changed_numbers(stored, found)
    if changed:
        lines = "".join(f"\n  {line}" for line in changed[:10])
        raise GraftworkError(
            f"The smoke numbers of {card.slug!r} no longer come out, so its measurements cannot be kept. Run it again.{lines}"
        )
    exact = "bit for bit" if stored == found else "within the tolerance"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    note = f"On {today}: {because.strip().rstrip('.')}; the smoke numbers came out {exact}, so the hash was renewed without a new run."
    pilot = evidence.get("pilot")
    if pilot and pilot.get("evidence_hash") == evidence.get("evidence_hash"):
        # The counting run took what this pilot chose, of the very code that the reason is about.
        pilot = {**pilot, "evidence_hash": card.evidence_hash()}
    return {
        **({"pilot": pilot} if pilot else {}),
        "migrated": f"{evidence.get('migrated', '')} {note}".strip(),
        "evidence_hash": card.evidence_hash(),
        "bytes_hash": card.bytes_hash(),
        "claim": card.claim,
    }
