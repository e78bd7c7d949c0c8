"""Labels of the verdict as sign, words and colour class: meaning never rests on colour alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from graftwork.core.kinds import find_kind
from graftwork.evaluation.metrics import METRICS
from graftwork.interfaces.task_kind import TaskKind

__all__ = ["Mark", "comparison_mark", "control_mark", "cost_words", "kind_words", "metric_words", "strength_words"]


@dataclass(frozen=True, slots=True)
class Mark:
    """How one judgement is shown."""

    sign: str
    words: str
    tone: str
    """Class of the style sheet: ``good``, ``good-weak``, ``even``, ``bad-weak`` or ``bad``."""


_COMPARISONS = {
    "better": Mark("▲", "better", "good"),
    "probably better": Mark("△", "probably better", "good-weak"),
    "no difference": Mark("=", "no difference", "even"),
    "unclear": Mark("?", "unclear", "even"),
    "probably worse": Mark("▽", "probably worse", "bad-weak"),
    "worse": Mark("▼", "worse", "bad"),
}

_CONTROLS = {
    "transfer": Mark("▲", "transfer", "good"),
    "regularisation": Mark("△", "regularisation", "good-weak"),
    "gain": Mark("△", "gain, cause open", "good-weak"),
    "no gain": Mark("=", "no gain", "even"),
    "loss": Mark("▽", "loss, cause open", "bad-weak"),
    "cost": Mark("▽", "cost of sharing", "bad-weak"),
    "harm": Mark("▼", "harm", "bad"),
    "unclear": Mark("?", "unclear", "even"),
}

_STRENGTHS = {
    "asserts": ("Clear result", "The intervals bear out this comparison; they say nothing of plans that it does not name."),
    "tentative": ("Tentative", "The data point this way but do not settle it: more rows or more seeds would."),
    "no difference": ("No difference", "The intervals show that the difference is too small to matter."),
    "open": ("Open", "The data do not show which plan is better; the choice is the best guess from validation rows."),
}
"""Badge and explanation of each strength of a verdict."""
_ALONE = ("Open", "One plan was judged; nothing was compared.")

_COSTS = {
    "parameters_total": "parameters",
    "parameters_trained": "trained parameters",
    "parameters_stored": "stored parameters",
    "flops_per_sample": "FLOPs a row",
    "latency_ms_batch1": "latency of 1 row in ms",
    "latency_ms_batch32": "latency of 32 rows in ms",
    "wall_seconds": "training time in seconds",
    "cpu_seconds": "CPU time in seconds",
    "peak_rss_bytes": "peak memory in bytes",
    "activation_bytes": "activations in bytes",
}


def cost_words(name: str) -> str:
    """Return a cost of the ledger in words.

    Example:
        >>> cost_words("latency_ms_batch1")
        'latency of 1 row in ms'
    """
    return _COSTS.get(name, name.replace("_", " "))


def comparison_mark(label: str | None) -> Mark | None:
    """Return the mark of a comparison with the separate models; None without a label."""
    return _COMPARISONS.get(label or "")


def control_mark(label: str | None) -> Mark:
    """Return the mark of a comparison with the shuffled control."""
    return _CONTROLS.get(label or "", _CONTROLS["unclear"])


def kind_words(kind: str, positions: str = "") -> str:
    """Return a task kind in words, beside its name.

    Example:
        >>> kind_words("ordinal"), kind_words("multiclass", "pixels")
        ('ordered classes', 'class of each pixel')
    """
    words = cast(TaskKind, find_kind(kind, positions)).words
    # "class of each position" becomes "class of each pixel".
    return words.replace("position", positions.removesuffix("s")) if positions else words


def metric_words(metric: str) -> str:
    """Return how a report names a metric, with its good direction.

    Example:
        >>> metric_words("roc_auc"), metric_words("rmse"), metric_words("some_score")
        ('ROC AUC, higher is better', 'RMSE, lower is better', 'some score')
    """
    known = METRICS.get(metric)
    if known is None:
        return metric.replace("_", " ")
    return f"{known.title}, {'higher' if known.higher_is_better else 'lower'} is better"


def strength_words(verdict: Mapping[str, Any], otherwise: tuple[str, str]) -> tuple[str, str]:
    """Return badge and explanation of a verdict's strength.

    Args:
        verdict: The ``verdict`` of ``result.json``; empty if the run ended before there was one.
        otherwise: What to return then.
    """
    strength = str(verdict.get("strength"))
    if strength == "open" and "ship" in verdict and verdict["ship"] is None:
        return _ALONE
    return _STRENGTHS.get(strength, otherwise)
