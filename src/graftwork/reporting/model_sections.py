"""Sections that show the model: how the chosen plan predicts on test rows, and what became of the columns that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.reporting.figures.predictions import calibration_figure, confusion_figure, error_figure, scatter_figure
from graftwork.reporting.formatting import MISSING, is_number, number, share
from graftwork.reporting.page import Panel, Section
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView

__all__ = ["answers_section", "inputs_section"]

_LEAST_ROWS = 30
"""Below this many rows nothing is said of the calibration."""


def answers_section(view: ResultView) -> Section:
    """Return the section about predictions of the chosen plan; empty if the result holds none (older versions)."""
    found = {str(task): dict(one) for task, one in view.section("diagnostics").items() if one}
    panels = [panel for index, (task, one) in enumerate(found.items()) for panel in _panels(index, task, one)]
    shown = {panel.title for panel in panels}
    left = len(found) - len(shown)
    folds = view.section("measured").get("folds")
    return Section(
        "predictions", "How it predicts", "Predictions",
        f"Predictions of `{view.choice}` on test rows"
        + (", each by a model that did not learn from its row" if folds else ", by its first training")
        + (" (classes by two such models together)" if folds and _say(view, "averaged") else "")
        + (", corrected by what was fitted on other rows" if _say(view, "correction") else "")
        + (", decided by thresholds that other rows chose" if _has_thresholds(view) else "")
        + "."
        + (" The model that is handed over was made anew afterwards, from more rows." if view.section("model").get("rows") == "all" else "")
        + (f" Plots are for the first {len(shown)} tasks; the tables hold all." if left > 0 and shown else ""),
        (_numbers_table(found), _classes_table(found)), folded=(_labels_table(found),), panels=tuple(panels),
    )  # fmt: skip


def _say(view: ResultView, key: str) -> bool:
    return any((one or {}).get(key) for one in view.section("probabilities").values())


def _has_thresholds(view: ResultView) -> bool:
    return any(((one or {}).get("thresholds") or {}).get("values") for one in view.section("probabilities").values())


def _panels(index: int, task: str, found: Mapping[str, Any]) -> list[Panel]:
    figures: list[Figure | None] = []
    for place, value in enumerate(found.get("values") or ()):
        name, title = f"{index}-{place}", str(value.get("name") or task)
        figures += [scatter_figure(f"true-{name}", title, value), error_figure(f"errors-{name}", title, value)]
    calibration = dict(found.get("calibration") or {})
    positive = str(found.get("positive") or "")
    said = f"of “{positive}”" if positive else "of each label" if found.get("form") == "labels" else "of the predicted class"
    figures += [
        confusion_figure(f"confusion-{index}", task, found),
        calibration_figure(f"calibration-{index}", task, said, calibration),
    ]
    there = tuple(figure for figure in figures if figure is not None)
    return [Panel(task, _sentence(found), there)] if there else []


def _sentence(found: Mapping[str, Any]) -> str:
    """Return what to see of a task in words, from the numbers of its table."""
    if found.get("form") == "numbers":
        values = list(found.get("values") or ())
        more = int(found.get("of") or 0) - len(values)
        said = [
            f"{value.get('name')}: half of the predictions are within {number(value.get('typical'))}, nine in ten within "
            f"{number(value.get('nine_in_ten'))}."
            for value in values
        ]
        return " ".join(said) + (f" {more} more values are not shown." if more > 0 else "")
    said = []
    if is_number(found.get("right")) and found.get("rows"):
        said.append(f"{found['right']:,} of {found['rows']:,} rows are right ({share(found['right'] / found['rows'])}).")
    said.append(_calibration_words(dict(found.get("calibration") or {})))
    return " ".join(part for part in said if part)


def _calibration_words(calibration: Mapping[str, Any]) -> str:
    error, chance, rows = (calibration.get(key) for key in ("error", "chance", "rows"))
    if not (is_number(error) and is_number(chance) and is_number(rows)):
        return ""
    assert error is not None
    assert chance is not None
    assert rows is not None
    if rows < _LEAST_ROWS:
        return f"{rows:,} rows are too few to judge the probabilities."
    beside = "no more than chance shows" if error <= chance else "more than chance shows"
    return (
        f"Probabilities are off by {share(error, 1)} on average (expected calibration error), {beside}: right ones stay below "
        f"{share(chance, 1)} in 19 of 20 cases on so many rows."
    )


def _numbers_table(found: Mapping[str, Mapping[str, Any]]) -> Table | None:
    values = [value for one in found.values() for value in one.get("values") or ()]
    if not values:
        return None
    keys = ("typical", "nine_in_ten", "largest", "bias")
    return Table(
        caption="Errors of predicted numbers, in their own units; the mean is of predicted minus true, plus is too high",
        headers=["Value", "Rows", "Half are within", "Nine in ten within", "Largest", "Mean"],
        rows=[
            [str(value.get("name")), Cell(f"{int(value.get('rows') or 0):,}"), *(Cell(number(value.get(key))) for key in keys)]
            for value in values
        ],
    )


def _classes_table(found: Mapping[str, Mapping[str, Any]]) -> Table | None:
    tasks = {task: one for task, one in found.items() if one.get("form") in ("classes", "labels")}
    if not tasks:
        return None

    def row(task: str, one: Mapping[str, Any]) -> list[str | Cell]:
        rows, right, calibration = int(one.get("rows") or 0), one.get("right"), dict(one.get("calibration") or {})
        mistakes = [f"{wrong['prediction']} for {wrong['truth']} ({wrong['rows']:,})" for wrong in one.get("mistakes") or ()]
        chance = calibration.get("chance")
        return [
            task,
            Cell(f"{rows:,}"),
            Cell(share(right / rows) if is_number(right) and right is not None and rows else MISSING),
            Cell(share(calibration.get("error"), 1), note=f"by chance up to {share(chance, 1)}" if is_number(chance) else ""),
            Cell("; ".join(mistakes[:2]) or MISSING, numeric=False),
        ]

    return Table(
        caption="Predicted classes: share of right rows, mean error of the probabilities, commonest mistakes (predicted for true)",
        headers=["Task", "Rows", "Right", "Calibration error", Cell("Commonest mistakes", numeric=False)],
        rows=[row(task, one) for task, one in tasks.items()],
    )


def _labels_table(found: Mapping[str, Mapping[str, Any]]) -> Table | None:
    labels = [(task, label) for task, one in found.items() for label in one.get("labels") or ()]
    if not labels:
        return None

    def row(task: str, label: Mapping[str, Any]) -> list[str | Cell]:
        true, predicted, both = (int(label.get(key) or 0) for key in ("true", "predicted", "both"))
        shares = (share(both / whole) if whole else MISSING for whole in (true, predicted))
        return [str(label.get("name")), Cell(task, numeric=False), *map(Cell, (f"{true:,}", f"{predicted:,}", *shares))]

    return Table(
        caption="Each label: how often it applies and is predicted, how many of the true ones are found, and how many predicted ones "
        "are right",
        headers=["Label", Cell("Task", numeric=False), "True", "Predicted", "Found", "Right"],
        rows=[row(task, label) for task, label in labels],
    )


def inputs_section(view: ResultView) -> Section:
    """Return the section about the columns of the table; empty if the suite was read from none (or by an older version)."""
    suite = view.section("suite")
    columns = {str(name): dict(one or {}) for name, one in (suite.get("columns") or {}).items()}
    used = sum(bool(one.get("use")) for one in columns.values())
    more = int(suite.get("num_columns") or 0) - len(columns)
    table = Table(
        caption="Columns that are no targets, and what models get of them",
        headers=["Column", Cell("Read as", numeric=False), "Missing cells", Cell("Models get", numeric=False)],
        rows=[
            [
                name,
                Cell(str(one.get("kind") or MISSING), numeric=False),
                Cell(_missing(one.get("missing"), int(suite.get("rows") or 0))),
                Cell(str(one.get("use") or "nothing"), note=str(one.get("why") or ""), numeric=False),
            ]
            for name, one in columns.items()
        ],
    )  # fmt: skip
    return Section(
        "inputs", "What became of the columns", "Columns",
        f"{used} of {len(columns)} columns are learned from; --ignore leaves more out, --text and --categories read them in another way."
        + (f" {more:,} further columns are not listed." if more > 0 else ""),
        (table,) if len(columns) <= _MOST_OPEN else (), folded=(table,) if len(columns) > _MOST_OPEN else (),
    ) if columns else Section("inputs", "What became of the columns", "Columns", "")  # fmt: skip


_MOST_OPEN = 40
"""Columns up to which the table stands open."""


def _missing(count: Any, rows: int) -> str:
    if not is_number(count):
        return MISSING
    return f"{int(count):,} ({share(count / rows)})" if count and rows else f"{int(count):,}"
