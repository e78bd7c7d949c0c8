"""Words and numbers that the user says mean a missing cell: the same in training, prediction and serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork import open_suite
from graftwork.data.encoders import encoder_from_state
from graftwork.data.reading.missing_words import is_missing_word, without_words
from graftwork.serving.limits import ServeLimits
from graftwork.serving.reading import TableReader, TextReader

N = 120


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(50, 9, N).round(1), "n": rng.integers(0, 90, N), "job": rng.choice(["cook", "smith"], N)}
    )
    frame["written"] = [f"${value:,.2f}" for value in rng.uniform(900, 9000, N)]
    frame["y"] = frame["x"] + rng.normal(size=N)
    return frame


def with_words(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.astype({"n": float}).copy()
    frame.loc[3:9, "x"] = -999.0
    frame.loc[5:9, "n"] = -999
    frame.loc[4:8, "job"] = "no answer"
    frame.loc[6:7, "written"] = "no answer"
    frame.loc[0:2, "y"] = -999.0
    return frame


WORDS = ["no answer", "-999"]


@pytest.mark.parametrize("as_file", [False, True])
def test_words_are_missing_cells_in_training(tmp_path: Path, as_file: bool) -> None:
    plain = table().astype({"n": float})
    lost = with_words(plain)
    blank = lost.mask(lost.isin([-999.0, "no answer"]))
    if as_file:
        lost.to_csv(tmp_path / "t.csv", index=False)
        blank.to_csv(tmp_path / "b.csv", index=False)
        suites = [open_suite(tmp_path / "t.csv", targets="y", missing=WORDS), open_suite(tmp_path / "b.csv", targets="y")]
    else:
        suites = [open_suite(lost, targets="y", missing=WORDS), open_suite(blank, targets="y")]
    for name in ("numeric", "categorical"):
        assert np.array_equal(suites[0].inputs[name], suites[1].inputs[name])
    assert np.array_equal(suites[0].targets["y"], suites[1].targets["y"], equal_nan=True)
    assert "-999" not in " ".join(suites[0].notes)


def test_the_words_are_kept_with_the_encoder() -> None:
    suite = open_suite(with_words(table()), targets="y", missing=WORDS)
    encoder = encoder_from_state(suite.input_specs["table"].encoder)
    rows = pd.DataFrame(
        {"x": [-999, 51.0], "n": ["-999.0", "4"], "job": ["no answer", "cook"], "written": ["no answer", "$1,000.00"]}
    )
    empty = pd.DataFrame({"x": [np.nan, 51.0], "n": [None, "4"], "job": [None, "cook"], "written": [None, "$1,000.00"]})
    for name, array in encoder.transform(empty).items():
        assert np.array_equal(encoder.transform(rows)[name], array)
    reader = TableReader(encoder, ServeLimits())
    problems: list[object] = []
    request = [
        {"x": -999, "n": "-999", "job": "no answer", "written": "no answer"},
        {"x": None, "n": None, "job": None, "written": None},
    ]
    first, second = (reader.encode([reader.read_one("rows", "rows[0]", row, problems)]) for row in request)  # type: ignore[arg-type]
    assert not problems
    for name in first:
        assert np.array_equal(first[name], second[name])


def test_words_in_texts() -> None:
    frame = pd.DataFrame({"body": ["a cat sat", "dogs bark loudly", "no answer"] * 20, "y": [0, 1, 2] * 20})
    suite = open_suite(frame, targets="y", text="body", missing="no answer")
    assert suite.raw["text"][2] == ""
    encoder = encoder_from_state(suite.input_specs["text"].encoder)
    found = encoder.transform(frame.iloc[:3])["tokens"]
    assert not found[2].any()
    reader = TextReader(encoder, ServeLimits())
    assert reader.read_one("rows", "rows[0]", {"body": "no answer"}, []) == ""


def test_words_in_a_suite_file(tmp_path: Path) -> None:
    with_words(table()).to_csv(tmp_path / "t.csv", index=False)
    text = 'missing: ["no answer", -999]\ndatasets:\n  - source: t.csv\n    targets: [y]\n'
    (tmp_path / "suite.yaml").write_text(text, encoding="utf-8")
    suite = open_suite(tmp_path / "suite.yaml")
    assert np.isnan(suite.targets["y"][:3]).all()
    assert suite.input_specs["table"].encoder["columns"][0]["rule"]["missing"] == ["no answer", "-999"]


@given(st.lists(st.one_of(st.none(), st.sampled_from(["?", " ? ", "a", "-999", "-999.0", "7"])), min_size=1))
def test_cells_are_masked_and_nothing_else(cells: list[str | None]) -> None:
    frame = pd.DataFrame({"a": pd.Series(cells, dtype=object), "b": [[1]] * len(cells)})
    found = without_words(frame, ["?", "-999"])["a"].tolist()
    for cell, now in zip(cells, found, strict=True):
        lost = cell is None or cell.strip() in ("?", "-999", "-999.0")
        assert pd.isna(now) if lost else now == cell


def test_large_numbers_keep_their_digits() -> None:
    frame = pd.DataFrame({"a": [2**60 + 1, -999, 5]})
    assert without_words(frame, ["-999"])["a"].tolist()[0] == 2**60 + 1
    assert is_missing_word("-999.00", ["-999"])
    assert not is_missing_word("x", ["-999"])
