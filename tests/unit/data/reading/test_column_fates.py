"""What the user is told of each column: how it is read, what is missing, what models get of it, and why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.data.reading.ingest import open_suite
from graftwork.data.store import load_suite, save_suite

ROWS = 300
DRAW = np.random.default_rng(0)


def _frame() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "age": DRAW.normal(40, 10, ROWS),
            "income": np.exp(DRAW.normal(0, 3, ROWS)),
            "town": DRAW.choice(list("abc"), ROWS),
            "since": pd.date_range("2020-01-01", periods=ROWS, freq="31h").astype(str),
            "one": 1,
            "number": [f"k{index}" for index in range(ROWS)],
            "remark": [f"some long text number {index} about a thing that happened" for index in range(ROWS)],
            "link": [f"https://example.org/{index:08d}/{index:016x}" for index in range(ROWS)],
            "extra": DRAW.normal(size=ROWS),
            "site": np.arange(ROWS) // 10,
            "y": DRAW.normal(size=ROWS),
            "z": DRAW.choice(["no", "yes"], ROWS),
        }
    )
    frame.loc[:20, "age"] = np.nan
    frame["same"] = frame["y"]
    frame["place"] = [[float(first), float(second)] for first, second in DRAW.normal(size=(ROWS, 2))]
    return frame


@pytest.fixture(scope="module")
def fates() -> dict[str, dict[str, Any]]:
    suite = open_suite(_frame(), targets="y,z", ignore="extra", group="site")
    found: dict[str, dict[str, Any]] = suite.raw["columns"]
    return found


@pytest.mark.parametrize(
    ("column", "kind", "missing", "use"),
    [
        ("age", "numeric", 21, "number, and a flag where it is missing"),
        ("income", "numeric", 0, "number, by quantiles (heavy tails)"),
        ("town", "categorical", 0, "category of 3 levels"),
        ("since", "date", 0, "year, month, day, weekday, hour, elapsed days"),
        ("place", "vector", 0, "2 numbers, a column each"),
        ("remark", "text", 0, "text"),
    ],
)
def test_features_say_what_models_get(fates, column, kind, missing, use) -> None:
    assert fates[column] == {"kind": kind, "missing": missing, "use": use, "why": ""}


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("one", "one value or none"),
        ("number", "only names rows"),
        ("link", "--text"),
        ("extra", "--ignore"),
        ("same", "identical to target 'y'"),
        ("site", "the group"),
    ],
)
def test_dropped_columns_say_why(fates, column, why) -> None:
    assert fates[column]["use"] == ""
    assert why in fates[column]["why"]


def test_targets_are_no_inputs_and_the_order_is_that_of_the_table(fates) -> None:
    assert list(fates) == [name for name in _frame().columns if name not in ("y", "z")]


def test_a_text_is_an_input_beside_columns(tmp_path) -> None:
    suite = open_suite(_frame(), targets="y,z", text="remark")
    assert suite.raw["columns"]["remark"]["use"] == "text"
    assert suite.raw["columns"]["age"]["use"].startswith("number")
    save_suite(suite, tmp_path / "suite")
    assert load_suite(tmp_path / "suite").raw["columns"] == suite.raw["columns"]


def test_words_for_missing_cells_count_as_missing() -> None:
    frame = _frame()
    frame["age"] = frame["age"].astype(object).where(frame["age"].notna(), "?")
    assert open_suite(frame, targets="y", missing="?").raw["columns"]["age"]["missing"] == 21
