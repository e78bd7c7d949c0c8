"""Reads the ``result.json`` of a distillation: its tables, and the same as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from graftwork.core.plain_text import plain_text
from graftwork.reporting.formatting import MISSING, count, interval, number, percent_interval, share
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import render_table, wrap_text
from graftwork.reporting.words import metric_words

__all__ = [
    "DistillView",
    "agreement_table",
    "flip_table",
    "format_distillation",
    "kept_table",
    "model_table",
    "score_table",
    "teacher_table",
]

ALONE, DISTILLED = "student-alone", "distilled"
WORDS = {ALONE: "student alone", DISTILLED: "taught student"}


@dataclass(frozen=True)
class DistillView(ResultView):
    """Typed access to a distillation.

    Raises:
        FileFormatError: On building, if the object is not a result of ``graftwork distill``.
    """

    format: ClassVar[str] = "graftwork-distill-1"
    verb: ClassVar[str] = "distill"

    @property
    def teachers(self) -> list[dict[str, Any]]:
        """Everything known of each teacher, in the order of the user."""
        return self.rows("teachers")

    @property
    def has_labels(self) -> bool:
        """Whether the data has labels, so that there are scores."""
        return self.result.get("labels") != "none"


def agreement_table(view: DistillView) -> Table | None:
    """Return how near a student of data without labels is to each teacher on test rows; None of other data."""
    rows: list[list[str | Cell]] = []
    for teacher in view.teachers:
        for task, item in (teacher.get("agreement") or {}).items():
            agreement = item["measure"] == "agreement"
            rows.append(
                [
                    Cell(str(teacher["name"]), note=task, numeric=False),
                    Cell("same answer" if agreement else "distance in SD", numeric=False),
                    Cell((_percents if agreement else interval)(item["taught"])),
                ]
            )
    if not rows:
        return None
    return Table(
        "How near the student is to each teacher on test rows, with 95 % intervals: the share of rows with the same answer, or how many "
        "standard deviations its numbers are apart. There are no labels, so this is no accuracy",
        ["Teacher", Cell("measure", numeric=False), "student"],
        rows,
    )


def score_table(view: DistillView) -> Table | None:
    """Return the primary metric of each task on the test rows: both students with intervals, and the teachers that answer it; None
    of data without labels."""
    if not view.has_labels:
        return None
    asked = [teacher for teacher in view.teachers if teacher.get("scores")]
    rows: list[list[str | Cell]] = []
    for task in view.tasks:
        change = view.section("changes").get(task.name)
        teachers = [Cell(number((teacher["scores"].get(task.name) or {}).get("value"))) for teacher in asked]
        own = [Cell(interval(view.score(name, task))) for name in (ALONE, DISTILLED)]
        rows.append(
            [
                Cell(task.name, note=metric_words(view.metric(task)), numeric=False),
                *teachers,
                *own,
                Cell(percent_interval(change)),
            ]
        )
    return Table(
        "Test scores with 95 % intervals; the change is against the student alone, positive is better",
        ["Task", *(Cell(str(teacher["name"])) for teacher in asked), Cell("student alone"), Cell("taught"), Cell("change")],
        rows,
    )


def teacher_table(view: DistillView) -> Table:
    """Return one row a teacher: weight, relevance, what it gave, and what of it the student's features hold."""
    rows: list[list[str | Cell]] = []
    for teacher in view.teachers:
        relevance = [value for value in (teacher.get("relevance") or {}).values() if isinstance(value, int | float)]
        given = [f"{len(teacher['tasks'])} tasks"] if teacher.get("tasks") else []
        given += [f"{teacher[key]} {key}" for key in ("features", "classes") if teacher.get(key)]
        alike = teacher.get("alike") or {}
        rows.append(
            [
                Cell(str(teacher["name"]), note=", ".join(given), numeric=False),
                Cell(share(teacher["weight"])),
                Cell(number(sum(relevance) / len(relevance)) if relevance else MISSING),
                Cell(", ".join(teacher.get("ways") or ()) or "not used", numeric=False),
                Cell(number(alike.get("alone"))),
                Cell(number(alike.get("taught"))),
            ]
        )
    return Table(
        "Teachers: weight; how alike their features and the labels of training rows are (rank correlation); how they taught; "
        "how alike the features of teacher and student are on test rows (CKA, 1 is the same)",
        ["Teacher", "weight", "relevance", Cell("taught by", numeric=False), "alike: alone", "alike: taught"],
        rows,
    )


