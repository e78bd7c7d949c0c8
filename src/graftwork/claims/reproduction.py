"""The verb ``reproduce``: run a system's recipe, hold the guards, judge the claim, leave evidence.

Seeds are added until the claim is decided: the run looks after the numbers of seeds that the recipe plans, with intervals that
are corrected for the looks, and stops when every primary inequality is shown or refuted.

All arms and seeds belong to one run: evidence is never patched together from runs of different code. A killed run is taken up
again with ``resume``; finished jobs are read, not repeated, and give the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.claims.evidence import build_evidence, write_evidence
from graftwork.claims.experiment import Recipe
from graftwork.claims.judgement import Verdict, judge
from graftwork.claims.looks import check_looks
from graftwork.claims.measuring import WORK_KIND, OnEvent, measure
from graftwork.claims.piloting import PilotOutcome, chosen_settings, run_pilot
from graftwork.claims.reproduction_job import load_recipe
from graftwork.claims.smoke_numbers import changed_numbers, smoke_record
from graftwork.core.cards import Card, load_cards, nearest_cards
from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.files import cache_folder, check_writable_folder, read_json
from graftwork.core.folders import check_folder, check_output_file

__all__ = [
    "Reproduction",
    "card_of",
    "changed_since",
    "choose_looks",
    "choose_seeds",
    "pilot_card",
    "recipe_of",
    "reproduce",
    "reproduce_card",
    "stale_cards",
    "stored_evidence",
]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What a run of a recipe gave."""

    card: Card
    recipe: Recipe
    verdict: Verdict
    """Of a smoke run or of too few seeds as well; then it says nothing about the claim."""
    seeds: tuple[int, ...]
    smoke: bool
    results: Mapping[int, Mapping[str, Mapping[str, float]]]
    """``{seed: {arm: {metric: value}}}``, derived measurements included."""
    losses: Mapping[int, Mapping[str, float | None]]
    """``{seed: {arm: mean training loss}}``."""
    seconds: float
    """Sum over jobs."""
    evidence: Mapping[str, Any] | None = None
    """None if the run was not a full one."""
    path: Path | None = None
    """Where the evidence was written."""
    notes: tuple[str, ...] = field(default=())
    """Why there is no evidence, where there is none."""
    changed: tuple[str, ...] = field(default=())
    """Of a smoke run: its numbers that differ from those in the evidence, in words. If any do, the evidence is stale."""


def reproduce(
    slug: str,
    *,
    smoke: bool = False,
    seeds: int | None = None,
    resume: bool = False,
    out: str | Path | None = None,
    work: str | Path | None = None,
    workers: int | None = None,
    on_event: OnEvent | None = None,
) -> Reproduction:
    """Run the recipe of a system and judge its claim.

    Args:
        slug: The system.
        smoke: Smallest sizes on the smoke seeds, in seconds; no evidence is written.
        seeds: At most so many seeds. Evidence is written where that is one of the recipe's looks; more seeds than the recipe plans
            add a look.
        resume: Take up what a stopped run of the same code left.
        out: File for the evidence; by default the package's ``results/<room>/<slug>.json``. Evidence there is replaced, another
            file not.
        work: Folder for finished jobs, absent, empty or of an earlier reproduction; by default in the user's cache.
        workers: Processes; by default one per core, one if the recipe measures time, and none (this process) for smoke runs.
        on_event: Called with each event: mappings with ``kind`` ``start``, ``progress``, ``job`` or ``look``.

    Raises:
        ConfigError: If there is no such system, its recipe is not consistent, ``out`` or ``work`` holds files of the user, or the
            recipe declares grids and no pilot has been run on them.
        GraftworkError: If it is only planned, or an arm fails.
        AccessError: If an arm saw what it had not declared.
        BudgetError: If arms did not spend what is declared equal.
        CheckpointError: If ``resume`` finds a run of other code.
    """
    return reproduce_card(
        card_of(slug), smoke=smoke, seeds=seeds, resume=resume, out=out, work=work, workers=workers, on_event=on_event
    )


