"""What the parts of a run work with, as one record: folder, settings, suite, plans, schedule, pool and stop switch.

It is opened once a run and handed from step to step; :meth:`RunContext.planned` returns the one of the next step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from graftwork.core.files import cache_folder
from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.workflows.runs.events import announce
from graftwork.workflows.runs.interrupts import StopSwitch
from graftwork.workflows.runs.job import Job, RunFacts
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.pool import Pool, Results, StopRequest
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import NO_SCHEDULE, Schedule
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["GRACE", "RunContext", "SomeSettings", "run_facts"]

SomeSettings = TypeVar("SomeSettings", bound=FitSettings)


def run_facts(run: RunFolder, settings: FitSettings) -> RunFacts:
    """Return what the jobs of a run share; backbone, folds and the workflow's training settings are those in the run's state."""
    return RunFacts(
        cache=str(cache_folder()),
        backbone=run.state.get("backbone", ""),
        # Runs of older versions were on the CPU.
        device=run.state.get("device", "cpu"),
        precision=run.state.get("precision", "plan"),
        root_seed=settings.seed,
        overrides=dict(settings.overrides),
        checkpoint_seconds=settings.checkpoint_seconds,
        folds=int(run.state.get("folds", 0)),
        defaults=run.state.get("training", {}),
        race_rows=int(run.state.get("race_rows", 0)),
    )


GRACE = 1.5
"""Share of the seconds of a batch that its jobs have to end by themselves."""


def _ending(stop: Callable[[], StopRequest | None], seconds: float) -> Callable[[], StopRequest | None]:
    """Return a stop switch that asks for an end by itself after some seconds, and enforces it a little later."""
    end = time.monotonic() + seconds

    def asked() -> StopRequest | None:
        late = time.monotonic() - end
        return stop() or (None if late < 0 else "kill" if late > GRACE * seconds else "finish")

    return asked


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext(Generic[SomeSettings]):
    """One run of any verb, opened."""

    run: RunFolder
    """The run folder, locked."""
    settings: SomeSettings
    suite: Suite
    pool: Pool
    stop: StopSwitch
    maker: JobMaker
    """Makes the jobs; knows plans and schedule."""

    @property
    def plans(self) -> Mapping[str, Plan]:
        """Plans by name, in the order of the portfolio."""
        return self.maker.plans

    @property
    def schedule(self) -> Schedule:
        """Who trains how long; empty before that is decided."""
        return self.maker.schedule

    def planned(self, plans: Iterable[Plan], schedule: Schedule = NO_SCHEDULE) -> Self:
        """Return the context with these plans, this schedule, and the backbone that is in the run's state now."""
        maker = JobMaker(facts=run_facts(self.run, self.settings), plans={plan.name: plan for plan in plans}, schedule=schedule)
        return dataclasses.replace(self, maker=maker)

    def run_jobs(self, jobs: Sequence[Job], *, past_deadline: bool = False, seconds: float | None = None) -> Results:
        """Run jobs in the pool, with events of the run for starts, progress and ends.

        Args:
            jobs: The jobs, in the order in which they begin.
            past_deadline: Whether they run also when the time is up, so that only the user stops them.
            seconds: Seconds from now after which no more of them begin and those that run are ended.

        Returns:
            ``{job id: result}``; jobs that never started are missing.
        """
        # What has to end even so (an export, a verdict) listens to the user alone.
        stop = self.stop.by_user if past_deadline else self.stop
        if seconds is not None:
            stop = _ending(stop, seconds)
        return self.pool.run(jobs, listener=lambda *told: announce(self.run, *told), stop=stop)

    def pause_point(self) -> None:
        """Leave if the user asked for it.

        Raises:
            RunStopped: After Ctrl-C; everything finished is kept.
        """
        self.stop.raise_if_pressed(str(self.run.path), self.run.state.get("verb", "fit"))
