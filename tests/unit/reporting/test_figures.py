from __future__ import annotations

import itertools

from graftwork.reporting.figures.forest import forest_figure
from graftwork.reporting.figures.heatmaps import affinity_figure
from graftwork.reporting.figures.pareto import pareto_figure
from graftwork.reporting.figures.race import race_figure
from graftwork.reporting.parts import Cell
from graftwork.reporting.result_view import ResultView


def _view(**fields: object) -> ResultView:
    return ResultView({"format": "graftwork-fit-1", **fields})


def _words(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else " ".join([cell.text, cell.mark.words if cell.mark else ""]).strip()


def test_affinity_mutes_what_is_not_clear_of_zero() -> None:
    affinity = {
        "tasks": ["a", "b"],
        "value": [[0, 3], [-2, 0]],
        "low": [[0, 1], [-5, 0]],
        "high": [[0, 5], [1, 0]],
        "words": [["", "helps"], ["unclear", ""]],
        "method": "m",
    }
    figure = affinity_figure(_view(affinity=affinity))
    assert figure is not None
    assert figure.data[1]["z"] == [[None, 3.0], [None, None]], "the diagonal and the unclear cell have no colour"
    assert [note["text"] for note in figure.layout["annotations"]] == ["+3.00", "(−2.00)"]
    assert [[_words(cell) for cell in row] for row in figure.table.rows] == [
        ["a", "n/a", "+3.00 [+1.00, +5.00] helps"],
        ["b", "−2.00 [−5.00, +1.00] unclear", "n/a"],
    ]


def test_affinity_needs_two_tasks_and_a_square() -> None:
    assert affinity_figure(_view(affinity=None)) is None
    assert affinity_figure(_view(affinity={"tasks": ["a"], "value": [[0]]})) is None
    assert affinity_figure(_view(affinity={"tasks": ["a", "b"], "value": [[0, 1]]})) is None


def test_forest_is_sorted_and_leaves_the_reference_out() -> None:
    plans = {
        name: {"finalist": True, "delta_m": {"value": value, "low": value - 1, "high": value + 1}}
        for name, value in (("separate", 0.0), ("x", -2.0), ("y", 4.0))
    }
    figure = forest_figure(_view(plans=plans, verdict={"choice": "y", "reference": "separate"}))
    assert figure is not None
    assert figure.data[0]["x"] == [-2.0, 4.0]
    assert figure.data[0]["marker"]["symbol"] == ["circle", "diamond"]
    assert [row[0] for row in figure.table.rows] == ["y", "x"]
    assert forest_figure(_view(plans={"separate": plans["separate"]}, verdict={"reference": "separate"})) is None


def test_a_bound_of_zero_is_a_bound() -> None:
    intervals = {
        "x": {"value": 2.0, "low": 0.0, "high": 3.0},
        "y": {"value": -2.0, "low": -5.0, "high": 0.0},
        "z": {"value": 1.0},
    }
    plans = {name: {"finalist": True, "delta_m": value} for name, value in intervals.items()}
    figure = forest_figure(_view(plans=plans, verdict={"choice": "x", "reference": "separate"}))
    assert figure is not None
    assert figure.data[0]["x"] == [-2.0, 1.0, 2.0]
    assert figure.data[0]["error_x"]["arrayminus"] == [3.0, 0.0, 2.0]
    assert figure.data[0]["error_x"]["array"] == [2.0, 0.0, 1.0]


def test_pareto_takes_a_log_axis_only_for_wide_costs() -> None:
    def points(costs: list[float]) -> list[dict[str, object]]:
        return [
            {"plan": f"p{i}", "cost": cost, "cost_name": "parameters", "score": i, "on_front": True}
            for i, cost in enumerate(costs)
        ]

    narrow, wide = pareto_figure(_view(pareto=points([10, 20]))), pareto_figure(_view(pareto=points([10, 2000])))
    assert narrow is not None
    assert wide is not None
    assert narrow.layout["xaxis"]["type"] == "linear"
    assert wide.layout["xaxis"]["type"] == "log"
    assert pareto_figure(_view(pareto=points([0, 5]))).layout["xaxis"]["type"] == "linear"  # type: ignore[union-attr]
    assert pareto_figure(_view(pareto=[{"plan": "p", "cost": None, "score": 1.0}])) is None


def test_race_says_who_left_when_and_why() -> None:
    def row(plan: str, rung: int, score: float | None, status: str = "ok", message: str = "") -> dict[str, object]:
        return {
            "plan": plan,
            "rung": rung,
            "steps": 10 * 3**rung,
            "score": score,
            "status": status,
            "message": message,
            "seed": 0,
        }

    race = [
        row("win", 0, 1.0),
        row("slow", 0, 0.5),
        row("broken", 0, None, "diverged", "loss became NaN"),
        row("win", 1, 2.0),
        row("win", 1, 4.0),
    ]
    race.append(row("big", 0, None, "excluded", "needs 3 M parameters"))
    plans = {"win": {"finalist": True, "delta_m": None}}
    figure = race_figure(_view(race=race, plans=plans, verdict={"choice": "win"}))
    assert figure is not None
    fates = {row[0]: [_words(cell) for cell in row[1:]] for row in figure.table.rows}
    assert fates["win"] == ["stayed", "30", "3.00", "chosen"]
    assert fates["slow"] == ["rung 1", "10", "0.500", "rank 2 of 2 at this rung"]
    assert fates["broken"] == ["rung 1", "10", "n/a", "diverged: loss became NaN"]
    assert fates["big"][-1] == "excluded by a limit: needs 3 M parameters"
    line = next(trace for trace in figure.data if trace["name"] == "win")
    assert line["y"] == [1.0, 3.0], "seeds of one rung are averaged"


def test_close_race_labels_do_not_overlap() -> None:
    race = [
        {"plan": name, "rung": 0, "steps": 5, "score": score, "status": "ok"}
        for name, score in (("a", 1.0), ("b", 1.001), ("c", 0.0))
    ]
    figure = race_figure(_view(race=race, plans={name: {"finalist": True} for name in "abc"}))
    assert figure is not None
    heights = sorted(label["y"] for label in figure.layout["annotations"])
    assert min(second - first for first, second in itertools.pairwise(heights)) > 0.05
