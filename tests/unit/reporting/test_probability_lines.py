"""What a report says of corrections and thresholds follows from the numbers."""

from __future__ import annotations

from typing import Any

from graftwork.reporting.parts import Cell
from graftwork.reporting.probability_lines import probabilities_line, probabilities_table
from graftwork.reporting.report import render_report
from graftwork.reporting.result_view import ResultView

CORRECTED: dict[str, Any] = {
    "rows": 900,
    "before": {"log_loss": 0.61, "brier": 0.2},
    "after": {"log_loss": 0.48, "brier": 0.17},
    "why_not": "",
    "correction": {"exclusive": False, "temperature": 1.8, "shifts": [0.2]},
    "averaged": False,
    "class_weights": False,
    "thresholds": {"values": [0.31], "metric": "f1_macro", "before": 0.6, "after": 0.7, "why_not": ""},
}
PLAIN: dict[str, Any] = {
    "rows": 900,
    "before": {"log_loss": 0.5, "brier": 0.2},
    "after": {"log_loss": 0.5, "brier": 0.2},
    "why_not": "no correction was clearly better on other rows",
    "correction": None,
    "averaged": False,
    "class_weights": False,
}


def view(build_result: Any, **tasks: Any) -> ResultView:
    return ResultView({**build_result("table"), "probabilities": tasks})


def test_thresholds_of_classes_are_said_as_such(build_result: Any) -> None:
    thresholds = {**CORRECTED["thresholds"], "values": [0.7, 0.2, 0.1], "of_classes": True}
    kept = {**thresholds, "values": [], "why_not": "no other threshold was clearly better on other rows"}
    found = view(build_result, churn={**PLAIN, "thresholds": thresholds}, plan={**PLAIN, "thresholds": kept})
    line, table = probabilities_line(found), probabilities_table(found)
    assert (
        "`churn` is answered with the class whose probability is the largest multiple of its threshold, where its macro F1"
        in line
    )
    assert "yes" not in line
    assert table is not None
    assert [texts(row)[4] for row in table.rows] == ["0.100 to 0.700", "most probable"]


def texts(row: Any) -> list[str]:
    return [cell if isinstance(cell, str) else cell.text for cell in row]


def test_a_correction_and_a_threshold_are_said_with_their_numbers(build_result: Any) -> None:
    found = view(build_result, churn=CORRECTED, plan=PLAIN)
    line = probabilities_line(found)
    assert "Probabilities for `churn` are corrected" in line
    assert "a temperature and a shift of each class" in line
    assert "`churn` is answered with yes above 0.310, where its macro F1" in line
    assert "two models" not in line
    table = probabilities_table(found)
    assert table is not None
    first, second = table.rows
    assert texts(first) == [
        "churn",
        "temperature 1.80, each class shifted",
        "0.610 → 0.480",
        "0.200 → 0.170",
        "0.310",
        "0.600 → 0.700",
    ]
    assert isinstance(first[1], Cell)
    assert first[1].note == "was too sure"
    assert texts(second) == ["plan", "none", "0.500", "0.200", "most probable", "n/a"], (
        "one half decides between two classes alone"
    )
    plain = probabilities_table(view(build_result, churned=PLAIN))
    assert plain is not None
    assert texts(plain.rows[0])[4] == "0.5"
    page = render_report(dict(found.result))
    assert "temperature 1.80" in page


def test_averages_and_weights_are_said(build_result: Any) -> None:
    line = probabilities_line(view(build_result, churn={**CORRECTED, "averaged": True, "class_weights": True}))
    assert "two models that did not learn from a row answered it together" in line
    assert "weigh the same together, as asked" in line


def test_where_nothing_helps_it_says_so(build_result: Any) -> None:
    assert probabilities_line(view(build_result, plan=PLAIN)) == (
        "Probabilities are those of the plan as they come: no correction was clearly better on other rows."
    )


def test_results_of_before_say_nothing(build_result: Any) -> None:
    found = ResultView(build_result("table"))
    assert probabilities_line(found) == ""
    assert probabilities_table(found) is None
