"""Tables of the report that judge: scores per task, transfer to another domain, shuffled controls, effect of the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from graftwork.core.records import TaskSpec
from graftwork.reporting.formatting import MISSING, interval, percent_interval
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.words import comparison_mark, control_mark, metric_words

__all__ = ["controls_table", "folded_scores", "other_metrics_table", "scores_table", "source_table", "transfer_table"]

MOST_TASKS = 20
"""Tasks that a terminal shows one by one."""


def folded_scores(view: ResultView) -> tuple[str, Sequence[TaskSpec]]:
    """Return what a terminal shows of the tasks: of more than 20, how the chosen plan is judged on all of them in one sentence, and
    those with the largest differences to separate models, best first; else no sentence and all tasks as they are."""
    if len(view.tasks) <= MOST_TASKS:
        return "", view.tasks
    compared = {task.name: view.comparison(view.choice, task.name) for task in view.tasks}
    marks = [comparison_mark(one.get("label")) for one in compared.values()]
    counts = Counter(mark.words for mark in marks if mark is not None)
    known = {
        name: float(value) for name, one in compared.items() if (value := (one.get("difference") or {}).get("value")) is not None
    }
    # Without differences (no separate models, or they are the choice) in the order of the suite.
    ordered = sorted(view.tasks, key=lambda task: -known.get(task.name, 0.0))
    shown = [*ordered[: MOST_TASKS // 2], *ordered[-MOST_TASKS // 2 :]]
    judged = ", ".join(f"{words} on {number}" for words, number in counts.most_common())
    of_all = f"`{view.choice}` on {len(view.tasks)} tasks, against separate models: {judged}. " if judged else ""
    what = "the ten best and the ten worst of them" if known else f"{len(shown)} of {len(view.tasks)} tasks"
    return f"{of_all}Shown are {what}; report.html has all.", shown


def scores_table(view: ResultView, plans: Sequence[str] | None = None, tasks: Sequence[TaskSpec] | None = None) -> Table | None:
    """Return the primary metric of every task (or of some) under some plans (all finalists) with its judgement, or None before any
    test score."""
    plans = [plan for plan in view.finalists if plans is None or plan in plans]
    notes = {view.reference: "reference", view.choice: "chosen"}
    if not plans or not any(view.score(plan, task) for plan in plans for task in view.tasks):
        return None
    judged = any(view.comparison(plan, task.name) for plan in plans for task in view.tasks)
    return Table(
        caption="Test scores with 95 % intervals" + (", and the judgement against separate models" if judged else ""),
        headers=[
            Cell("Task", numeric=False),
            *(Cell(name, note=notes.get(name, ""), strong=name == view.choice) for name in plans),
        ],
        rows=[_score_row(view, task, plans) for task in (view.tasks if tasks is None else tasks)],
    )


def _score_row(view: ResultView, task: TaskSpec, plans: Sequence[str]) -> list[str | Cell]:
    cells: list[str | Cell] = [Cell(task.name, note=metric_words(view.metric(task)), numeric=False)]
    for plan in plans:
        compared = view.comparison(plan, task.name) if plan != view.reference else {}
        mark = comparison_mark(compared.get("label"))
        cells.append(
            Cell(
                interval(view.score(plan, task)),
                note=percent_interval(compared.get("difference")) if mark else "",
                mark=mark,
                strong=plan == view.choice,
            )
        )
    return cells


def other_metrics_table(view: ResultView) -> Table | None:
    """Return the metrics beside the primary one for the chosen plan (or the reference), or None if there are none."""
    plan = view.choice if view.choice in view.finalists else next(iter(view.finalists), "")
    rows: list[list[str | Cell]] = []
    for task in view.tasks:
        scores = (view.plans.get(plan, {}).get("test") or {}).get(task.name) or {}
        rows += [
            [task.name, Cell(metric_words(metric), numeric=False), Cell(interval(value))]
            for metric, value in scores.items()
            if metric != view.metric(task)
        ]
    return (
        Table(caption=f"Further metrics of {plan}", headers=["Task", Cell("Metric", numeric=False), "Test score"], rows=rows)
        if rows
        else None
    )


def transfer_table(view: ResultView) -> Table | None:
    """Return scores on the extra split ``transfer`` (rows of another domain), or None without one."""
    plans = [plan for plan in view.finalists if view.plans[plan].get("transfer")]
    # Without the record of the suite there are no tasks to make rows of.
    if not plans or not view.tasks:
        return None

    def score(plan: str, task: TaskSpec) -> str:
        scores = (view.plans[plan].get("transfer") or {}).get(task.name) or {}
        # The primary metric may be undefined there, on rows of a single class, say.
        return interval(scores.get(view.metric(task)) or next(iter(scores.values()), None))

    return Table(
        caption="Scores on rows of a domain that no plan was trained on",
        headers=["Task", *(Cell(plan, strong=plan == view.choice) for plan in plans)],
        rows=[
            [Cell(task.name, note=metric_words(view.metric(task)), numeric=False), *(Cell(score(plan, task)) for plan in plans)]
            for task in view.tasks
        ],
    )


def controls_table(view: ResultView) -> Table | None:
    """Return what sharing gained, how much of it is left over the shuffled control, and the word for it."""
    controls = view.rows("controls")
    if not controls:
        return None

    def row(control: dict[str, Any]) -> list[str | Cell]:
        mark = control_mark(control.get("label"))
        return [
            Cell(str(control.get("task", MISSING)), note=str(control.get("plan", "")), numeric=False),
            Cell(percent_interval(control.get("gain")), mark=comparison_mark(control.get("gain_word"))),
            Cell(percent_interval(control.get("over_control")), mark=comparison_mark(control.get("over_control_word"))),
            Cell("", mark=mark, numeric=False),
        ]

    return Table(
        caption="Gain over separate models, and over the control whose companion targets are shuffled, in percent",
        headers=["Task", "Against separate", "Against shuffled control", Cell("Verdict", numeric=False)],
        rows=[row(control) for control in controls],
    )


def source_table(view: ResultView) -> Table | None:
    """Return what the pretrained backbone did to each task, or None without a pretrained plan."""
    effects = view.rows("source_effect")
    if not effects:
        return None
    return Table(
        caption="Best plan on the pretrained backbone against the best plan from scratch, in percent, plus is "
        "better for pretrained",
        headers=["Task", "Pretrained against scratch", Cell("Verdict", numeric=False), Cell("Compared plans", numeric=False)],
        rows=[
            [
                Cell(str(effect.get("task")), numeric=False),
                Cell(percent_interval(effect.get("difference"))),
                Cell("", mark=comparison_mark(effect.get("label")) or control_mark("unclear"), numeric=False),
                Cell(f"{effect.get('pretrained_plan')} against {effect.get('scratch_plan')}", numeric=False),
            ]
            for effect in effects
        ],
    )
