"""What was done to the probabilities of the handed-over model, and where its thresholds lie: a sentence and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.interfaces.task_kind import task_kind
from graftwork.reporting.formatting import MISSING, is_number, number
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.words import metric_words

__all__ = ["probabilities_line", "probabilities_table"]


def probabilities_line(view: ResultView) -> str:
    """Return in words what the probabilities and labels of the model are, and on what that was measured; empty if the result does
    not say (no classes, or an older run)."""
    found = _tasks(view)
    if not found:
        return ""
    corrected = [task for task, one in found.items() if one.get("correction")]
    decided = {task: dict(one["thresholds"]) for task, one in found.items() if (one.get("thresholds") or {}).get("values")}
    parts = []
    if corrected:
        parts.append(
            f"Probabilities for {_names(corrected)} are corrected: they are those of the plan after a temperature"
            + (" and a shift of each class" if any(found[task]["correction"].get("shifts") for task in corrected) else "")
            + ", fitted on the test rows and kept because the log loss fell on rows that took no part in the fit. The test scores of "
            "plans are those before it."
        )
        if any(found[task].get("averaged") for task in corrected):
            parts.append(
                "An average of several models is handed over, and averages are less sure than single models: for the fit, two models "
                "that did not learn from a row answered it together."
            )
    elif any("before" in one for one in found.values()):
        parts.append("Probabilities are those of the plan as they come: no correction was clearly better on other rows.")
    for task, one in decided.items():
        values, words = [float(value) for value in one["values"]], metric_words(str(one.get("metric")))
        if one.get("of_classes"):
            parts.append(
                f"`{task}` is answered with the class whose probability is the largest multiple of its threshold, where its {words} is "
                "better than with the most probable class."
            )
            continue
        above = number(values[0]) if len(values) == 1 else "its own threshold for each label"
        parts.append(f"`{task}` is answered with yes above {above}, where its {words} is better than above 0.5.")
    if any(one.get("class_weights") for one in found.values()):
        weighted = [task for task, one in found.items() if one.get("class_weights")]
        parts.append(
            f"Classes of {_names(weighted)} weigh the same together, as asked: probabilities are what they would be if classes were "
            "equally frequent, and so are the losses by which corrections were fitted and measured."
        )
    return " ".join(parts)


def probabilities_table(view: ResultView) -> Table | None:
    """Return what came of corrections and thresholds, task by task; None if the result does not say."""
    found = _tasks(view)
    if not found:
        return None
    yes_or_no = {task.name: task_kind(task).has_thresholds for task in view.tasks}
    return Table(
        caption="Probabilities and decisions of the chosen plan, before and after, on rows that took no part in the fit",
        headers=["Task", Cell("Correction", numeric=False), "Log loss", "Brier score", "Threshold", "Metric of decisions"],
        rows=[
            [
                task,
                _correction(one),
                *(_change(one.get("before"), one.get("after"), key) for key in ("log_loss", "brier")),
                *_threshold(dict(one.get("thresholds") or {}), yes_or_no.get(task, False)),
            ]
            for task, one in found.items()
        ],
    )


def _tasks(view: ResultView) -> dict[str, dict[str, Any]]:
    return {str(task): dict(one) for task, one in view.section("probabilities").items() if one}


def _names(tasks: list[str]) -> str:
    shown = ", ".join(f"`{task}`" for task in tasks[:6])
    return shown if len(tasks) <= 6 else f"{shown} and {len(tasks) - 6} more"


def _correction(one: Mapping[str, Any]) -> Cell:
    correction = one.get("correction")
    if not correction:
        return Cell("none", note=str(one.get("why_not") or ""), numeric=False)
    value = correction.get("temperature")
    side = ("was too sure" if value > 1 else "was not sure enough") if is_number(value) and value != 1 else ""
    shifted = ", each class shifted" if correction.get("shifts") else ""
    return Cell(f"temperature {number(value)}{shifted}", note=side, numeric=False)


def _change(before: Any, after: Any, key: str) -> Cell:
    old, new = (part.get(key) if isinstance(part, Mapping) else None for part in (before, after))
    if not is_number(old):
        return Cell(MISSING)
    return Cell(number(old) if old == new else f"{number(old)} → {number(new)}")


def _threshold(found: Mapping[str, Any], is_yes_or_no: bool) -> list[Cell]:
    if not found:
        return [Cell("0.5" if is_yes_or_no else "most probable"), Cell(MISSING)]
    values = [float(value) for value in found.get("values") or ()]
    above = Cell("most probable" if found.get("of_classes") else "0.5", note=str(found.get("why_not") or ""))
    if values:
        above = Cell(number(values[0]) if len(values) == 1 else f"{number(min(values))} to {number(max(values))}")
    score = _change({"score": found.get("before")}, {"score": found.get("after")}, "score")
    return [above, Cell(score.text, note=metric_words(str(found.get("metric"))))]