def kept_table(view: DistillView) -> Table | None:
    """Return what the student kept of each teacher that answers a task; None if none does."""
    rows: list[list[str | Cell]] = []
    for teacher in view.teachers:
        for task, item in (teacher.get("kept") or {}).items():
            agreement = item["measure"] == "agreement"
            shown = _percents if agreement else interval
            rows.append(
                [
                    Cell(str(teacher["name"]), note=task, numeric=False),
                    Cell("same answer" if agreement else "distance in SD", numeric=False),
                    Cell(shown(item["alone"])),
                    Cell(shown(item["taught"])),
                    Cell(shown(item["difference"])),
                    Cell(
                        share(item.get("gained")), note=f"of {share(item.get('gained_rows'))} of rows" if "gained" in item else ""
                    ),
                    Cell(
                        share(item.get("followed")),
                        note=f"of {share(item.get('followed_rows'))} of rows" if "followed" in item else "",
                    ),
                ]
            )
    if not rows:
        return None
    return Table(
        "How near the students are to each teacher on test rows, with 95 % intervals (a positive difference is nearer). Gained: "
        "of the rows that the teacher has right and the student alone wrong, those that the taught one has right. Followed: of "
        "the rows that the teacher has wrong and the student alone right, those that the taught one has wrong",
        ["Teacher", Cell("measure", numeric=False), "alone", "taught", "difference", "gained", "followed"],
        rows,
    )


def _percents(value: Mapping[str, Any] | None) -> str:
    if not value or value.get("value") is None:
        return MISSING
    middle = f"{100 * float(value['value']):.1f} %"
    if value.get("low") is None:
        return middle
    return f"{middle} [{100 * float(value['low']):.1f}, {100 * float(value['high']):.1f}]"


def flip_table(view: DistillView) -> Table | None:
    """Return which share of the test rows turned right and wrong; None without tasks of classes or labels."""
    rows: list[list[str | Cell]] = [
        [
            task,
            Cell(share(item["positive"], 1)),
            Cell(share(item["negative"], 1)),
            Cell(_percents(item["net"])),
            Cell(count(item["rows"])),
        ]
        for task, item in view.section("flips").items()
    ]
    if not rows:
        return None
    return Table(
        "From the student alone to the taught one: test rows that turn right, that turn wrong, and the difference with its 95 % "
        "interval",
        ["Task", "turn right", "turn wrong", "difference", "rows"],
        rows,
    )


def model_table(view: DistillView) -> Table:
    """Return size and speed of teachers and students."""
    rows: list[list[str | Cell]] = []
    for teacher in view.teachers:
        costs = teacher.get("costs") or {}
        rows.append([Cell(str(teacher["name"]), note="teacher", numeric=False), *_costs(costs), Cell(MISSING)])
    for name in (ALONE, DISTILLED) if view.has_labels else (DISTILLED,):
        ledger = view.plans.get(name, {}).get("ledger") or {}
        rows.append(
            [
                Cell(WORDS[name], note="in model/" if name == view.choice else "", strong=name == view.choice, numeric=False),
                *_costs(ledger),
                Cell(f"{number(ledger.get('wall_seconds'))} s"),
            ]
        )
    return Table(
        "Size and speed, on one thread; the training is that of one seed",
        ["Model", "parameters", "one row", "32 rows", "training"],
        rows,
    )


def _costs(costs: Mapping[str, Any]) -> list[Cell]:
    times = (costs.get("latency_ms_batch1"), costs.get("latency_ms_batch32"))
    return [Cell(count(costs.get("parameters_total"))), *(Cell(f"{number(value)} ms" if value else MISSING) for value in times)]


def format_distillation(result: Mapping[str, Any], width: int = 100) -> str:
    """Return a summary of a distillation without colours or control characters.

    Args:
        result: Content of ``result.json``.
        width: Columns of the terminal, at least 40.

    Raises:
        FileFormatError: If it is no result of ``graftwork distill``.
    """
    view, width = DistillView(result), max(40, width)
    verdict = view.section("verdict")
    blocks = [wrap_text(str(sentence), width) for sentence in verdict.get("sentences") or ()]
    blocks += [wrap_text(f"Note: {plain_text(warning)}", width) for warning in verdict.get("warnings") or ()]
    tables = (
        score_table(view),
        agreement_table(view),
        flip_table(view),
        teacher_table(view),
        kept_table(view),
        model_table(view),
    )
    blocks += [render_table(table, width) for table in tables if table is not None]
    return "\n\n".join(block for block in blocks if block) + "\n"
