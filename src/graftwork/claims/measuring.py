"""Running the jobs of a reproduction: every arm with every seed, finished jobs read and not repeated, budgets held equal."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from graftwork.claims.budgets import check_budgets
from graftwork.claims.experiment import Recipe
from graftwork.claims.grids import Settings
from graftwork.claims.judgement import derive_measurements
from graftwork.claims.reproduction_job import Job, JobResult, read_result
from graftwork.claims.reproduction_pool import run_jobs
from graftwork.core.cards import Card
from graftwork.core.errors import CheckpointError, ConfigError, GraftworkError, StorageError
from graftwork.core.files import read_json, write_json
from graftwork.core.folders import FolderKind, claim_folder, remove_own
from graftwork.core.machine import available_cores

__all__ = ["WORK_KIND", "Measured", "OnEvent", "mark_ended", "measure", "num_workers", "running", "work_folder"]

OnEvent: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Called with each event of a run: mappings with ``kind`` ``start``, ``progress``, ``job`` or ``look``."""

WORK_KIND = FolderKind(
    marker="state.json",
    format="graftwork-reproduction-1",
    noun="the work folder of a reproduction",
    flag="--work",
    lock="lock",
    earlier_keys=frozenset({"evidence_hash", "smoke"}),
)

_ENDED = "ended"
"""Key of the state of a run that came to its end."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the jobs of one run gave: ``{seed: {arm: ...}}``."""

    results: dict[int, dict[str, dict[str, float]]]
    counts: dict[int, dict[str, dict[str, int]]]
    seconds: dict[int, dict[str, float]]
    losses: dict[int, dict[str, float | None]]
    reports: dict[int, dict[str, dict[str, Any]]]
    curves: dict[int, dict[str, dict[str, dict[str, Any]]]]


def measure(
    card: Card,
    recipe: Recipe,
    seeds: tuple[int, ...],
    folder: Path,
    *,
    smoke: bool,
    resume: bool,
    on_event: OnEvent,
    workers: int | None = None,
    chosen: Mapping[str, Settings] | None = None,
) -> Measured:
    """Run all arms with some seeds and hold the budgets; see :func:`graftwork.claims.reproduction.reproduce` for what may go
    wrong. ``chosen`` holds the settings that a pilot chose, by arm."""
    settings = chosen or {}
    jobs = [
        Job(
            recipe=card.recipe,
            slug=card.slug,
            arm=arm.name,
            seed=seed,
            smoke=smoke,
            work=str(folder),
            settings=dict(settings.get(arm.name, {})),
        )
        for seed in seeds
        for arm in recipe.arms
    ]
    # What was run with other settings is not taken up again; without a pilot the identity is that of earlier runs.
    identity = {"smoke": smoke, **({"chosen": {name: dict(values) for name, values in settings.items()}} if settings else {})}
    with running(card, recipe, jobs, folder, identity, resume=resume, workers=workers, on_event=on_event) as finished:
        counts = _table(jobs, finished, lambda result: result.counts)
        # Before the verdict: unequal arms are not compared.
        check_budgets(recipe, counts)
        return Measured(
            results=derive_measurements(recipe, _table(jobs, finished, lambda result: result.measurements)),
            counts=counts,
            seconds=_table(jobs, finished, lambda result: result.seconds),
            losses=_table(jobs, finished, lambda result: result.training_loss),
            reports=_table(jobs, finished, lambda result: {**result.reports, "used": list(result.used)}),
            curves=_table(jobs, finished, lambda result: result.curves),
        )


