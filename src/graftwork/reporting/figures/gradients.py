"""Where in the trunk tasks pull apart: cosines of their gradients by stage and pair, and by stage over the training."""

from __future__ import annotations

from typing import Any

from graftwork.reporting.figures.heatmaps import Triple, heatmap
from graftwork.reporting.formatting import is_number, signed_interval
from graftwork.reporting.parts import Figure
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.words import Mark

__all__ = ["gradient_figure", "gradient_time_figure"]

MOST_PAIRS = 15
"""More pairs do not fit: those with the lowest cosines anywhere are shown."""
_LEAST = 0.3
"""Cosine that is worth the full colour."""
_TOGETHER, _APART = Mark("▲", "together", "good"), Mark("▼", "conflict", "bad")


def _at(table: Any, i: int, j: int) -> float | None:
    rows: list[list[Any]] = table if isinstance(table, list) else []
    value = rows[i][j] if i < len(rows) and j < len(rows[i]) else None
    return float(value) if value is not None and is_number(value) else None


def _short(stages: list[str]) -> list[str]:
    """Return the names without the modules that all of them lie in: plots have no room for those."""
    parts = [stage.split(".") for stage in stages]
    depth = 0
    # At least the last part of every name stays.
    while all(len(part) > depth + 1 for part in parts) and len({part[depth] for part in parts}) == 1:
        depth += 1
    return [".".join(part[depth:]) for part in parts]


def _conflicts(share: float | None) -> str:
    return "" if share is None else f"conflict in {100 * share:.0f}\u00a0% of steps"


def gradient_figure(view: ResultView) -> Figure | None:
    """Return cosines by stage (rows) and pair of tasks (columns), or None if none were sampled."""
    found = view.section("gradients")
    stages, pairs = _short([str(stage) for stage in found.get("stages") or ()]), list(found.get("pairs") or ())
    if not stages or not pairs:
        return None
    # 2 lies above every cosine: pairs that were never sampled come last.
    lowest = [
        min((value for i in range(len(stages)) if (value := _at(found.get("value"), i, j)) is not None), default=2.0)
        for j in range(len(pairs))
    ]
    # The pairs with the lowest cosines, back in their own order.
    shown = sorted(sorted(range(len(pairs)), key=lambda j: lowest[j])[:MOST_PAIRS])
    cells: list[list[Triple]] = [
        [(_at(found.get("value"), i, j), _at(found.get("low"), i, j), _at(found.get("high"), i, j)) for j in shown]
        for i in range(len(stages))
    ]
    shares = found.get("conflict_share") or []
    worst = max(((share, stage) for share, stage in zip(shares, stages) if is_number(share)), default=None)
    summary = (
        "Mean cosine of two tasks' gradients in each stage of the trunk, first stage on top: plus pulls the same way, minus "
        "against each other. Cells in parentheses have an interval that contains zero."
    )
    summary += f" Most conflicts: {worst[1]}, in {100 * worst[0]:.0f}\u00a0% of samples and pairs." if worst else ""
    left_out = len(pairs) - len(shown)
    summary += f" {left_out} pairs with higher cosines are not shown." if left_out else ""
    return heatmap(
        "gradients",
        cells,
        stages,
        [" / ".join(map(str, pairs[j])) for j in shown],
        summary=summary,
        caption="Cosine of gradients by stage and pair, and the share of steps in which it is negative",
        corner="Stage",
        words=(_TOGETHER, _APART),
        hover="{row}<br>{column}: {value}",
        titles=("stage", ""),
        show=signed_interval,
        least_limit=_LEAST,
        notes=[[_conflicts(_at(found.get("conflict"), i, j)) for j in shown] for i in range(len(stages))],
    )


def gradient_time_figure(view: ResultView) -> Figure | None:
    """Return the mean cosine over pairs by stage (rows) and part of the training (columns), or None without samples of several
    parts."""
    found = view.section("gradients")
    stages, periods = _short([str(stage) for stage in found.get("stages") or ()]), list(found.get("periods") or ())
    if not stages or len(periods) < 2:
        return None
    # A mean over few samples has no interval worth the name, and without one nothing is claimed.
    values = [[_at(found.get("over_time"), i, j) for j in range(len(periods))] for i in range(len(stages))]
    return heatmap(
        "gradients-over-time",
        [[(value, None, None) for value in row] for row in values],
        stages,
        [f"{first}–{last}" if first != last else f"{first}" for first, last in periods],
        summary="Mean cosine over all pairs of tasks, by stage and part of the short training (steps): where "
        "and when tasks pull apart. Each is a mean of few samples and has no interval: small values say nothing.",
        caption="Mean cosine over pairs by stage and steps",
        corner="Stage",
        words=None,
        hover="{row}, steps {column}<br>{value}",
        titles=("stage", "steps"),
        show=signed_interval,
        least_limit=_LEAST,
    )
