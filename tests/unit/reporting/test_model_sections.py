"""How the chosen plan predicts and what became of the columns, as a reader sees it."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.diagnostics import diagnose
from graftwork.reporting.figures.predictions import confusion_figure
from graftwork.reporting.model_sections import answers_section, inputs_section
from graftwork.reporting.parts import Cell
from graftwork.reporting.report import render_report, report_sections
from graftwork.reporting.result_view import ResultView


def _view(**fields: Any) -> ResultView:
    return ResultView({"format": "graftwork-fit-1", "verdict": {"choice": "trees"}, **fields})


def _texts(table: Any) -> list[list[str]]:
    return [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]


def test_every_task_has_its_plots_and_its_row(build_result) -> None:
    result = build_result("table", model=True)
    section = answers_section(ResultView(result))
    assert [panel.title for panel in section.panels] == [task["name"] for task in result["suite"]["tasks"]]
    assert [[re.sub(r"-.*", "", figure.name) for figure in panel.figures] for panel in section.panels] == [
        ["confusion", "calibration"],
        ["confusion", "calibration"],
        ["confusion", "calibration"],
        ["true", "errors"],
        ["calibration"],
    ]
    names = [figure.name for figure in section.figures]
    assert len(names) == len(set(names))
    named = [row[0] for table in section.parts if table is not None for row in _texts(table)]
    assert named == ["monthly spend", "churned", "plan", "satisfaction", "interests"]
    assert section.folded[0] is not None
    assert [row[0] for row in _texts(section.folded[0])] == ["music", "film", "sport", "books"]


def test_sentences_say_the_numbers_of_the_table(build_result) -> None:
    result = build_result("table", model=True)
    found = result["diagnostics"]["plan"]
    panel = answers_section(ResultView(result)).panels[1]
    assert panel.lead.startswith(f"{found['right']} of {found['rows']} rows are right")
    for error, chance, words in ((0.2, 0.05, "more than chance"), (0.02, 0.05, "no more than chance")):
        found["calibration"] |= {"error": error, "chance": chance}
        lead = answers_section(ResultView(result)).panels[1].lead
        assert f"off by {100 * error:.1f}\xa0%" in lead
        assert f", {words} shows" in lead
    found["calibration"] |= {"rows": 12}
    assert "12 rows are too few to judge the probabilities" in answers_section(ResultView(result)).panels[1].lead


def test_it_is_said_on_which_rows_predictions_were_made(build_result) -> None:
    result = build_result("table", model=True)
    assert "by its first training." in answers_section(ResultView(result)).lead
    result["measured"] = {"folds": 5, "judged_folds": 5, "rows": 2400}
    result["model"] = {"rows": "all", "models": 5, "parts": 5, "weights": {"shared-trunk": {}}}
    lead = answers_section(ResultView(result)).lead
    assert "each by a model that did not learn from its row" in lead
    assert "was made anew afterwards, from more rows" in lead


def test_results_of_older_versions_have_no_such_sections(build_result) -> None:
    keys = {section.key for section in report_sections(ResultView(build_result("table")))}
    assert not keys & {"predictions", "inputs"}
    assert {"predictions", "inputs"} <= {
        section.key for section in report_sections(ResultView(build_result("table", model=True)))
    }


def test_columns_say_what_models_get_or_why_not() -> None:
    columns = {
        "age": {"kind": "numeric", "missing": 2, "use": "number", "why": ""},
        "one": {"kind": "numeric", "missing": 0, "use": "", "why": "one value or none"},
    }
    section = inputs_section(_view(suite={"rows": 40, "columns": columns, "num_columns": 5}))
    assert section.lead.startswith("1 of 2 columns are learned from")
    assert "3 further columns are not listed" in section.lead
    table = section.parts[0]
    assert _texts(table) == [["age", "numeric", "2 (5\xa0%)", "number"], ["one", "numeric", "0", "nothing"]]
    last = table.rows[1][-1]  # type: ignore[union-attr]
    assert isinstance(last, Cell)
    assert last.note == "one value or none"
    many = {f"c{index}": columns["age"] for index in range(60)}
    folded = inputs_section(_view(suite={"rows": 40, "columns": many, "num_columns": 60}))
    assert not any(folded.parts)
    assert folded.folded


@pytest.mark.parametrize("names", [["1", "0"], ["x" * 50 + "1", "x" * 50 + "2"], ["<b>a</b>", "b"]])
def test_classes_of_any_name_have_a_place_of_their_own(names) -> None:
    figure = confusion_figure("c", "t", {"classes": names, "counts": [[3, 1], [0, 2]]})
    assert figure is not None
    assert len(set(figure.data[0]["x"])) == 2
    assert figure.data[0]["z"] == [[0.75, 0.25], [0.0, 1.0]]
    assert figure.layout["xaxis"]["type"] == "category", "class 1 must not stand at the place of number 1"
    assert "<b>" not in json.dumps(figure.data[0]["x"])


def test_damaged_counts_make_no_plot() -> None:
    for counts in ([], [[1]], [[1, 2], [3]]):
        assert confusion_figure("c", "t", {"classes": ["a", "b"], "counts": counts}) is None


def test_the_largest_page_stays_below_two_megabytes(build_result) -> None:
    """Twelve tasks of many classes or of numbers with as many points as there may be, and further tasks in tables."""
    rows, draw = 3_000, np.random.default_rng(0)
    tasks = [
        TaskSpec(
            name=f"task number {index}", kind="multiclass", size=40, classes=tuple(f"class number {one}" for one in range(40))
        )
        if index % 2
        else TaskSpec(name=f"task number {index}", kind="regression", size=1, columns=(f"task number {index}",))
        for index in range(30)
    ]
    suite = Suite(
        name="large",
        tasks=tuple(tasks),
        inputs={"numeric": np.zeros((rows, 1), dtype=np.float32)},
        targets={
            task.name: draw.integers(0, 40, rows) if task.kind == "multiclass" else draw.normal(size=(rows, 1)) for task in tasks
        },
        splits={"train": np.arange(0), "val": np.arange(0), "test": np.arange(rows)},
        input_specs=table_input(1),
    )
    answers = {
        task.name: draw.dirichlet(np.ones(40), rows) if task.kind == "multiclass" else draw.normal(size=(rows, 1))
        for task in tasks
    }
    result = build_result("image")
    result["diagnostics"] = diagnose(suite, answers)
    result["suite"]["columns"] = {
        f"column number {index}": {"kind": "numeric", "missing": 12, "use": "number, and a flag where it is missing", "why": ""}
        for index in range(300)
    }
    page = re.sub(r"data:image/[^\"]+", "", render_report(result))
    assert len(page.encode()) < 2_000_000
    section = answers_section(ResultView(result))
    assert len(section.panels) == 12
    assert "Plots are for the first 12 tasks" in section.lead
    assert [len(table.rows) for table in section.parts if table is not None] == [15, 15]
