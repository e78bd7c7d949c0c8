"""Dates in the orders that people write, from training to prediction and serving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.reading.column import Column
from graftwork.data.reading.date_rule import DateRule
from graftwork.data.reading.ingest import open_suite
from graftwork.data.suite import Suite
from graftwork.serving.limits import ServeLimits
from graftwork.serving.reading import TableReader

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


DATES = [
    ("American", ["05/31/2023 14:05", "1/2/2023", "12/31/2022 2:05 PM"], ["2023-05-31 14:05", "2023-01-02", "2022-12-31 14:05"]),
    ("UTC behind", ["2023-05-31 14:05:00 UTC", "2023-01-02 00:00:00 UTC"], ["2023-05-31 14:05", "2023-01-02"]),
    ("German", ["31.05.2023", "01.02.2023 10:30", "31.05.23"], ["2023-05-31", "2023-02-01 10:30", "2023-05-31"]),
    ("slashes", ["2023/05/31", "2023/1/2"], ["2023-05-31", "2023-01-02"]),
    ("month names", ["31 May 2023", "May 1, 2023", "3-Feb-2021"], ["2023-05-31", "2023-05-01", "2021-02-03"]),
    ("zones", ["2023-05-31T14:05:00+02:00", "2023-05-31T14:05:00Z"], ["2023-05-31 12:05", "2023-05-31 14:05"]),
    ("months", ["2019-07", "12/2020", "Mar 2021", "september-2021"], ["2019-07-01", "2020-12-01", "2021-03-01", "2021-09-01"]),
    ("quarters", ["2019Q3", "2020-q1", "Q4 2021", "2022 Q2"], ["2019-07-01", "2020-01-01", "2021-10-01", "2022-04-01"]),
    ("ambiguous with points", ["03.04.2023", "05.06.2023"], ["2023-04-03", "2023-06-05"]),
    ("ambiguous with slashes", ["03/04/2023", "05/06/2023"], ["2023-03-04", "2023-05-06"]),
]


@pytest.mark.parametrize(("cells", "moments"), [row[1:] for row in DATES], ids=[row[0] for row in DATES])
def test_dates_written_for_people(cells: list[str], moments: list[str]) -> None:
    read = column(cells)
    assert read.kind == "date"
    assert read.dates().values.tolist() == [pd.Timestamp(moment).timestamp() for moment in moments]
    assert read.date_rule == DateRule.from_state(json.loads(json.dumps(read.date_rule.state())))  # type: ignore[union-attr]


def test_an_order_that_is_guessed_is_said() -> None:
    assert "no cell has a day above 12" in column(["03/04/2023", "05/06/2023"]).notes()[0]
    assert "in the order day, month, year (for example '31.05.2023')." in column(["31.05.2023", "01.02.2023"]).notes()[0]


def test_what_is_no_date() -> None:
    for cells in (["31.02.2023", "30.02.2023"], ["1.2.3", "4.5.6"], ["13/13/2023"], ["soon", "later"], ["25:61:00"]):
        assert column(cells).kind != "date", cells


def test_dates_that_cannot_be_read_are_missing_and_said(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d").to_numpy(dtype=object, copy=True)
    days[::12] = "0000-00-00"
    suite = open_suite(csv_of(tmp_path, {"day": days, "y": draw().normal(size=ROWS)}), targets="y")
    assert types(suite) == {"day": "date"}
    assert suite.inputs["numeric"][:, -1].sum() == len(days[::12])
    assert "holds dates and 17 cells that are none, such as '0000-00-00'" in notes_about(suite, "day")


def encoder_of(cells: list[str]) -> TableEncoder:
    frame = pd.DataFrame({"day": cells})
    other = encoder_from_state(json.loads(json.dumps(TableEncoder.fit(frame, ["day"]).state())))
    assert isinstance(other, TableEncoder)
    return other


@pytest.mark.parametrize("has_unread", [True, False])
def test_prediction_and_server_have_one_rule_for_dates_that_cannot_be_read(has_unread: bool) -> None:
    """What training had (and noted) is missing in both; what it never had is refused in both, with count and examples."""
    days = [f"2023-{1 + index % 12:02d}-{1 + index % 28:02d}" for index in range(100)]
    encoder = encoder_of([*days, *(["0000-00-00"] * 5 if has_unread else [])])
    reader = TableReader(encoder, ServeLimits(max_rows=100))
    cells = [day if index % 3 else "31 of May" for index, day in enumerate(days[:30])]
    problems: list[Any] = []
    rows = reader.read({"rows": [{"day": cell} for cell in cells]}, problems)
    if has_unread:
        predicted = encoder.transform(pd.DataFrame({"day": cells}))
        np.testing.assert_array_equal(predicted["numeric"], reader.encode(rows)["numeric"])
        assert not problems
        assert reader.notes(rows) == ["Column 'day': 10 cells such as '31 of May' cannot be read and count as missing."]
    else:
        assert len(problems) == 10
        with pytest.raises(DataError, match=r"'day' held dates in training but now has '31 of May' \(10 cells in all\)"):
            encoder.transform(pd.DataFrame({"day": cells}))


@pytest.mark.parametrize("cells", [["1234-05", "1301-11"], ["2019-13", "2019-20"], ["2019-7a", "2019Q5"], ["19-07", "Q3"]])
def test_codes_like_months_and_quarters_are_no_dates(cells: list[str]) -> None:
    assert column(cells * 5).kind == "categorical"


def test_months_have_no_weekday() -> None:
    months = pd.Series(pd.date_range("2018-01-01", periods=40, freq="MS").strftime("%Y-%m"))
    encoder = TableEncoder.fit(pd.DataFrame({"c": months}), ["c"])
    (made,) = encoder.columns
    assert [part for part, _, _ in made.parts] == ["year", "month", "elapsed"]  # type: ignore[union-attr]
