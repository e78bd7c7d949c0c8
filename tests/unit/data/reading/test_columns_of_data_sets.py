"""Data sets with columns of their own: a table or request needs the columns of one of them, not of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.table import as_table
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import Problem
from graftwork.serving.reading import TableReader

YAML = """\
name: shops
datasets:
  - {name: web, source: web.csv, targets: {price: }}
  - {name: phone, source: phone.csv, targets: {length: }}
"""


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(3)
    both = {"age": generator.normal(40, 9, 80), "city": generator.choice(["a", "b", "c"], 80)}
    clicks, minutes = generator.normal(size=80), generator.normal(size=80)
    made = {
        "web": pd.DataFrame({**both, "clicks": clicks, "price": clicks + generator.normal(size=80)}),
        "phone": pd.DataFrame(
            {**both, "minutes": minutes, "line": ["x", "y"] * 40, "length": minutes + 1.5 * generator.normal(size=80)}
        ),
    }
    for name, table in made.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "suite.yaml").write_text(YAML)
    return made


def encoder_of(folder: Path) -> Any:
    return encoder_from_state(open_suite(folder / "suite.yaml").only_input.encoder)


def test_the_table_of_each_data_set_can_be_read_again(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    suite = open_suite(tmp_path / "suite.yaml")
    encoder = encoder_from_state(suite.only_input.encoder)
    assert set(encoder.names) == {"age", "city", "clicks", "minutes", "line"}
    for first, name in enumerate(tables):
        made = encoder.transform(tables[name])
        for key, values in made.items():
            np.testing.assert_array_equal(values, suite.inputs[key][80 * first : 80 * (first + 1)])
        assert encoder.cells_read_as_missing(as_table(tables[name])) == {}


def test_columns_of_no_data_set_are_asked_for(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    encoder = encoder_of(tmp_path)
    with pytest.raises(DataError, match="lacks 1 of the columns of any data set .*'clicks'.*'click'"):
        encoder.transform(tables["web"].rename(columns={"clicks": "click"}))
    with pytest.raises(DataError, match="lacks 1 of the columns of any data set"):
        encoder.transform(tables["phone"].drop(columns="age"))


def test_a_request_needs_the_keys_of_one_data_set(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    encoder = encoder_of(tmp_path)
    reader = TableReader(encoder, ServeLimits(max_rows=8))
    problems: list[Problem] = []
    row = reader.read_one("rows", "rows[0]", {"age": 40, "city": "a", "clicks": 0.5}, problems)
    assert not problems
    made, asked = reader.encode([row]), pd.DataFrame({"age": [40], "city": ["a"], "clicks": [0.5]})
    for key, values in encoder.transform(asked).items():
        np.testing.assert_array_equal(made[key], values)
    reader.read_one("rows", "rows[0]", {"age": 40, "city": "a", "minutes": 2.0}, problems)
    assert [problem.field for problem in problems] in (["rows[0].line"], ["rows[0].clicks"])
    assert reader.item_schemas()["rows"]["required"] == ["age", "city"]


def test_equal_columns_leave_no_choice(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> None:
    tables["phone"].rename(columns={"minutes": "clicks"}).drop(columns="line").to_csv(tmp_path / "phone.csv", index=False)
    encoder = encoder_of(tmp_path)
    assert encoder.alternatives == ()
    assert "alternatives" not in encoder.state()
    with pytest.raises(DataError, match="lacks 1 of the 3 columns"):
        encoder.transform(tables["web"].drop(columns="clicks"))
