"""``compare``: several plans on one suite under one budget, side by side."""

from __future__ import annotations

from graftwork.workflows.compare.compare_run import CompareRun, load_comparison
from graftwork.workflows.compare.start import compare

__all__ = ["CompareRun", "compare", "load_comparison"]
