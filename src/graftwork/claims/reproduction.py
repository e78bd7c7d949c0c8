"""The verb ``reproduce``: run a system's recipe, hold the guards, judge the claim, leave evidence.

Seeds are added until the claim is decided: the run looks after the numbers of seeds that the recipe plans, with intervals that
are corrected for the looks, and stops when every primary inequality is shown or refuted.

All arms and seeds belong to one run: evidence is never patched together from runs of different code. A killed run is taken up
again with ``resume``; finished jobs are read, not repeated, and give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.claims.convergence import convergence_record
from graftwork.claims.evidence import build_evidence, write_evidence
from graftwork.claims.experiment import Recipe
from graftwork.claims.judgement import Verdict, judge
from graftwork.claims.measuring import WORK_KIND, OnEvent, mark_ended, measure
from graftwork.claims.piloting import PilotOutcome, chosen_settings, run_pilot
from graftwork.claims.run_plan import card_of, choose_looks, choose_seeds, evidence_target, recipe_of, stored_evidence
from graftwork.claims.smoke_numbers import changed_numbers, smoke_record
from graftwork.core.cards import Card, load_cards
from graftwork.core.files import cache_folder, check_writable_folder
from graftwork.core.folders import check_folder

__all__ = ["Reproduction", "changed_since", "pilot_card", "reproduce", "reproduce_card", "stale_cards"]


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
    target = evidence_target(out) if out is not None else card.evidence_file
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
    if is_full or smoke:
        mark_ended(folder)
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
            convergence=convergence_record(run.curves),
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
    target = evidence_target(out) if out is not None else card.evidence_file
    folder = Path(work) if work is not None else cache_folder("reproduce", card.slug, "pilot")
    check_folder(folder, WORK_KIND)
    check_writable_folder(target.parent)
    return run_pilot(card, recipe, target, folder, resume=resume, workers=workers, on_event=on_event or (lambda event: None))


def changed_since(card: Card, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which smoke numbers of the card's evidence no longer come out; nothing if it has none, or is of other code
    anyway."""
    stored = (card.evidence or {}).get("smoke", {})
    # Evidence of other code may have other smoke numbers, and is stale for that reason already.
    if "numbers" not in stored or card.status in ("stale", "no evidence"):
        return ()
    return tuple(changed_numbers(stored["numbers"], record["numbers"]))


def stale_cards() -> list[Card]:
    """Return the cards whose evidence belongs to other code or another claim, or whose smoke numbers no longer come out.

    Evidence that was only judged by earlier rules is not among them: its measurements are judged again without a run.
    """
    return [card for card in load_cards().values() if card.status == "stale" and not card.is_evidence_fresh]
