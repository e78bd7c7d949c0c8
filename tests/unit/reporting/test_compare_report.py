"""The report of a comparison, and the figures that show gradients and groups."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graftwork.core.errors import FileFormatError
from graftwork.reporting.compare_report import compare_sections, render_compare_report
from graftwork.reporting.compare_tables import format_comparison, leaderboard_table, standings_table
from graftwork.reporting.compare_view import CompareView
from graftwork.reporting.figures.gradients import gradient_figure, gradient_time_figure
from graftwork.reporting.figures.pareto import pareto_figure
from graftwork.reporting.parts import Cell
from graftwork.reporting.report import render_report

ATTACK = "<script>alert(1)</script>"


def gradients(stages: list[str], pairs: int = 2) -> dict[str, Any]:
    names = [f"t{index}" for index in range(pairs + 1)]
    rows = range(len(stages))
    return {
        "tasks": names,
        "pairs": [["t0", name] for name in names[1:]],
        "stages": stages,
        "layers": [{"layer": f"{stage}.conv", "stage": stage, "conflict_share": 0.25} for stage in stages],
        "value": [[0.4 - 0.1 * j for j in range(pairs)] for _ in rows],
        "low": [[0.3 - 0.1 * j for j in range(pairs)] for _ in rows],
        "high": [[0.5 - 0.1 * j for j in range(pairs)] for _ in rows],
        "conflict": [[0.0, *[0.5] * (pairs - 1)] for _ in rows],
        "conflict_share": [0.1 * index for index in rows],
        "steps": [1, 2, 3, 4],
        "periods": [[1, 2], [3, 4]],
        "over_time": [[0.2, None] for _ in rows],
        "all_over_time": [[0.1] * pairs] * 2,
        "method": "cosines, 4 samples",
    }


@pytest.fixture
def result(build_result: Any) -> dict[str, Any]:
    """A comparison made of the made-up fit: the finalists ranked, and one plan that diverged."""
    found = build_result("table")
    ranked = sorted(
        (name for name, plan in found["plans"].items() if plan["finalist"]), key=lambda n: -found["plans"][n]["delta_m"]["value"]
    )
    found["plans"] = {name: found["plans"][name] for name in ranked}
    labels = ["better", "probably better", "worse"]
    found["leaderboard"] = [
        {"rank": index + 1, "plan": name, "status": "ok", "message": "", "seeds": [0, 1, 2], "steps": 600,
         "delta_m": found["plans"][name]["delta_m"], "p_value": None if name == "separate" else 0.0004,
         "label": None if name == "separate" else labels[index % 3]}
        for index, name in enumerate(ranked)
    ]  # fmt: skip
    found["leaderboard"].append(
        {"rank": None, "plan": "pcgrad", "status": "diverged", "message": "The loss became NaN.\nmore", "seeds": [], "steps": 0,
         "delta_m": None, "p_value": None, "label": None}
    )  # fmt: skip
    points = found["pareto"]
    found["pareto"] = [*points, *({**row, "cost_name": "wall_seconds", "cost": row["cost"] / 1e4} for row in points)]
    found |= {
        "format": "graftwork-compare-1",
        "budget": {"steps": 600, "seconds": None, "seeds": [0, 1, 2], "sentence": "Budget: 600 steps for each training."},
        "gradients": gradients(["backbone.trunk.stem", "backbone.trunk.block"]),
        "grouping": {"tasks": ["a", "b"], "groups": [["a"], ["b"]], "value": 0.0, "together": -0.2, "is_exact": True,
                     "confidence": [0.97, 0.5], "max_groups": 2, "advice": ["Keep `a` apart (confidence 97 %)."]},
    }  # fmt: skip
    found["verdict"]["strength"] = None
    found["verdict"]["sentences"] = ["`lightgbm` leads."]
    return found


def test_the_page_holds_everything_and_nothing_of_a_fit(result: dict[str, Any]) -> None:
    page = render_compare_report(result)
    for words in ("Plans side by side, one budget", "<code>lightgbm</code> leads", "The loss became NaN.", "600 steps for each training",
                  "Groups by the affinities alone, which no control bears out", "<code>a</code> apart", "plot-pareto-wall_seconds", "plot-gradients-over-time"):  # fmt: skip
        assert words in page
    assert "Which way of learning" not in page
    assert "verdict of graftwork fit" not in page
    keys = [section.key for section in compare_sections(CompareView(result))]
    assert keys == ["leaderboard", "gain", "costs", "affinity", "data"]


def test_the_leaderboard_says_rank_judgement_and_reason(result: dict[str, Any]) -> None:
    table = leaderboard_table(CompareView(result))
    assert table is not None
    first, last = table.rows[0], table.rows[-1]
    assert isinstance(first[0], Cell)
    assert first[0].text.startswith("1.\u00a0")
    assert isinstance(first[2], Cell)
    assert first[2].text in ("<\u00a00.001", "")
    assert isinstance(last[1], Cell)
    assert (last[1].text, last[1].note) == ("no score", "The loss became NaN.")
    assert {len(row) for row in table.rows} == {len(table.headers)}
    standings = standings_table(CompareView(result))
    assert standings is not None
    assert standings.rows[-1][1] == "diverged"


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_summary_fits_the_terminal(result: dict[str, Any], width: int) -> None:
    text = format_comparison(result, width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("leads", "pcgrad: The loss became NaN.", "Which tasks to train together"):
        assert word in " ".join(text.split())


def test_names_cannot_become_code(result: dict[str, Any]) -> None:
    result["leaderboard"][-1]["plan"] = ATTACK
    result["leaderboard"][-1]["message"] = ATTACK
    result["gradients"]["stages"] = [ATTACK, f"{ATTACK}2"]
    result["grouping"]["advice"] = [ATTACK]
    assert ATTACK not in render_compare_report(result)


def test_formats_are_not_mixed_up(result: dict[str, Any], build_result: Any) -> None:
    with pytest.raises(FileFormatError, match="no result of graftwork compare: its format is 'graftwork-fit-1'"):
        render_compare_report(build_result("table"))
    with pytest.raises(FileFormatError, match="no result of graftwork fit: its format is 'graftwork-compare-1'"):
        render_report(result)


def test_a_fit_shows_gradients_and_groups_too(result: dict[str, Any], build_result: Any) -> None:
    fitted = {**build_result("table"), "gradients": result["gradients"], "grouping": result["grouping"]}
    page = render_report(fitted)
    assert "plot-gradients" in page
    assert "Groups to train together" not in page, "no control bears them out"
    fitted["grouping"] = {**result["grouping"], "advised": [["a"], ["b"]]}
    assert "Groups to train together" in render_report(fitted)


def test_gradient_figures(result: dict[str, Any]) -> None:
    figure, over_time = gradient_figure(CompareView(result)), gradient_time_figure(CompareView(result))
    assert figure is not None
    assert over_time is not None
    assert figure.layout["yaxis"]["ticktext"] == ["stem", "block"], "what all stages share is left out"
    cell = figure.table.rows[0][2]
    assert isinstance(cell, Cell)
    assert cell.note == "conflict in 50\u00a0% of steps"
    assert "Most conflicts: block, in 10\u00a0%" in figure.summary
    assert over_time.layout["xaxis"]["ticktext"] == ["1–2", "3–4"]
    moment = over_time.table.rows[0][1]
    assert isinstance(moment, Cell)
    assert (moment.text, moment.mark) == ("+0.20", None), "without an interval nothing is claimed"
    assert [note["text"] for note in over_time.layout["annotations"]] == ["+0.20"] * 2
    json.dumps(figure.data, allow_nan=False)
    result["gradients"] = gradients(["stem"], pairs=40)
    many = gradient_figure(CompareView(result))
    assert many is not None
    assert len(many.layout["xaxis"]["ticktext"]) == 15
    assert "25 pairs with higher cosines are not shown" in many.summary
    result["gradients"] = None
    assert gradient_figure(CompareView(result)) is None
    assert gradient_time_figure(CompareView(result)) is None


def test_labels_of_neighbours_stand_on_different_sides(result: dict[str, Any]) -> None:
    result["pareto"] = [
        {"plan": name, "cost": cost, "cost_name": "wall_seconds", "score": score, "on_front": False}
        for name, cost, score in (("a", 1.0, 0.0), ("b", 1.05, 0.1), ("c", 2.0, 9.0))
    ]
    figure = pareto_figure(CompareView(result), "wall_seconds")
    assert figure is not None
    assert figure.data[1]["textposition"] == ["top right", "bottom right", "top left"]
    assert pareto_figure(CompareView(result), "flops_per_sample") is None
