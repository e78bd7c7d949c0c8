"""Tables as people and other tools write them: each input with the tasks, types and values that it should give, from every
format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.reading.column import Column
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.number_rule import NumberRule, guess_number_rule
from graftwork.data.suite import Suite

ROWS = 200


def draw() -> np.random.Generator:
    return np.random.default_rng(7)


def column(cells: Any, **more: Any) -> Column:
    return Column("c", cells if isinstance(cells, pd.Series) else pd.Series(cells), **more)


def types(suite: Suite) -> dict[str, str]:
    return {column["name"]: column["type"] for column in suite.only_input.encoder["columns"]}


def notes_about(suite: Suite, name: str) -> str:
    return "\n".join(note for note in suite.notes if repr(name) in note)


def csv_of(folder: Path, columns: dict[str, Any], *, sep: str = ",") -> Path:
    path = folder / "t.csv"
    pd.DataFrame(columns).to_csv(path, index=False, sep=sep)
    return path


# --- numbers ---


NUMBERS = [
    ("dollars", ["$27,101.67", "$3.50", "$1,000,000", "-$12", "$ 7"], [27101.67, 3.5, 1e6, -12, 7]),
    ("percent", ["22.4 %", "7%", "100 %"], [22.4, 7, 100]),
    ("spaces and comma", ["1 234,5", "12,25", "2 000 000,0"], [1234.5, 12.25, 2e6]),
    ("narrow spaces", ["1\u202f234,5", "12\u00a0000", "3"], [1234.5, 12000, 3]),
    ("apostrophes", ["1'234.5", "12.25", "1\u2019000"], [1234.5, 12.25, 1000]),
    ("points and comma", ["1.234,5", "97,47", "12"], [1234.5, 97.47, 12]),
    ("thousands", ["1,250", "12,500", "1,250,000"], [1250, 12500, 1250000]),
    ("Indian groups", ["12,34,567", "1,23,456.5"], [1234567, 123456.5]),
    ("brackets", ["(1,250.50)", "3,000.00"], [-1250.5, 3000]),
    ("euros behind", ["12,50 \u20ac", "7,00 \u20ac"], [12.5, 7]),
    ("minus signs", ["\u22125,5", "+3,25"], [-5.5, 3.25]),
    ("codes of currencies", ["USD 12.5", "USD 7"], [12.5, 7]),
    ("exponents", ["1e3", "2.5E-2", "7"], [1000, 0.025, 7]),
    ("decimal comma below one", ["0,375", "12,500", "1,250"], [0.375, 12.5, 1.25]),
    ("durations", ["1 days 02:00:00", "0 days 00:00:30.5", "-1 days +23:00:00"], [93600, 30.5, -3600]),
    ("clock", ["02:13:05", "100:00:00"], [7985, 360000]),
    ("times of day", [f"{hour:02d}:05" for hour in range(12)], [3600 * hour + 300 for hour in range(12)]),
    (
        "halves of the day",
        [f"{hour}:30 {half}" for half in ("AM", "p.m.") for hour in (12, 1, 2, 10, 11)],
        [3600 * hour + 1800 for hour in (0, 1, 2, 10, 11, 12, 13, 14, 22, 23)],
    ),
]


@pytest.mark.parametrize(("cells", "values"), [row[1:] for row in NUMBERS], ids=[row[0] for row in NUMBERS])
def test_numbers_written_for_people(cells: list[str], values: list[float]) -> None:
    read = column(cells)
    assert read.kind == "numeric"
    np.testing.assert_allclose(read.numbers().values, values, rtol=1e-12)
    assert read.number_rule == NumberRule.from_state(json.loads(json.dumps(read.number_rule.state())))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "cells",
    [
        ["$5", "7 %", "\u20ac9"],
        ["12,50", "1.234,5,6"],
        ["1.2.3", "1.2.4"],
        ["06 12 34 56 78", "06 99 88 77 66"],
        ["A1200", "00501"],
        ["1,2,3", "2,3", "1"],
        ["5 kg", "7 m"],
        ["12:30", "13:45"],
        [f"{hour}:30 PM" for hour in range(12, 24)],
        ["1_000", "2_000"],
        ["None", "Mild"],
        ["True", "3.5"],
    ],
)
def test_what_is_no_number(cells: list[str]) -> None:
    assert column(cells).kind == "categorical"


def test_semicolon_files_prefer_the_decimal_comma() -> None:
    levels, counts = ["1,250", "2,500"], np.array([3, 4])
    with_comma, with_semicolon = guess_number_rule(levels, counts), guess_number_rule(levels, counts, decimal=",")
    assert with_comma is not None
    assert with_semicolon is not None
    assert with_comma.read(levels)[0].tolist() == [1250, 2500]
    assert with_semicolon.read(levels)[0].tolist() == [1.25, 2.5]


def test_features_written_for_people_are_learned_from(tmp_path: Path) -> None:
    value = draw().uniform(100, 50_000, ROWS).round(2)
    cells = {
        "money": [f"${number:,.2f}" for number in value],
        "share": [f"{number / 500:.1f} %" for number in value],
        "french": [f"{number:,.1f}".replace(",", " ").replace(".", ",") for number in value],
        "swiss": [f"{number:,.1f}".replace(",", "'") for number in value],
        "y": value * 2 + draw().normal(size=ROWS),
    }
    suite = open_suite(csv_of(tmp_path, cells), targets="y")
    assert types(suite) == dict.fromkeys(("money", "share", "french", "swiss"), "numeric")
    np.testing.assert_allclose(Column("c", pd.Series(cells["french"])).numbers().values, value, atol=0.051)
    assert "written with $ and with commas between thousands (for example '$" in notes_about(suite, "money")
    assert "with a decimal comma" in notes_about(suite, "french")
    for name in ("money", "french", "swiss"):
        assert abs(np.corrcoef(suite.inputs["numeric"][:, list(types(suite)).index(name)], value)[0, 1]) > 0.99


@pytest.mark.parametrize("word", ["unknown", "?", "NA", "n/a", "None", "-"])
def test_words_for_missing_cells_among_numbers(tmp_path: Path, word: str) -> None:
    cells = [f"{value:.3f}" for value in draw().normal(size=500)]
    for row in range(17, 500, 60):
        cells[row] = word
    suite = open_suite(
        csv_of(tmp_path, {"x": cells, "y": [len(cell) + float(index) for index, cell in enumerate(cells)]}), targets="y"
    )
    assert types(suite) == {"x": "numeric"}
    assert suite.inputs["numeric"][:, 1].sum() == 9, "missing cells are indicated"
    assert f"9 cells such as {word!r} count as missing" in notes_about(suite, "x")


def test_a_rare_unknown_word_is_missing_and_a_code_is_a_level() -> None:
    numbers = [str(value) for value in range(300)]
    assert column([*numbers, "pending"]).kind == "numeric"
    assert column([*numbers, "pending"]).numbers().unread == {"pending": 1}
    assert column([*numbers, "A1200"]).kind == "categorical"
    assert column([*numbers, *["pending"] * 20]).kind == "categorical"


def test_a_target_with_question_marks_and_one_in_percent(tmp_path: Path) -> None:
    value = draw().uniform(0, 90, ROWS)
    cells = {
        "x": value,
        "percent": [f"{number:.0f} %" for number in value],
        "grouped": [f"{1000 + number * 40:,.0f}" for number in value],
        "gap": [f"{number:.2f}" if index % 9 else "?" for index, number in enumerate(value)],
    }
    suite = open_suite(csv_of(tmp_path, cells), targets="percent,grouped,gap")
    assert {task.name: task.kind for task in suite.tasks} == dict.fromkeys(("percent", "grouped", "gap"), "regression")
    np.testing.assert_allclose(suite.targets["grouped"][:, 0], np.round(1000 + value * 40))
    assert np.isnan(suite.targets["gap"]).sum() == len(value[::9])
    assert "count as missing" in notes_about(suite, "gap")
    assert "written with %" in notes_about(suite, "percent")


def test_a_semicolon_file_with_a_decimal_comma_is_a_regression(tmp_path: Path) -> None:
    value = draw().uniform(90, 130, ROWS).round(2)
    cells = {"x": value + draw().normal(size=ROWS), "y": [f"{number:.2f}".replace(".", ",") for number in value]}
    suite = open_suite(csv_of(tmp_path, cells, sep=";"), targets="y")
    assert [task.kind for task in suite.tasks] == ["regression"]
    np.testing.assert_allclose(suite.targets["y"][:, 0], value.astype(np.float32))


# --- words ---


def in_every_format(folder: Path, frame: pd.DataFrame) -> dict[str, Any]:
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet")
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    return {**{ending: folder / f"t.{ending}" for ending in ("csv", "parquet", "jsonl")}, "frame": frame}


def test_words_that_look_missing_are_values(tmp_path: Path) -> None:
    random = draw()
    frame = pd.DataFrame(
        {
            "country": random.choice(["NA", "DE", "FR", "null"], ROWS),
            "x": random.normal(size=ROWS),
            "pain": random.choice(["None", "Mild", "Severe"], ROWS),
        }
    )
    frame.loc[5, "country"] = None
    frame.loc[6, "pain"] = None
    for name, source in in_every_format(tmp_path, frame).items():
        suite = open_suite(source, targets="pain", name="t")
        assert (suite.tasks[0].kind, suite.tasks[0].classes) == ("ordinal", ("None", "Mild", "Severe")), name
        assert (suite.targets["pain"] < 0).sum() == 1, name
        levels = next(column["levels"] for column in suite.only_input.encoder["columns"] if column["name"] == "country")
        assert set(levels) == {"NA", "DE", "FR", "null"}, name
        assert (suite.inputs["categorical"] == 0).sum() == 1, name


def test_all_formats_give_the_same_suite(tmp_path: Path) -> None:
    random = draw()
    frame = pd.DataFrame(
        {
            "number": random.normal(size=ROWS),
            "whole": random.integers(0, 90, ROWS),
            "gap": np.where(random.random(ROWS) < 0.2, np.nan, random.normal(size=ROWS)),
            "word": random.choice(["a", "b", "NA"], ROWS),
            "flag": random.random(ROWS) < 0.5,
            "day": pd.date_range("2024-01-01", periods=ROWS).strftime("%Y-%m-%d"),
            "y": random.normal(size=ROWS),
        }
    )
    suites = [open_suite(source, targets="y,word", name="t") for source in in_every_format(tmp_path, frame).values()]
    assert len({suite.fingerprint() for suite in suites}) == 1


def test_a_target_of_strings_that_are_numbers(tmp_path: Path) -> None:
    cells = [("0", "1", "1.0", "01")[index % 4] for index in range(ROWS)]
    frame = pd.DataFrame({"x": draw().normal(size=ROWS), "y": cells})
    for source in (frame, csv_of(tmp_path, {"x": frame["x"], "y": cells})):
        suite = open_suite(source, targets="y")
        assert (suite.tasks[0].kind, suite.tasks[0].classes) == ("binary", ("0", "1"))
        assert suite.targets["y"].mean() == 0.75
        assert "the cells '1', '1.0', '01' are one number, so they are one class, '1'" in notes_about(suite, "y")


def test_true_and_false_in_any_case(tmp_path: Path) -> None:
    for words in (("TRUE", "FALSE"), ("true", "false"), ("True", "False")):
        cells = {
            "x": draw().normal(size=40),
            "y": [words[index % 2] for index in range(40)],
            "flag": [words[index % 3 == 0] for index in range(40)],
        }
        suite = open_suite(csv_of(tmp_path, cells), targets="y")
        assert suite.tasks[0].classes == ("False", "True")
        assert types(suite) == {"x": "numeric", "flag": "numeric"}


# --- ids ---


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_ids_of_19_digits_with_a_blank_stay_apart(tmp_path: Path, ending: str) -> None:
    users = np.arange(187) * 3 + 1_234_567_890_123_456_000
    ids = pd.Series([int(users[index % 187]) for index in range(600)], dtype="Int64")
    ids[3] = pd.NA
    frame = pd.DataFrame({"id": ids, "x": draw().normal(size=600), "y": draw().uniform(size=600)})
    source = in_every_format(tmp_path, frame)[ending]
    suite = open_suite(source, targets="y", group="id")
    assert len(np.unique(suite.groups)) == 188, "187 users, and a row that is a group of its own"
    levels = open_suite(source, targets="y", categories="id").only_input.encoder["columns"][0]["levels"]
    assert len(levels) > 100, "all with two training rows"
    assert set(levels) <= set(map(str, users.tolist()))


# --- targets far from zero, rare classes, names of outputs ---


def test_a_target_whose_spread_is_far_below_its_mean() -> None:
    value = 5_000_000 + (draw().normal(size=400) * 15).round(3)
    suite = open_suite(pd.DataFrame({"x": value - 5e6 + draw().normal(size=400), "y": value}), targets="y")
    (task,) = suite.tasks
    assert len(np.unique(suite.targets["y"])) == len(np.unique(value))
    (origin,) = task.details["origin"]
    np.testing.assert_allclose(suite.targets["y"][:, 0].astype(np.float64) + origin, value, atol=1e-4)
    assert "learned as its difference from " in notes_about(suite, "y")
    near = open_suite(pd.DataFrame({"x": value, "y": draw().normal(100, 15, 400)}), targets="y")
    assert near.tasks[0].details == {}
    assert near.targets["y"].dtype == np.float32


def test_too_few_rows_of_a_class_are_said_before_training() -> None:
    random = draw()
    frame = pd.DataFrame({"x": random.normal(size=600), "rare": ["no"] * 600})
    frame.loc[[3, 400], "rare"] = "yes"
    frame["good"] = np.where(frame["x"] > 0, "up", "down")
    with pytest.raises(
        DataError, match=r"'rare' has too few rows of all classes but one: yes \(2\) of 600 labelled rows; 5 are needed"
    ):
        open_suite(frame[["x", "rare"]], targets="rare")
    suite = open_suite(frame, targets="rare,good")
    assert suite.task_names == ("good",)
    assert "It is left out; the other targets are judged (good)." in notes_about(suite, "rare")
    assert types(suite) == {"x": "numeric"}, "a target that is left out is no feature"


def test_a_class_in_one_group_only_cannot_be_judged() -> None:
    frame = pd.DataFrame({"who": [index // 20 for index in range(400)], "x": draw().normal(size=400)})
    frame["sick"] = np.where(frame["who"] == 3, "yes", "no")
    frame["y"] = frame["x"] * 2
    suite = open_suite(frame, targets="sick,y", group="who")
    assert suite.task_names == ("y",)
    assert "one class only in the" in notes_about(suite, "sick")


def test_output_columns_that_collide_are_said() -> None:
    random = draw()
    frame = pd.DataFrame(
        {
            "x": random.normal(size=ROWS),
            "spam": random.choice(["yes", "no"], ROWS),
            "spam_probability": random.random(ROWS),
            "tags": random.choice(["red;blue", "red", "blue"], ROWS),
            "tags[red]": random.random(ROWS),
            "row": random.random(ROWS),
        }
    )
    suite = open_suite(frame, targets=["spam", "spam_probability", "tags", "tags[red]", "row"])
    notes = "\n".join(suite.notes)
    assert "it is called 'spam_probability_2'" in notes
    assert "it is called 'tags[red]_2'" in notes
    assert "predictions name their rows in the column 'row_2'" in notes


@pytest.mark.parametrize("text", ["--inf", "inf-", "+-inf", "-+infinity", "inf+", "infin"])
def test_infinity_has_one_sign_in_front(text: str) -> None:
    numbers, unread = NumberRule().read([text, "inf", "-Infinity", "+INF"])
    assert unread.tolist() == [True, False, False, False]
    assert numbers[1:].tolist() == [float("inf"), float("-inf"), float("inf")]
    unread = NumberRule(decimal=",").read([text, "-inf"])[1]
    assert unread.tolist() == [True, False]


def test_a_target_that_lacks_a_class_only_in_the_second_split_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"x": draw().normal(size=100)})
    for name, row in (("first", 0), ("second", 50)):
        frame[name] = np.where((np.arange(100) >= row) & (np.arange(100) < row + 10), "yes", "no")
    frame["y"] = frame["x"] * 2

    def split(tasks: Any, targets: Any, **_: Any) -> dict[str, Any]:
        # While `first` is asked for, its class is missing from the test rows; then that of `second` is.
        test = np.arange(55, 75) if "first" in targets else np.arange(0, 20)
        rest = np.setdiff1d(np.arange(100), test)
        return {"train": rest[::2], "val": rest[1::2], "test": test}

    monkeypatch.setattr("graftwork.data.reading.division.split_rows", split)
    suite = open_suite(frame, targets="first,second,y")
    assert suite.task_names == ("y",)
    assert "one class only in the test rows" in notes_about(suite, "first")
    assert "one class only in the test rows" in notes_about(suite, "second")


@pytest.mark.parametrize("damage", [{"decimal": "\ufeff."}, {"thousands": "p"}, {"decimal": ""}, {"thousands": None}])
def test_a_damaged_rule_of_numbers_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(damage))} of a column of numbers is"):
        NumberRule.from_state({**NumberRule().state(), **damage})
    for decimal, thousands in ((".", ""), (",", "."), (",", "'"), (".", " ")):
        rule = NumberRule(decimal, thousands)
        assert NumberRule.from_state(rule.state()) == rule
