"""``fit``: which way of learning my tasks is best under my budget?"""

from __future__ import annotations

from graftwork.workflows.fit.fit_run import FitRun, load_run
from graftwork.workflows.fit.start import fit
from graftwork.workflows.runs.interrupts import RunStopped

__all__ = ["FitRun", "RunStopped", "fit", "load_run"]
