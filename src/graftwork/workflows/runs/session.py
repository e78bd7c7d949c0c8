"""How a run of any verb is opened and closed: clock, Ctrl-C, suite and pool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.workflows.runs.context import RunContext, SomeSettings, run_facts
from graftwork.workflows.runs.interrupts import StopSwitch
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.pool import Pool, make_pool
from graftwork.workflows.runs.preparation import open_run_suite
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["RunSession"]


class RunSession(Generic[SomeSettings]):
    """One run in its folder; each verb derives its own.

    Args:
        run: The run folder, created or opened, locked.
        settings: What the user asked for.
        data: A DataFrame, a Suite or whatever else :func:`graftwork.data.reading.ingest.open_suite` takes; None reads
            ``settings.source``.
    """

    def __init__(self, run: RunFolder, settings: SomeSettings, data: Any = None) -> None:
        self.run, self.settings, self._data = run, settings, data
        self.stop = StopSwitch(self.is_late, self.is_over)
        self._clock_saved = 0.0

    def is_late(self) -> bool:
        """Return whether the time is up; without a limit for the whole run it never is."""
        return False

    def is_over(self) -> bool:
        """Return whether jobs that run after the end of the time have to be ended now; without a limit they never have."""
        return False

    def make_pool(self) -> Pool:
        """Return the pool that runs the jobs."""
        return make_pool(self.run.path, self.settings.num_workers)

    @contextlib.contextmanager
    def opened(self) -> Iterator[RunContext[SomeSettings]]:
        """Start the clock, take Ctrl-C over, open the suite and a pool; close all of it at the end.

        Raises:
            RunStopped: If the user stopped it while the suite was read.
        """
        # Used seconds of earlier attempts count, also of those that were killed.
        self.run.start_clock(_seconds_before(self.run.path / "clock.json"))
        with self.stop.listen():
            self.stop.on_press = lambda presses: self.run.emit("stopping", presses=presses)
            suite = open_run_suite(self.run, self.settings, self._data)
            self.stop.raise_if_pressed(str(self.run.path), self.run.state.get("verb", "fit"))
            device, precision = self.run.state.get("device", "cpu"), self.run.state.get("precision", "plan")
            if (device, precision) != ("cpu", "plan"):
                self.run.emit("device", device=device, precision=precision)
            pool = self.make_pool()
            try:
                yield RunContext(
                    run=self.run,
                    settings=self.settings,
                    suite=suite,
                    pool=pool,
                    stop=self.stop,
                    maker=JobMaker(facts=run_facts(self.run, self.settings)),
                )
            finally:
                # Workers first: what they still do belongs to the time used.
                pool.close()
                self.save_clock()

    def save_clock(self) -> None:
        """Write down the time that was used, for a resume after a kill."""
        self._clock_saved = self.run.seconds_used()
        write_json(self.run.path / "clock.json", {"seconds": round(self._clock_saved, 1)})


def _seconds_before(clock: Path) -> float:
    """Return the seconds that earlier attempts used; 0 if there is no clock.

    Raises:
        FileFormatError: If the clock is damaged.
    """
    if not clock.exists():
        return 0.0
    content = read_json(clock)
    seconds = content.get("seconds") if isinstance(content, dict) else None
    # The comparison is False for NaN as well. A bool is an int to Python.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        raise FileFormatError(
            f"{clock} is damaged: the seconds used are {seconds!r:.80}. Restore it from a copy, or remove it: then the time limit "
            "begins anew."
        )
    return float(seconds)
