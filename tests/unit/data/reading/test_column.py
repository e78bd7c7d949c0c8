"""A column is read once, its type is decided once, and a row is encoded the same in every file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.reading import cells as cells_module
from graftwork.data.reading import column as column_module
from graftwork.data.reading.column import Column, level_name
from graftwork.data.reading.date_rule import DateRule
from graftwork.data.reading.infer import TargetRequest, infer_task
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.readers import read_table
from graftwork.data.reading.table import as_table
from graftwork.data.suites import load_embedded
from graftwork.serving.limits import ServeLimits
from graftwork.serving.reading import TableReader

ZIPS = ["00501", "00700", "01010", "99501", "A1200"]


def shop(rows: int = 200) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    zips = draw.choice(ZIPS, rows)
    sizes = draw.integers(20, 80, rows) / 2
    frame = pd.DataFrame({"zip": zips, "size": [f"{size:.2f}" for size in sizes], "bought": ["2024-02-03"] * rows})
    frame.loc[::17, "size"] = "?"
    frame["bought"] = [f"2024-{1 + index % 12:02d}-{1 + index % 28:02d}" for index in range(rows)]
    frame["price"] = sizes * 3 + (zips == "A1200") * 20 + draw.normal(size=rows)
    return frame


def restored(encoder: TableEncoder) -> TableEncoder:
    other = encoder_from_state(json.loads(json.dumps(encoder.state(), allow_nan=False)))
    assert isinstance(other, TableEncoder)
    return other


def trained(folder: Path) -> TableEncoder:
    shop().to_csv(folder / "train.csv", index=False)
    suite = open_suite(folder / "train.csv", targets="price")
    encoder = encoder_from_state(json.loads(json.dumps(suite.only_input.encoder)))
    assert isinstance(encoder, TableEncoder)
    return encoder


def test_types_are_those_of_training(tmp_path: Path) -> None:
    encoder = trained(tmp_path)
    assert [column.state()["type"] for column in encoder.columns] == ["categorical", "numeric", "date"]
    rows = ["00501,12.50,2024-02-03", "00700,30.00,2024-03-04", "01010,9,2024-01-01", "99501,22.5,2024-12-28"]
    (tmp_path / "four.csv").write_text("\n".join(["zip,size,bought", *rows]) + "\n")
    (tmp_path / "five.csv").write_text("\n".join(["zip,size,bought", *rows, "A1200,?,"]) + "\n")
    four, five = (encoder.transform(read_table(tmp_path / f"{name}.csv")) for name in ("four", "five"))
    for name in ("numeric", "categorical"):
        np.testing.assert_array_equal(four[name], five[name][:4])
    assert (five["categorical"] > 0).all(), "each of these zips has a level"
    assert len(np.unique(four["categorical"])) == 4


def test_a_server_reads_the_same_cells_alike(tmp_path: Path) -> None:
    encoder = trained(tmp_path)
    reader = TableReader(encoder, ServeLimits(max_rows=10))
    items = [
        {"zip": "00501", "size": "12.50", "bought": "2024-02-03"},
        {"zip": "A1200", "size": "?", "bought": "2024-02-03T10:00:00+02:00"},
        {"zip": "99501", "size": 9, "bought": None},
        {"zip": "01010", "size": "", "bought": ""},
    ]
    problems: list[Any] = []
    rows = reader.read({"rows": items}, problems)
    assert not problems
    served, predicted = reader.encode(rows), encoder.transform(pd.DataFrame(items))
    for name in ("numeric", "categorical"):
        np.testing.assert_array_equal(served[name], predicted[name])
    assert reader.notes(rows) == ["Column 'size': 1 cell such as '?' cannot be read and counts as missing."]
    reader.read({"rows": [{"zip": 1, "size": "large", "bought": "soon"}]}, problems)
    assert [problem.field for problem in problems] == ["rows[0].size", "rows[0].bought"]
    with pytest.raises(DataError, match="'size' held numbers in training but now has 'large'"):
        encoder.transform(pd.DataFrame([{"zip": 1, "size": "large", "bought": "2024-01-01"}]))


CELLS = {
    "number": st.sampled_from(["1", "2.5", "-3", "1e3", "?", "", "NA", "12", "7", "0.125"]),
    "money": st.sampled_from(["$1,200.50", "$3", "$12", "", "-$7.25", "unknown", "99"]),
    "comma": st.sampled_from(["1,5", "22,75", "1.234,5", "3", "", "-"]),
    "word": st.sampled_from(["NA", "None", "a", "b", "", "007", "7", "7.0"]),
    "code": st.sampled_from(["1", "2", "2.0", "3", "", "17"]),
    "date": st.sampled_from(["31.05.2023", "01.02.2023 10:30", "2023-03-04", "", "17.12.2022", "0000-00-00"]),
    "when": st.sampled_from(["2023-03-04", "2023-03-04T10:00:00Z", "2023/05/06 07:08", "", "2024-02-29 01:02:03.250"]),
}


def train_frame() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    columns = {
        "number": [*draw.integers(0, 50, 57).astype(str), "2.5", "?", "NA"],
        "money": [*(f"${value:,.2f}" for value in draw.uniform(0, 5000, 59)), "unknown"],
        "comma": [*(f"{value:.1f}".replace(".", ",") for value in draw.uniform(0, 90, 59)), "1.234,5"],
        "word": [*draw.choice(["NA", "None", "a", "b", "007"], 60)],
        "code": [*draw.integers(1, 6, 60).astype(str)],
        "date": [*(f"{day:02d}.{month:02d}.2023" for day, month in zip(draw.integers(1, 29, 57), draw.integers(1, 13, 57))), "", "0000-00-00", "31.05.2023"],
        "when": [*(f"2023-{month:02d}-11" for month in draw.integers(1, 13, 60))],
    }  # fmt: skip
    return pd.DataFrame(columns)


ENCODER = restored(TableEncoder.fit(as_table(train_frame(), {"code", "word"}), list(CELLS)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(CELLS), min_size=1, max_size=12), st.data())
def test_a_row_does_not_depend_on_the_other_rows(rows: list[dict[str, str]], data: Any) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
    whole, part = ENCODER.transform(pd.DataFrame(rows)), ENCODER.transform(pd.DataFrame([rows[index] for index in chosen]))
    problems: list[Any] = []
    reader = TableReader(ENCODER, ServeLimits(max_rows=100))
    served = reader.encode(reader.read({"rows": rows}, problems))
    assert not problems
    for name in ("numeric", "categorical"):
        np.testing.assert_array_equal(whole[name][chosen], part[name])
        np.testing.assert_array_equal(whole[name], served[name])


@settings(deadline=None)
@given(
    st.datetimes(min_value=pd.Timestamp("1700-01-01"), max_value=pd.Timestamp("2250-01-01")), st.sampled_from(["", "Z", "+05:30"])
)
def test_one_date_and_many_are_read_alike(moment: Any, zone: str) -> None:
    text = moment.isoformat() + zone
    one, _ = DateRule().read([text])
    many, _ = DateRule().read([text] * 20)
    assert one[0] == many[0]


def test_each_column_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[str] = Counter()
    codes, dates, numbers = cells_module.text_codes, DateRule.read, column_module.guess_number_rule

    def counted_codes(values: pd.Series) -> Any:
        reads[f"levels of {values.name}"] += 1
        return codes(values)

    def counted_dates(rule: DateRule, texts: Any) -> Any:
        reads["dates"] += len(texts) > 20
        return dates(rule, texts)

    def counted_guesses(levels: Any, counts: Any, **more: Any) -> Any:
        reads["guesses"] += 1
        return numbers(levels, counts, **more)

    monkeypatch.setattr(column_module, "text_codes", counted_codes)
    monkeypatch.setattr(DateRule, "read", counted_dates)
    monkeypatch.setattr(column_module, "guess_number_rule", counted_guesses)
    frame = shop(400).assign(city=["Rome", "Oslo", "Lima", "Bonn"] * 100, who=[f"p{index // 4}" for index in range(400)])
    frame["bought"] = pd.date_range("2020-01-01", periods=400).strftime("%Y-%m-%d")
    open_suite(frame, targets="price", group="who")
    texts = ("zip", "city", "bought", "size", "who")
    assert {name: reads[f"levels of {name}"] for name in texts} == dict.fromkeys(texts, 1)
    assert reads["dates"] <= 2, "once to decide the type, once for all uses"
    assert reads["guesses"] <= len(texts), "once a column of texts"


def test_names_of_levels() -> None:
    assert [level_name(text, "numbers") for text in ("3", "3.0", "03", "+3", "-0", "0.50", ".5", "1e3", "x")] == [
        *("3", "3", "3", "3", "0", "0.5", "0.5", "1000", "x"),
    ]  # fmt: skip
    assert level_name("1234567890123456789.0", "numbers") == "1234567890123456789"
    assert Column("c", pd.Series(["1", "2", "2.0"])).named("numbers")[1] == ["1", "2"]
    assert Column("c", pd.Series(["01", "1"])).naming == "words", "zeros in front are part of a code"


def test_old_states_still_predict() -> None:
    state = {
        "kind": "table",
        "version": 1,
        "columns": [
            {"type": "numeric", "name": "x", "mean": 2.0, "std": 2.0, "has_missing": True, "knots": []},
            {"type": "categorical", "name": "zip", "levels": ["501", "99501"]},
            {"type": "categorical", "name": "city", "levels": ["Rome", "Oslo"]},
            {"type": "date", "name": "when", "parts": [["year", 2020.0, 2.0]], "has_missing": False},
        ],
    }
    frame = pd.DataFrame(
        {
            "x": ["4", "NA", "", "2.0"],
            "zip": ["00501", "99501.0", "7", ""],
            "city": ["Oslo", "Rome", "NA", ""],
            "when": ["2022-01-01", "never", "", "2020-05-05"],
        }
    )
    inputs = encoder_from_state(state).transform(frame)
    assert inputs["numeric"].tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert inputs["categorical"].tolist() == [[1, 2], [2, 1], [0, 0], [0, 0]]


def test_over_the_files_of_a_suite_a_column_has_one_type(tmp_path: Path) -> None:
    one, two = shop(120), shop(120)
    one = one[one["zip"] != "A1200"]
    one.to_csv(tmp_path / "one.csv", index=False)
    two.to_csv(tmp_path / "two.csv", index=False)
    (tmp_path / "suite.yaml").write_text(
        "datasets:\n"
        + "".join(f"  - {{name: {name}, source: {name}.csv, targets: {{price: regression}}}}\n" for name in ("one", "two"))
    )
    suite = open_suite(tmp_path / "suite.yaml")
    types = {column["name"]: column for column in suite.only_input.encoder["columns"]}
    assert {name: column["type"] for name, column in types.items()} == {"zip": "categorical", "size": "numeric", "bought": "date"}
    assert set(types["zip"]["levels"]) == set(ZIPS), "the zips of the first file are the same levels as in the second"


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("flights", "0415ade2be5389f13c6d4a5fce5f8a0bc2f645e81baa95b88eb74abf7fe8d314"),
        ("diamonds", "d8dfe3fb3cb768d0d721817a4094fd5f955b998dcb82363f71338fb73e1b59fe"),
    ],
)
def test_suites_of_public_tables_stay_what_they_were(name: str, fingerprint: str) -> None:
    assert load_embedded(name).fingerprint() == fingerprint


@given(
    cells=st.lists(
        st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e16, -3.0, float("nan"), float("inf")]) | st.floats(width=32),
        min_size=1,
        max_size=30,
    ),
    dtype=st.sampled_from(["float64", "float32", "Float64"]),
)
def test_machine_numbers_have_the_levels_of_their_texts(cells: list[float], dtype: str) -> None:
    values = pd.Series(cells).astype(dtype)
    column = Column("x", values)
    codes, levels = cells_module.text_codes(values)
    assert column.num_levels == len(levels)
    assert column.texts_of(np.arange(len(cells))) == [None if code < 0 else levels[code] for code in codes.tolist()]
    assert (column.codes == codes).all()
    assert column.levels == levels


def test_a_target_of_many_machine_numbers_is_read_without_naming_them(monkeypatch: pytest.MonkeyPatch) -> None:
    table = as_table(pd.DataFrame({"price": np.arange(1000, dtype=np.float32) / 7}), ())

    def refuse(*_: Any) -> str:
        raise AssertionError("a number was named")

    monkeypatch.setattr(column_module, "as_text", refuse)
    monkeypatch.setattr("graftwork.data.reading.target_cells.level_name", refuse)
    task = infer_task(table, TargetRequest("price", ("price",)))
    assert task.spec.kind == "regression"
    assert "1000 different values" in task.reason
