"""The verb ``reproduce``: run a system's recipe, hold the guards, judge the claim, leave evidence.

All arms and seeds belong to one run: evidence is never patched together from runs of different code. A killed run is taken up
again with ``resume``; finished jobs are read, not repeated, and give the same numbers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.claims.budgets import check_budgets
from graftwork.claims.evidence import FORMAT, build_evidence, write_evidence
from graftwork.claims.experiment import Recipe
from graftwork.claims.judgement import Verdict, derive_measurements, judge
from graftwork.claims.reproduction_job import Job, JobResult, load_recipe, read_result
from graftwork.claims.reproduction_pool import run_jobs
from graftwork.claims.smoke_numbers import changed_numbers, smoke_record
from graftwork.core.cards import Card, load_cards, nearest_cards
from graftwork.core.errors import CheckpointError, ConfigError, FileFormatError, GraftworkError, StorageError
from graftwork.core.files import cache_folder, check_writable_folder, read_json, write_json
from graftwork.core.folders import FolderKind, check_folder, check_output_file, claim_folder, remove_own
from graftwork.core.machine import available_cores

__all__ = ["Reproduction", "reproduce", "reproduce_card", "stale_cards"]

OnEvent = Callable[[Mapping[str, Any]], None]

WORK_KIND = FolderKind(
    marker="state.json",
    format="graftwork-reproduction-1",
    noun="the work folder of a reproduction",
    flag="--work",
    lock="lock",
    earlier_keys=frozenset({"evidence_hash", "smoke"}),
)


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
        seeds: Number of seeds in place of the recipe's; fewer than the recipe's give no evidence in the package, more add seeds
            to it.
        resume: Take up what a stopped run of the same code left.
        out: File for the evidence; by default the package's ``results/<room>/<slug>.json``. Evidence there is replaced, another
            file not.
        work: Folder for finished jobs, absent, empty or of an earlier reproduction; by default in the user's cache.
        workers: Processes; by default one per core, one if the recipe measures time, and none (this process) for smoke runs.
        on_event: Called with each event: mappings with ``kind`` ``start``, ``progress`` or ``job``.

    Raises:
        ConfigError: If there is no such system, its recipe is not consistent, or ``out`` or ``work`` holds files of the user.
        GraftworkError: If it is only planned, or an arm fails.
        AccessError: If an arm saw what it had not declared.
        BudgetError: If arms did not spend what is declared equal.
        CheckpointError: If ``resume`` finds a run of other code.
    """
    cards = load_cards()
    if slug not in cards:
        near = ", ".join(card.slug for card in nearest_cards(slug)) or "see `graftwork systems`"
        raise ConfigError(f"There is no system {slug!r}. Nearest: {near}.")
    return reproduce_card(
        cards[slug], smoke=smoke, seeds=seeds, resume=resume, out=out, work=work, workers=workers, on_event=on_event
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
    if not card.recipe:
        raise GraftworkError(
            f"{card.slug!r} is planned: there is a card but no recipe yet. `graftwork systems` shows which "
            f"systems can be reproduced."
        )
    recipe = load_recipe(card.recipe, card.slug)
    chosen = choose_seeds(recipe, smoke=smoke, number=seeds)
    is_full = not smoke and len(chosen) >= len(recipe.seeds)
    target = _evidence_target(out) if out is not None else card.evidence_file
    folder = Path(work) if work is not None else cache_folder("reproduce", card.slug, "smoke" if smoke else "full")
    check_folder(folder, WORK_KIND)
    # Everything that can refuse does so now, not after an hour of training.
    if is_full:
        check_folder(folder / "smoke", WORK_KIND)
        check_writable_folder(target.parent)
    listener = on_event or (lambda event: None)
    run = _measure(card, recipe, chosen, folder, smoke=smoke, resume=resume, workers=workers, on_event=listener)
    verdict = judge(recipe, run.results)
    evidence: dict[str, Any] | None = None
    changed: tuple[str, ...] = ()
    if is_full:
        # After the full run, with the same code: the numbers that later tell whether shared code has changed.
        small = _measure(
            card, recipe, recipe.smoke_seeds, folder / "smoke", smoke=True, resume=resume, on_event=lambda event: None
        )
        evidence = build_evidence(
            card,
            recipe,
            verdict,
            results=run.results,
            budgets=run.counts,
            seconds=run.seconds,
            reports=run.reports,
            smoke=smoke_record(small.results, small.losses),
        )
        write_evidence(evidence, target)
        notes: tuple[str, ...] = ()
    elif smoke:
        notes = ("a smoke run says that everything runs, not that the claim holds",)
        changed = _changed_since(card, smoke_record(run.results, run.losses))
    else:
        notes = (f"{len(chosen)} of {len(recipe.seeds)} seeds: no evidence is written for fewer seeds than the recipe asks for",)
    return Reproduction(
        card=card,
        recipe=recipe,
        verdict=verdict,
        seeds=chosen,
        smoke=smoke,
        results=run.results,
        seconds=round(sum(sum(by_arm.values()) for by_arm in run.seconds.values()), 3),
        evidence=evidence,
        path=target if evidence else None,
        notes=notes,
        changed=changed,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the jobs of one run gave: ``{seed: {arm: ...}}``."""

    results: dict[int, dict[str, dict[str, float]]]
    counts: dict[int, dict[str, dict[str, int]]]
    seconds: dict[int, dict[str, float]]
    losses: dict[int, dict[str, float | None]]
    reports: dict[int, dict[str, dict[str, Any]]]


def _measure(
    card: Card,
    recipe: Recipe,
    seeds: tuple[int, ...],
    folder: Path,
    *,
    smoke: bool,
    resume: bool,
    on_event: OnEvent,
    workers: int | None = None,
) -> _Measured:
    """Run all arms with some seeds and hold the budgets; see :func:`reproduce` for what may go wrong."""
    processes = _num_workers(recipe, smoke, workers)
    # The only process may use all cores; several would fight for them.
    threads = 1 if processes != 1 else available_cores()
    jobs = [
        Job(recipe=card.recipe, slug=card.slug, arm=arm.name, seed=seed, smoke=smoke, work=str(folder), threads=threads)
        for seed in seeds
        for arm in recipe.arms
    ]
    fingerprint = card.evidence_hash()
    with _work_folder(folder, {"evidence_hash": fingerprint, "smoke": smoke}, resume=resume):
        finished = _run(jobs, processes, on_event)
        # Imports happened at some point during the run: nobody knows which half ran which code.
        if card.evidence_hash() != fingerprint:
            raise GraftworkError(
                f"The module or recipe of {card.slug!r} was edited while it ran, so the numbers belong to no code. Run it again."
            )
        counts = _table(jobs, finished, lambda result: result.counts)
        # Before the verdict: unequal arms are not compared.
        check_budgets(recipe, counts)
        return _Measured(
            results=derive_measurements(recipe, _table(jobs, finished, lambda result: result.measurements)),
            counts=counts,
            seconds=_table(jobs, finished, lambda result: result.seconds),
            losses=_table(jobs, finished, lambda result: result.training_loss),
            reports=_table(jobs, finished, lambda result: {**result.reports, "used": list(result.used)}),
        )


def _changed_since(card: Card, record: Mapping[str, Any]) -> tuple[str, ...]:
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


def _run(jobs: list[Job], workers: int, on_event: OnEvent) -> dict[str, JobResult]:
    # Finished jobs of this very code: `_work_folder` has removed all others.
    finished = {job.name: read_result(job.result_file) for job in jobs if job.result_file.exists()}
    waiting = [job for job in jobs if job.name not in finished]
    on_event({"kind": "start", "jobs": len(jobs), "finished": len(finished), "workers": max(workers, 1)})

    def report_progress(job: Job, fraction: float, text: str) -> None:
        on_event({"kind": "progress", "arm": job.arm, "seed": job.seed, "fraction": fraction, "text": text})

    def report_done(job: Job, result: JobResult) -> None:
        finished[job.name] = result
        on_event(
            {
                "kind": "job",
                "arm": job.arm,
                "seed": job.seed,
                "seconds": result.seconds,
                "finished": len(finished),
                "jobs": len(jobs),
                "measurements": result.measurements,
            }
        )

    run_jobs(waiting, workers=workers, on_progress=report_progress, on_done=report_done)
    return finished


def _table(jobs: list[Job], finished: Mapping[str, JobResult], pick: Callable[[JobResult], Any]) -> dict[int, dict[str, Any]]:
    table: dict[int, dict[str, Any]] = {}
    for job in jobs:
        table.setdefault(job.seed, {})[job.arm] = pick(finished[job.name])
    return table


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
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ConfigError(f"{target} is not evidence of graftwork, so it is not replaced. Name another file with --out.")
    return target


@contextlib.contextmanager
def _work_folder(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Hold the folder for finished jobs; what an earlier reproduction left in it goes away unless it is taken up again.

    Raises:
        ConfigError: If the folder belongs to the user, or another reproduction works in it.
        CheckpointError: If ``resume`` finds a run of other code.
        StorageError: If older results cannot be removed.
    """
    claim = claim_folder(folder, WORK_KIND)
    try:
        state = folder / WORK_KIND.marker
        if resume and not claim.is_new:
            if {key: value for key, value in read_json(state).items() if key != "format"} != identity:
                raise CheckpointError(
                    f"The run in {folder} was made with another recipe, module or claim than today's, so its jobs cannot be "
                    "used. Run again without --resume."
                )
        else:
            for name in ("done", "jobs", "shared"):
                if not remove_own(folder, name):  # what stays would be taken for results of this run
                    raise StorageError(
                        f"Cannot remove {folder / name}, which holds older results. Choose another folder with --work."
                    )
            write_json(state, {"format": WORK_KIND.format, **identity})
        yield
    finally:
        claim.release()


def _num_workers(recipe: Recipe, smoke: bool, workers: int | None) -> int:
    if workers is not None:
        if workers < 0:
            raise ConfigError(f"--workers must be at least 0; got {workers}.")
        # Times measured side by side would slow each other.
        return min(workers, 1) if recipe.measures_time else workers
    if smoke:
        return 0
    return 1 if recipe.measures_time else available_cores()
