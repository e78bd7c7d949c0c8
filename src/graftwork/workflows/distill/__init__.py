"""``distill``: a small or different student learns from teachers, and is measured against itself without them."""

from __future__ import annotations

from graftwork.workflows.distill.distill_run import DistillRun, load_distillation
from graftwork.workflows.distill.start import distill

__all__ = ["DistillRun", "distill", "load_distillation"]
