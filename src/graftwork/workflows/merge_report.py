"""What a merge did, for those who print it or go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.records import Ledger

if TYPE_CHECKING:
    from graftwork.workflows.merge_scores import TaskScore
    from graftwork.workflows.merge_search import MergeTrial

__all__ = ["MergeReport"]


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge did."""

    path: Path
    method: Mapping[str, Any]
    num_models: int
    num_parameters: int
    """Numbers that were merged; buffers and excluded tensors are not counted."""
    sign_conflict_share: float | None
    """Among entries that at least two models still change after trimming: the share with opposite signs (for methods that count
    them)."""
    not_finite: tuple[str, ...]
    """Names of written tensors that hold NaN or infinity, with the first model that brought it in."""
    notes: tuple[str, ...]
    """What was left out and may surprise: tensors without a counterpart in the base, patterns that fit nothing, files swept
    up."""
    seconds: float
    ledger: Ledger = field(default_factory=Ledger)
    """What it cost: time, and steps and samples of methods that use data."""
    scores: tuple[TaskScore, ...] = ()
    """With a suite: each model on its tasks before the merge, and with the merged weights."""
    scored_on: str = ""
    """Which rows the scores are of: ``test``, or ``val`` where there are no test rows."""
    trials: tuple[MergeTrial, ...] = ()
    """With a search: every combination of settings that was tried on validation rows, in order; the best one was merged."""