def reproduce_card(
    card: Card,
    *,
    smoke: bool = False,
    seeds: int | None = None,
    resume: bool = False,
    out: str | Path | None = None,
    work: str | Path | None = None,
    workers: int | None = None,
    on_event: OnEvent | None = None,
) -> Reproduction:
    """Run the recipe that a card names; see :func:`reproduce`."""
    recipe = recipe_of(card)
    chosen = choose_seeds(recipe, smoke=smoke, number=seeds)
    looks = recipe.looks if smoke else choose_looks(recipe, len(chosen))
    # A run that stops between two looks has decided nothing.
    is_full = not smoke and len(chosen) in looks
    target = _evidence_target(out) if out is not None else card.evidence_file
    folder = Path(work) if work is not None else cache_folder("reproduce", card.slug, "smoke" if smoke else "full")
    check_folder(folder, WORK_KIND)
    # Everything that can refuse does so now, not after an hour of training.
    stored = stored_evidence(card, target)
    chosen_by_arm = {} if smoke else chosen_settings(card, recipe, stored)
    if is_full:
        check_folder(folder / "smoke", WORK_KIND)
        check_writable_folder(target.parent)
    listener = on_event or (lambda event: None)
    stops = [look for look in looks if look <= len(chosen)] if is_full else [len(chosen)]
    for look in stops:
        # What earlier looks measured is read back, so that a look costs the new seeds only.
        run = measure(
            card,
            recipe,
            chosen[:look],
            folder,
            smoke=smoke,
            resume=resume or look != stops[0],
            workers=workers,
            on_event=listener,
            chosen=chosen_by_arm,
        )
        verdict = judge(recipe, run.results, looks)
        listener({"kind": "look", "seeds": look, "verdict": verdict.word, "reason": verdict.reason})
        if is_full and verdict.is_decided:
            break
    evidence: dict[str, Any] | None = None
    changed: tuple[str, ...] = ()
    if is_full:
        # After the full run, with the same code: the numbers that later tell whether shared code has changed.
        small = measure(
            card, recipe, recipe.smoke_seeds, folder / "smoke", smoke=True, resume=resume, on_event=lambda event: None
        )
        evidence = build_evidence(
            card,
            recipe,
            verdict,
            looks,
            results=run.results,
            budgets=run.counts,
            seconds=run.seconds,
            reports=run.reports,
            smoke=smoke_record(small.results, small.losses),
            pilot=(stored or {}).get("pilot") if recipe.pilot is not None else None,
        )
        write_evidence(evidence, target)
        notes: tuple[str, ...] = ()
    elif smoke:
        notes = ("a smoke run says that everything runs, not that the claim holds",)
        changed = changed_since(card, smoke_record(run.results, run.losses))
    else:
        planned = ", ".join(map(str, looks))
        notes = (f"{len(chosen)} of {len(recipe.seeds)} seeds: evidence is written at the looks of the recipe, after {planned}",)
    return Reproduction(
        card=card,
        recipe=recipe,
        verdict=verdict,
        seeds=chosen[: len(run.results)],
        smoke=smoke,
        results=run.results,
        losses=run.losses,
        seconds=round(sum(sum(by_arm.values()) for by_arm in run.seconds.values()), 3),
        evidence=evidence,
        path=target if evidence else None,
        notes=notes,
        changed=changed,
    )


def pilot_card(
    card: Card,
    *,
    resume: bool = False,
    out: str | Path | None = None,
    work: str | Path | None = None,
    workers: int | None = None,
    on_event: OnEvent | None = None,
) -> PilotOutcome:
    """Tune the arms of a system's recipe on its grids and keep the result in the evidence file, for the counting run.

    Args:
        card: The system.
        resume: Take up a stopped pilot of the same code.
        out: The evidence file; by default the package's.
        work: Folder for finished jobs; by default in the user's cache.
        workers: Processes; by default one per core.
        on_event: Called with each event.

    Raises:
        ConfigError: If the recipe declares no grids, or ``out`` or ``work`` holds files of the user.
        GraftworkError: If the system is only planned, or an arm fails.
    """
    recipe = recipe_of(card)
    target = _evidence_target(out) if out is not None else card.evidence_file
    folder = Path(work) if work is not None else cache_folder("reproduce", card.slug, "pilot")
    check_folder(folder, WORK_KIND)
    check_writable_folder(target.parent)
    return run_pilot(card, recipe, target, folder, resume=resume, workers=workers, on_event=on_event or (lambda event: None))


