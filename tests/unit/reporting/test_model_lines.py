"""On what the scores were measured, and what the model is made of: in words, in all places where a result is shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from graftwork.reporting.model_card import model_card_text
from graftwork.reporting.model_lines import measured_line, model_line, others_line, weights_table
from graftwork.reporting.report import render_report
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import format_summary


def view(measured: dict[str, Any] | None = None, model: dict[str, Any] | None = None) -> ResultView:
    return ResultView({"format": "graftwork-fit-1", "measured": measured, "model": model})


@pytest.mark.parametrize(
    ("measured", "line"),
    [
        (None, ""),
        (
            {"folds": 0, "judged_folds": 0, "rows": 1200},
            "Scores were measured on 1,200 test rows that no training and no selection saw.",
        ),
        (
            {"folds": 5, "judged_folds": 5, "rows": 150},
            "Scores were measured by cross-validation in 5 folds: 150 rows, each answered by a model that did not learn from it.",
        ),
        (
            {"folds": 5, "judged_folds": 3, "rows": 90},
            "Scores were measured by cross-validation in 5 folds, of which 3 were finished: 90 rows, each answered by a model that "
            "did not learn from it.",
        ),
    ],
)
def test_what_scores_were_measured_on(measured: dict[str, Any] | None, line: str) -> None:
    assert measured_line(view(measured)) == line


TWO_ONLY = {"b": {"z": 1.0}}
MIXED = {"a": {"x": 1.0, "y": 1.0}, "b": {"z": 1.0}}
ONE, TWO = {"a": {"x": 1.0}}, {"a": {"x": 0.7, "y": 1.0}, "b": {"x": 0.3}}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"rows": "training", "models": 1, "parts": 0, "weights": ONE},
            ["one training of `a`", "learned from the training rows only"],
        ),
        ({"rows": "all", "models": 1, "parts": 1, "weights": ONE}, ["one training of `a`, made anew on all rows but a tenth"]),
        ({"rows": "all", "models": 5, "parts": 5, "weights": ONE}, ["average of 5 trainings of `a`", "all but one of 5 parts"]),
        (
            {"rows": "all", "models": 10, "parts": 5, "weights": TWO},
            ["average of 10 trainings of `a`, `b`, with weights for each task"],
        ),
        ({"rows": "all", "models": 6, "parts": 5, "weights": TWO}, ["not all parts were finished"]),
        (
            {"rows": "all", "models": 6, "parts": 5, "weights": TWO, "at_once": ["b"]},
            ["each of them from all but one of 5 parts, those of `b` from all at once; "],
        ),
        (
            {"rows": "all", "models": 3, "parts": 10, "members": 3, "weights": ONE},
            ["average of 3 trainings of `a`. Each of them learned from all rows but one of 10 parts; its own"],
        ),
        ({"rows": "all", "models": 2, "parts": 10, "members": 3, "weights": ONE}, ["not all parts were finished"]),
        (
            {"rows": "all", "models": 1, "parts": 1, "weights": ONE, "longer": {"a": 1.73}},
            ["not measured. In the race `a` was still improving, so trainings on all rows were 1.7 times as long."],
        ),
        (
            {"rows": "all", "models": 2, "parts": 1, "weights": TWO, "longer": {"a": 2.0, "b": 2.0}},
            ["In the race `a`, `b` were still improving, so trainings on all rows were 2 times as long."],
        ),
        (
            {"rows": "all", "models": 2, "parts": 1, "weights": TWO, "at_once": ["a", "b"]},
            ["average of 2 trainings of `a`, `b`, with weights for each task, made anew on all rows; its"],
        ),
        (
            {"rows": "all", "models": 2, "parts": 1, "weights": TWO, "at_once": ["a"]},
            ["made anew on all rows but a tenth, on which training stops (those of `a` on this tenth, too); its"],
        ),
        (
            {"rows": "some", "whole": ["b"], "models": 2, "parts": 1, "weights": TWO},
            ["average of 2 trainings of `a`, `b`", "Those of `b` learned from all rows, the others from the training rows only"],
        ),
        (
            {"rows": "all", "models": 2, "parts": 1, "weights": MIXED, "at_once": ["a", "b"]},
            [
                "The model answers each task by one plan (`x`, `y` by `a`; `z` by `b`), from 2 trainings, made anew on all rows; its"
            ],
        ),
        (
            {"rows": "some", "whole": ["b"], "models": 2, "parts": 1, "weights": {"a": dict.fromkeys("pqrst", 1.0), **TWO_ONLY}},
            [
                "(5 tasks by `a`; `z` by `b`), from 2 trainings. Those of `b` learned from all rows, the others from the training rows"
            ],
        ),
    ],
)
def test_what_the_model_is_made_of(model: dict[str, Any], words: list[str]) -> None:
    line = model_line(view(None, model))
    for word in words:
        assert word in line
    assert line.endswith(".")
    assert ("its own scores were not measured" in line) == (model["rows"] != "training")
    assert model_line(view()) == ""


def test_summary_and_card_say_both_and_show_the_weights(build_result: Callable[..., dict[str, Any]]) -> None:
    result = build_result("table")
    names = [task["name"] for task in result["suite"]["tasks"]]
    result["measured"] = {"folds": 5, "judged_folds": 5, "rows": 2400, "training_rows": 1440}
    result["model"] = {"rows": "all", "models": 10, "parts": 5, "trainings": []}
    result["model"]["weights"] = {"lightgbm": dict.fromkeys(names, 0.6), "mmoe": dict.fromkeys(names, 0.4)}
    for text in (format_summary(result, 160), model_card_text(result)):
        assert "by cross-validation in 5 folds: 2,400 rows" in text
        assert "average of 10 trainings of `lightgbm`, `mmoe`" in text
    table = weights_table(ResultView(result))
    assert table is not None
    assert [getattr(cell, "text", cell) for cell in table.rows[0]] == [names[0], "60\u00a0%", "40\u00a0%"]
    assert "Weights of the plans" in format_summary(result, 160)


def test_the_report_says_each_once(build_result: Callable[..., dict[str, Any]]) -> None:
    result = build_result("table")
    names = [task["name"] for task in result["suite"]["tasks"]]
    result["measured"] = {"folds": 5, "judged_folds": 5, "rows": 2400, "training_rows": 1440}
    result["model"] = {"rows": "all", "models": 10, "parts": 5, "trainings": []}
    result["model"]["weights"] = {"lightgbm": dict.fromkeys(names, 0.6), "mmoe": dict.fromkeys(names, 0.4)}
    page = re.sub(r"<script.*?</script>", "", render_report(result), flags=re.DOTALL)
    assert page.count("Scores were measured by cross-validation in 5 folds") == 1
    assert page.count("The model is an average of 10 trainings") == 1
    del result["measured"]
    assert "Scores on rows that were never used for selection. In brackets" in render_report(result)


def test_of_a_mixed_plan_the_table_names_the_plan_of_each_task(build_result: Callable[..., dict[str, Any]]) -> None:
    result = build_result("table")
    first, *others = [task["name"] for task in result["suite"]["tasks"]]
    result["model"] = {"rows": "all", "models": 2, "parts": 1, "trainings": []}
    result["model"]["weights"] = {"lightgbm": {first: 1.0}, "mmoe": dict.fromkeys(others, 1.0)}
    table = weights_table(ResultView(result))
    assert table is not None
    assert [[getattr(cell, "text", cell) for cell in row] for row in table.rows] == [
        [first, "lightgbm"],
        *([name, "mmoe"] for name in others),
    ]
    text = format_summary(result, 200)
    assert "Plan that answers each task" in text
    assert "average" not in model_line(ResultView(result))


@pytest.mark.parametrize(
    ("kept", "line"),
    [
        (None, ""),
        ({"kept": {}, "not_kept": {}}, ""),
        (
            {"kept": {"a": {"rows": "all"}}, "not_kept": {}},
            "Other finalists can be used as well, with `--plan NAME` of `graftwork predict` and `graftwork serve`: `a`.",
        ),
        (
            {"kept": {"a": {"rows": "training"}, "b": {"rows": "training"}}, "not_kept": {}},
            "Other finalists can be used as well, with `--plan NAME` of `graftwork predict` and `graftwork serve`: `a`, `b`. They are "
            "as the scores were measured, not made anew on all rows.",
        ),
        (
            {"kept": {"a": {"rows": "training"}, "b": {"rows": "all"}}, "not_kept": {"c": "no time", "d": "no time", "e": "big"}},
            "Other finalists can be used as well, with `--plan NAME` of `graftwork predict` and `graftwork serve`: `a`, `b`. Of these, "
            "`a` is as the scores were measured, not made anew on all rows. Not kept: `c`, `d` (no time); `e` (big).",
        ),
    ],
)
def test_which_other_finalists_can_be_used(kept: dict[str, Any] | None, line: str) -> None:
    assert others_line(ResultView({"format": "graftwork-fit-1", "kept_plans": kept})) == line
