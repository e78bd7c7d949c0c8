"""The leaderboard of a finished run as rows of plain values: every number stands in ``result.json``, none is computed here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from graftwork.reporting.compare_view import CompareView
from graftwork.reporting.figures.race import race_fates
from graftwork.reporting.formatting import is_number
from graftwork.reporting.result_view import ResultView

__all__ = ["leaderboard_columns", "leaderboard_rows"]

_PARTS = (("value", ""), ("low", "_low"), ("high", "_high"))
_COSTS = (("parameters", "parameters_stored"), ("seconds", "wall_seconds"), ("latency_ms", "latency_ms_batch1"))


def leaderboard_columns(view: ResultView) -> list[str]:
    """Return the columns in order.

    Names of tasks stand behind a colon (``test:price``, ``test_low:price``), so that a task may be called as it likes: no
    column of another meaning has its name.
    """
    scores = [f"test{end}:{task.name}" for task in view.tasks for _, end in _PARTS]
    judged = ["p_value", "label"] if isinstance(view, CompareView) else []
    head = ["plan", "role", "group", "finalist", "chosen", "delta_m", "delta_m_low", "delta_m_high"]
    return [*head, *judged, *scores, *(name for name, _ in _COSTS), "note"]


def leaderboard_rows(view: ResultView) -> list[dict[str, Any]]:
    """Return a row a plan, in the order of the report: finalists, then those that left the race, the last to leave first; of a
    comparison, best delta-m first.

    Args:
        view: A result of ``fit`` or ``compare``.

    Returns:
        Rows with the keys of :func:`leaderboard_columns`. ``role`` and ``group`` are None where the result does not hold the
        plan. ``delta_m`` is in percent; scores are the primary metric of each task on the test rows; NaN where nothing was
        measured. ``parameters`` are those that are stored, ``seconds`` those of one training,
        ``latency_ms`` is that of one row. ``note`` says why a plan is no finalist, or what went wrong.
    """
    if isinstance(view, CompareView):
        return [_row(view, str(row.get("plan")), str(row.get("message") or ""), row) for row in view.leaderboard]
    fates = race_fates(view)
    estimates = {str(row.get("plan")): row for row in view.rows("estimate")}
    others = [name for name in {**fates, **estimates, **view.plans} if name not in view.finalists]
    rows = [_row(view, name, "") for name in view.finalists]
    for name in others:
        estimate = estimates.get(name, {})
        note = fates.get(name) or str(estimate.get("reason") or "")
        row = _row(view, name, note)
        # What did not reach the end has no ledger; its size was known before the race.
        if math.isnan(row["parameters"]):
            row["parameters"] = _number(estimate.get("parameters") or None)
        rows.append(row)
    return rows


def _number(value: Any) -> float:
    return value if is_number(value) else math.nan


def _row(view: ResultView, name: str, note: str, judged: Mapping[str, Any] | None = None) -> dict[str, Any]:
    entry = view.plans.get(name, {})
    plan, ledger = view.record(name), entry.get("ledger") or {}
    row: dict[str, Any] = {
        "plan": name,
        "role": plan.get("role"),
        "group": view.group(name) or None,
        "finalist": name in view.finalists,
        "chosen": name == view.choice,
        **{f"delta_m{end}": _number((entry.get("delta_m") or {}).get(part)) for part, end in _PARTS},
    }
    if judged is not None:
        row |= {"p_value": _number(judged.get("p_value")), "label": judged.get("label")}
    for task in view.tasks:
        score = view.score(name, task) or {}
        row |= {f"test{end}:{task.name}": _number(score.get(part)) for part, end in _PARTS}
    # A zero in the ledger means that the probe did not run.
    row |= {column: _number(ledger.get(key) or None) for column, key in _COSTS}
    return {**row, "note": note}