@contextlib.contextmanager
def running(
    card: Card,
    recipe: Recipe,
    jobs: list[Job],
    folder: Path,
    identity: Mapping[str, Any],
    *,
    resume: bool,
    workers: int | None,
    on_event: OnEvent,
) -> Iterator[dict[str, JobResult]]:
    """Run jobs in a work folder, and hand out their results by name while the folder is held.

    Raises:
        GraftworkError: If a job fails, or the code was edited meanwhile.
    """
    processes = num_workers(recipe, bool(identity.get("smoke")), workers)
    # The only process may use all cores; several would fight for them.
    threads = 1 if processes != 1 else available_cores()
    fingerprint = card.evidence_hash()
    with work_folder(folder, {"evidence_hash": fingerprint, **identity}, resume=resume):
        finished = _run_all([replace(job, threads=threads) for job in jobs], processes, on_event)
        # Imports happened at some point during the run: nobody knows which half ran which code.
        if card.evidence_hash() != fingerprint:
            raise GraftworkError(
                f"The module or recipe of {card.slug!r} was edited while it ran, so the numbers belong to no code. Run it again."
            )
        yield finished


def _seeds_apart(jobs: list[Job]) -> list[Job]:
    """Return jobs so that neighbours have different seeds: what the arms of one seed share is built by one process, and others wait."""
    before: Counter[int] = Counter()
    places = []
    for job in jobs:
        places.append(before[job.seed])
        before[job.seed] += 1
    return [job for _, job in sorted(zip(places, jobs, strict=True), key=lambda item: item[0])]


def _run_all(jobs: list[Job], workers: int, on_event: OnEvent) -> dict[str, JobResult]:
    # Finished jobs of this very code: `work_folder` has removed all others.
    finished = {job.name: read_result(job.result_file) for job in jobs if job.result_file.exists()}
    waiting = [job for job in jobs if job.name not in finished]
    if workers > 1:
        waiting = _seeds_apart(waiting)
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
    found: dict[int, dict[str, Any]] = {}
    for job in jobs:
        found.setdefault(job.seed, {})[job.arm] = pick(finished[job.name])
    return found


def mark_ended(folder: Path) -> None:
    """Write down that a run in a work folder came to its end, so that another one may take its place."""
    state = folder / WORK_KIND.marker
    write_json(state, {"format": WORK_KIND.format, **read_json(state), _ENDED: True})


@contextlib.contextmanager
def work_folder(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Hold the folder for finished jobs; what an earlier reproduction left in it goes away unless it is taken up again.

    Raises:
        ConfigError: If the folder belongs to the user, another reproduction works in it, or it holds finished jobs of a full run of the
            same code that was stopped, and ``resume`` is not set: they can be hours of work.
        CheckpointError: If ``resume`` finds a run of other code.
        StorageError: If older results cannot be removed.
    """
    claim = claim_folder(folder, WORK_KIND)
    try:
        state = folder / WORK_KIND.marker
        stored = {} if claim.is_new else read_json(state)
        is_same = {key: value for key, value in stored.items() if key not in ("format", _ENDED)} == identity
        if resume and not claim.is_new:
            if not is_same:
                raise CheckpointError(
                    f"The run in {folder} was made with another recipe, module or claim than today's, so its jobs cannot be "
                    "used. Run again without --resume."
                )
        else:
            finished = len(list((folder / "done").glob("*.json"))) if is_same and not stored.get(_ENDED) else 0
            if finished and not identity.get("smoke"):
                raise ConfigError(
                    f"{folder} holds {finished} finished jobs of this very recipe, of a run that was stopped. Go on with --resume, choose "
                    "another folder with --work, or remove this one to measure anew."
                )
            for name in ("done", "jobs", "shared"):
                if not remove_own(folder, name):  # what stays would be taken for results of this run
                    raise StorageError(
                        f"Cannot remove {folder / name}, which holds older results. Choose another folder with --work."
                    )
            write_json(state, {"format": WORK_KIND.format, **identity})
        yield
    finally:
        claim.release()


def num_workers(recipe: Recipe, smoke: bool, workers: int | None) -> int:
    """Return how many processes run jobs; 0 is this one.

    Raises:
        ConfigError: If ``workers`` is below 0.
    """
    if workers is not None:
        if workers < 0:
            raise ConfigError(f"--workers must be at least 0; got {workers}.")
        # Times measured side by side would slow each other.
        return min(workers, 1) if recipe.measures_time else workers
    if smoke:
        return 0
    return 1 if recipe.measures_time else available_cores()
