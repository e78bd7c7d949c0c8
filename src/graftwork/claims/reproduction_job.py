"""One job of a reproduction: one arm with one seed, run here or in a worker process, stored as JSON when it is done."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from graftwork.claims.arm_context import ArmContext
from graftwork.claims.experiment import Recipe
from graftwork.claims.judgement import flatten_measurements
from graftwork.core.errors import ConfigError
from graftwork.core.files import read_json, write_json
from graftwork.core.optional import has

__all__ = ["Job", "JobResult", "load_recipe", "read_result", "run_job"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a worker process needs to know; plain data."""

    recipe: str
    """Dotted module of the recipe."""
    slug: str
    arm: str
    seed: int
    smoke: bool
    work: str
    """Work folder of the whole reproduction."""
    threads: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a pilot chose, or tries: stronger than the arm's own settings."""
    trial: int | None = None
    """Number of a pilot's trial; None for runs that count."""

    @property
    def name(self) -> str:
        """Name of the job's folder and file."""
        return f"{self.arm}-{self.seed}" if self.trial is None else f"{self.arm}-{self.seed}-trial-{self.trial}"

    @property
    def result_file(self) -> Path:
        """Where the result is once the job is done."""
        return Path(self.work) / "done" / f"{self.name}.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What one arm measured and spent with one seed."""

    arm: str
    seed: int
    measurements: dict[str, float]
    counts: dict[str, int]
    used: tuple[str, ...]
    """Parts of the data that the arm really saw."""
    reports: dict[str, Any]
    seconds: float
    training_loss: float | None = None
    """Mean over all training steps of the mean loss of the tasks, where the recipe counts its steps."""
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Curves of the training by measure."""


def load_recipe(module: str, slug: str) -> Recipe:
    """Import a recipe.

    Raises:
        ConfigError: If the module has no ``RECIPE``, or that of another system.
    """
    recipe = getattr(importlib.import_module(module), "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"The module {module!r} has no constant RECIPE of type Recipe; see graftwork.claims.experiment.")
    if recipe.slug != slug:
        raise ConfigError(f"The recipe {module!r} is that of {recipe.slug!r}, but the card is {slug!r}.")
    return recipe


def read_result(path: Path) -> JobResult:
    """Read the result of a finished job."""
    stored = read_json(path)
    return JobResult(**{**stored, "used": tuple(stored["used"])})


def run_job(job: Job, on_progress: Callable[[float, str], None] | None = None) -> JobResult:
    """Run one arm with one seed and store its result; the result file is whole or absent.

    Raises:
        AccessError: If the arm touched data that it had not declared.
        GraftworkError: If a measurement is not a finite number.
    """
    recipe = load_recipe(job.recipe, job.slug)
    arm = recipe.arm(job.arm).with_settings(job.settings)
    own = Path(job.work) / "jobs" / job.name
    own.mkdir(parents=True, exist_ok=True)
    context = ArmContext(
        slug=job.slug,
        arm=arm.name,
        access=arm.access.parts(),
        seed=job.seed,
        smoke=job.smoke,
        work=own,
        shared=Path(job.work) / "shared" / str(job.seed),
        on_progress=on_progress,
    )
    if has("torch"):
        import torch

        # Before the first operation, which would start torch's threads.
        torch.set_num_threads(job.threads)
    context.seed_globals("run_arm")
    started = time.perf_counter()
    measured = recipe.run_arm(arm, job.seed, context)
    seconds = time.perf_counter() - started
    result = JobResult(
        arm=arm.name,
        seed=job.seed,
        measurements=flatten_measurements(measured, where=f"Arm {arm.name!r}, seed {job.seed},"),
        counts=context.counts,
        used=tuple(sorted(context.used)),
        reports=context.reports,
        seconds=round(seconds, 3),
        training_loss=context.training_loss,
        curves=context.curves,
    )
    # Written last: a job without this file begins again.
    write_json(job.result_file, asdict(result))
    return result
