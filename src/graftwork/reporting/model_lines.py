"""Lines on what the scores were measured on, what the model is made of that is handed over (the two are not the same), and which
other finalists can be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graftwork.core.records import TaskSpec
from graftwork.evaluation.choice.together import one_plan_a_task
from graftwork.reporting.formatting import MISSING
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView

__all__ = ["measured_line", "model_line", "others_line", "weights_table"]

NAMED_TASKS = 4
"""Tasks of one plan that a line names; of more, it says how many."""


def measured_line(view: ResultView) -> str:
    """Return on what the scores were measured; empty if the result does not say (an older or unfinished run)."""
    measured = view.section("measured")
    rows, folds, judged = (int(measured.get(key) or 0) for key in ("rows", "folds", "judged_folds"))
    if not measured or not rows:
        return ""
    if not folds:
        return f"Scores were measured on {rows:,} test rows that no training and no selection saw."
    part = f", of which {judged} {'was' if judged == 1 else 'were'} finished" if judged < folds else ""
    return (
        f"Scores were measured by cross-validation in {folds} folds{part}: {rows:,} rows, each answered by a model that did not "
        "learn from it."
    )


def model_line(view: ResultView) -> str:
    """Return what the handed-over model is made of; empty if the result does not say."""
    model = view.section("model")
    if not model:
        return ""
    count, parts, weights = int(model.get("models") or 0), int(model.get("parts") or 0), _weights(model)
    names = ", ".join(f"`{name}`" for name in weights)
    if one_plan_a_task(weights):
        by_plan = "; ".join(f"{_tasks_in_words(list(own))} by `{name}`" for name, own in weights.items())
        made = f"The model answers each task by one plan ({by_plan}), from {count} trainings"
    elif len(weights) > 1:
        made = f"The model is an average of {count} trainings of {names}, with weights for each task"
    elif count > 1:
        made = f"The model is the average of {count} trainings of {names}"
    else:
        made = f"The model is one training of {names}"
    if model.get("rows") == "some":
        whole = ", ".join(f"`{name}`" for name in model.get("whole") or ())
        return (
            f"{made}. Those of {whole} learned from all rows, the others from the training rows only; its own scores were not "
            "measured."
        )
    if model.get("rows") != "all":
        return f"{made}: those that the scores were measured with, which learned from the training rows only."
    at_once = [name for name in weights if name in (model.get("at_once") or ())]
    in_parts, unmeasured = len(weights) - len(at_once), "its own scores were not measured"
    if not in_parts:
        return f"{made}, made anew on all rows; {unmeasured}."
    rest = f", those of {_quoted(at_once)} from all at once" if at_once else ""
    if longer := dict(model.get("longer") or {}):
        # One factor for all of them.
        factor = float(next(iter(longer.values())))
        unmeasured = (
            f"{unmeasured}. In the race {_quoted(longer)} {'were' if longer.keys() - {next(iter(longer))} else 'was'} still improving, so "
            f"trainings on all rows were {factor:.2g} times as long"
        )
    # Fewer models than parts leave out a part each, as a single one does.
    members = int(model.get("members") or parts)
    if 1 < members < parts and count == members * in_parts + len(at_once):
        return f"{made}. Each of them learned from all rows but one of {parts} parts{rest}; {unmeasured}."
    if parts > 1 and count == parts * in_parts + len(at_once):
        return f"{made}. They learned from all rows, each of them from all but one of {parts} parts{rest}; {unmeasured}."
    if parts > 1:
        return f"{made}. Each of them learned from all rows but one of {parts} parts{rest}; not all parts were finished, and {unmeasured}."
    rest = f" (those of {_quoted(at_once)} on this tenth, too)" if at_once else ""
    return f"{made}, made anew on all rows but a tenth, on which training stops{rest}; {unmeasured}."


def others_line(view: ResultView) -> str:
    """Return how other finalists are used and which were not kept; empty if the result does not say or there are none."""
    section = view.section("kept_plans")
    kept, not_kept = dict(section.get("kept") or {}), dict(section.get("not_kept") or {})
    parts = []
    if kept:
        parts.append(
            "Other finalists can be used as well, with `--plan NAME` of `graftwork predict` and `graftwork serve`: "
            f"{_quoted(kept)}."
        )
        measured = [name for name, own in kept.items() if (own or {}).get("rows") == "training"]
        if measured:
            who = "They are" if len(measured) == len(kept) else f"Of these, {_quoted(measured)} {'are' if measured[1:] else 'is'}"
            parts.append(f"{who} as the scores were measured, not made anew on all rows.")
    by_reason: dict[str, list[str]] = {}
    for name, reason in not_kept.items():
        by_reason.setdefault(str(reason), []).append(name)
    if by_reason:
        parts.append(f"Not kept: {'; '.join(f'{_quoted(names)} ({reason})' for reason, names in by_reason.items())}.")
    return " ".join(parts)


def _tasks_in_words(tasks: Sequence[str]) -> str:
    return _quoted(tasks) if len(tasks) <= NAMED_TASKS else f"{len(tasks)} tasks"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def weights_table(view: ResultView, tasks: Sequence[TaskSpec] | None = None) -> Table | None:
    """Return the weights of the members of an average, or the plan that answers alone, a row for each task (or some); None if there is
    one plan only."""
    weights = _weights(view.section("model"))
    if len(weights) < 2:
        return None
    if one_plan_a_task(weights):
        answers = {task: name for name, own in weights.items() for task in own}
        return Table(
            caption="Plan that answers each task in the model that is handed over",
            headers=["Task", Cell("Plan", numeric=False)],
            rows=[
                [task.name, Cell(answers.get(task.name, MISSING), numeric=False)]
                for task in (view.tasks if tasks is None else tasks)
            ],
        )
    return Table(
        caption="Weights of the plans in the average that is handed over",
        headers=["Task", *weights],
        rows=[
            [task.name, *(Cell(f"{100 * float(own.get(task.name, 0.0)):.0f}\u00a0%") for own in weights.values())]
            for task in (view.tasks if tasks is None else tasks)
        ],
    )


def _weights(model: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {str(name): dict(own or {}) for name, own in (model.get("weights") or {}).items()}
