"""What a reader sees of important columns and of the learning curve."""

from __future__ import annotations

from typing import Any

import pytest

from graftwork.reporting.inspection_sections import importance_rows, importance_section, more_rows_section
from graftwork.reporting.report import report_sections
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import format_summary


def _row(column: str, value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"column": column, "value": value, "low": low, "high": high}


IMPORTANCE = {
    "plan": "trees",
    "rows": 1000,
    "repeats": 3,
    "num_columns": 4,
    "measured": 4,
    "tasks": {
        "price": {
            "metric": "rmse",
            "score": 21000.0,
            "columns": [_row("size", 40000, 38000, 42500), _row("age", 900, 100, 1700), _row("code", -5, -40, 30)],
        },
        "late": {"metric": "roc_auc", "score": 0.9, "columns": [_row("<b>age</b>", 0.001, -0.01, 0.02), _row("x", None)]},
    },
}
CURVE = {
    "plan": "trees",
    "sizes": [100, 200, 400, 800],
    "says": "gain",
    "sentence": "With twice as many rows like these, the errors of 2 tasks together would probably fall by about 9.1 %.",
    "twice": {"value": 9.1, "low": 7.0, "high": 11.0},
    "tasks": {
        "price": {
            "metric": "rmse",
            "points": [{"rows": 100 * 2**i, "value": 9.0 - i, "low": 8.0 - i, "high": 10.0 - i} for i in range(4)],
            "curve": {"rows": [100, 800, 1600], "value": [9.0, 6.0, 5.5], "low": [8, 5, 4], "high": [10, 7, 6]},
            "twice": {"value": 8.0, "low": 5.0, "high": 11.0},
        }
    },
}


def _view(**fields: Any) -> ResultView:
    return ResultView({"format": "graftwork-fit-1", "verdict": {"choice": "trees"}, **fields})


def _texts(table: Any) -> list[list[str]]:
    return [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]


def test_the_table_names_columns_that_matter_clearly_and_the_plot_shows_all() -> None:
    section = importance_section(_view(importance=IMPORTANCE))
    assert "`trees` predicts 1,000 rows that it did not learn from" in section.lead
    assert "(mean of 3 times)" in section.lead
    assert [row[3] for row in _texts(section.parts[0])] == ["size, age", "none is clear"]
    price, late = section.figures
    assert price.data[0]["x"] == [-5, 900, 40000]
    assert price.data[0]["error_x"]["arrayminus"][-1] == pytest.approx(2000)
    assert price.data[0]["error_x"]["array"][-1] == pytest.approx(2500)
    assert _texts(price.table)[0] == ["size", "40,000", "38,000 to 42,500"]
    # Names of columns are text, never markup of the plot.
    assert late.layout["yaxis"]["ticktext"] == ["&lt;b&gt;age&lt;/b&gt;"]


def test_of_many_columns_the_first_are_drawn_and_the_rest_counted() -> None:
    rows = [_row(f"column {index}", 100 - index, 0, 101) for index in range(40)]
    found = {**IMPORTANCE, "num_columns": 5000, "measured": 40, "tasks": {"price": {"metric": "rmse", "columns": rows}}}
    section = importance_section(_view(importance=found))
    assert len(section.figures[0].data[0]["x"]) == 15
    assert "The 15 most important of 40 columns." in section.figures[0].summary
    assert "Of 5,000 columns, the 40 that seemed to matter most were shuffled" in section.lead


def test_the_curve_is_shown_with_its_sentence_or_the_lack_of_one() -> None:
    section = more_rows_section(_view(learning_curve=CURVE))
    assert section.lead.startswith(CURVE["sentence"])
    assert _texts(section.parts[0]) == [["price", "RMSE, lower is better", "−8.0\xa0% [−11.0, −5.0]"]]
    (figure,) = section.figures
    assert figure.layout["xaxis"]["ticktext"] == ["100", "200", "400", "800", "1,600"]
    assert "up to twice the rows, was not measured" in figure.summary
    silent = more_rows_section(_view(learning_curve={**CURVE, "says": "", "sentence": ""}))
    assert silent.lead.startswith("The interval is too wide to say what more rows would bring.")


def test_the_terminal_says_the_sentence() -> None:
    assert CURVE["sentence"] in format_summary(_view(learning_curve=CURVE).result, 200)


@pytest.mark.parametrize("fields", [{}, {"importance": {"reason": "no time"}, "learning_curve": {"reason": "no time"}}])
def test_without_measurements_there_are_no_sections(fields: dict[str, Any]) -> None:
    view = _view(**fields)
    assert not {section.key for section in report_sections(view)} & {"importance", "more-rows"}
    assert list(importance_rows(view)) == []


def test_rows_of_the_table_for_python() -> None:
    rows = list(importance_rows(_view(importance=IMPORTANCE)))
    assert rows[1] == {
        "task": "price",
        "column": "age",
        "metric": "rmse",
        "importance": 900,
        "importance_low": 100,
        "importance_high": 1700,
    }
    assert [row["task"] for row in rows] == ["price"] * 3 + ["late"] * 2
