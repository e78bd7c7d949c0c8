"""``tune``: one way of tuning one backbone, and what the others would have cost."""

from __future__ import annotations

from graftwork.workflows.tune.start import tune
from graftwork.workflows.tune.tune_run import TuneRun, load_tuning

__all__ = ["TuneRun", "load_tuning", "tune"]