def stored_evidence(card: Card, target: Path) -> Mapping[str, Any] | None:
    """Return the content of the evidence file that a run will write, with its pilot; where there is none, that of the package."""
    if not target.exists():
        # A card reads its file once: one that is not there yet must not be remembered as none.
        return None if target == card.evidence_file else card.evidence
    content = read_json(target)
    return content if isinstance(content, dict) else None


def card_of(slug: str) -> Card:
    """Return the card of a system.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    cards = load_cards()
    if slug not in cards:
        near = ", ".join(card.slug for card in nearest_cards(slug)) or "see `graftwork systems`"
        raise ConfigError(f"There is no system {slug!r}. Nearest: {near}.")
    return cards[slug]


def recipe_of(card: Card) -> Recipe:
    """Return the recipe that a card names.

    Raises:
        GraftworkError: If the system is only planned.
        ConfigError: If the recipe is that of another system, or not consistent.
    """
    if not card.recipe:
        raise GraftworkError(
            f"{card.slug!r} is planned: there is a card but no recipe yet. `graftwork systems` shows which "
            f"systems can be reproduced."
        )
    return load_recipe(card.recipe, card.slug)


def changed_since(card: Card, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which smoke numbers of the card's evidence no longer come out; nothing if it has none, or is of other code
    anyway."""
    stored = (card.evidence or {}).get("smoke", {})
    # Evidence of other code may have other smoke numbers, and is stale for that reason already.
    if "numbers" not in stored or card.status in ("stale", "no evidence"):
        return ()
    return tuple(changed_numbers(stored["numbers"], record["numbers"]))


def stale_cards() -> list[Card]:
    """Return the cards whose evidence belongs to other code or another claim, or whose smoke numbers no longer come out."""
    return [card for card in load_cards().values() if card.status == "stale"]


def choose_seeds(recipe: Recipe, *, smoke: bool, number: int | None) -> tuple[int, ...]:
    """Return the seeds to run: the recipe's, the first ``number`` of them, or more, counted on from the largest.

    Raises:
        ConfigError: If ``number`` is below 1.
    """
    seeds = recipe.smoke_seeds if smoke else recipe.seeds
    if number is None:
        return seeds
    if number < 1:
        raise ConfigError(f"--seeds must be at least 1; got {number}.")
    # Extra seeds follow the largest one, so the first are those of the recipe.
    more = range(max(seeds) + 1, max(seeds) + 1 + max(0, number - len(seeds)))
    return (*seeds, *more)[:number]


def choose_looks(recipe: Recipe, number: int) -> tuple[int, ...]:
    """Return the numbers of seeds after which a run of at most ``number`` seeds looks: the recipe's, and a further look where
    there are more seeds than the recipe plans.

    Raises:
        ConfigError: If that look would come too soon after the last one.
    """
    if number <= recipe.looks[-1]:
        return recipe.looks
    looks = (*recipe.looks, number)
    problems = check_looks(looks)
    if problems:
        raise ConfigError(
            f"--seeds {number} adds a look to those of the recipe {recipe.slug!r}, which cannot be planned.", problems
        )
    return looks


def _evidence_target(out: str | Path) -> Path:
    """Return where evidence goes.

    Raises:
        ConfigError: If a file lies there that is not evidence.
    """
    target = check_output_file(out, ())
    if os.path.lexists(target):
        try:
            found = read_json(target)
        except (FileFormatError, OSError):
            # A damaged file is the user's as well: it is not replaced.
            found = None
        if not isinstance(found, dict) or not str(found.get("format")).startswith("graftwork-evidence-"):
            raise ConfigError(f"{target} is not evidence of graftwork, so it is not replaced. Name another file with --out.")
    return target
