"""Files that other tools write or that people mend by hand: read, or left out with a note."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from graftwork.core.errors import FileFormatError
from graftwork.data.encoders.text import TextEncoder
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.readers import read_table
from graftwork.data.reading.suite_yaml import validate_suite_yaml
from graftwork.data.reading.surrogates import valid_text, without_lone_surrogates
from graftwork.data.reading.table import as_table


def test_the_unnamed_row_numbers_of_to_csv_are_dropped(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [index * 7 % 13 for index in range(40)], "y": [index / 3 for index in range(40)]})
    frame.to_csv(tmp_path / "t.csv")
    read = read_table(tmp_path / "t.csv")
    assert list(read.columns) == ["x", "y"]
    suite = open_suite(tmp_path / "t.csv", targets="y")
    assert any("The first column of t.csv has no name" in note and "dropped" in note for note in suite.notes)
    assert [column["name"] for column in suite.only_input.encoder["columns"]] == ["x"]
    (tmp_path / "bad.csv").write_text("a,,b\n1,2,3\n")
    with pytest.raises(FileFormatError, match="column 2 has no name"):
        read_table(tmp_path / "bad.csv")
    (tmp_path / "one.csv").write_text('""\n1\n')
    with pytest.raises(FileFormatError, match="no header|no name"):
        read_table(tmp_path / "one.csv")


def test_fields_of_any_length(tmp_path: Path) -> None:
    long = "word " * 28_000
    (tmp_path / "t.csv").write_text(f'body,y\n"{long}",1\nshort,2\n')
    assert len(long) == 140_000
    assert read_table(tmp_path / "t.csv")["body"].tolist() == [long, "short"]
    assert csv.field_size_limit() == 131_072, "the limit of other users of the module stays"
    (tmp_path / "suite.yaml").write_text("datasets:\n  - {source: t.csv, text: body, targets: [y]}\n")
    assert validate_suite_yaml(tmp_path / "suite.yaml") == []


def test_halves_of_characters_are_replaced_and_said(tmp_path: Path) -> None:
    rows = [{"body": f"text {index} of {'good' if index % 3 else 'bad'} things", "y": index % 3} for index in range(60)]
    lines = [json.dumps(row) for row in rows]
    lines[4] = '{"body": "half \\ud83d of a smile", "y": 1}'
    lines[5] = '{"body": "a whole one \\ud83d\\ude00", "y": 2}'
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    read = read_table(tmp_path / "t.jsonl")
    assert read["body"][4] == "half \ufffd of a smile"
    assert read["body"][5] == "a whole one \U0001f600"
    suite = open_suite(tmp_path / "t.jsonl", text="body", targets="y")
    assert any("1 text holds half a character" in note for note in suite.notes)
    frame = pd.DataFrame(rows)
    frame["body"] = frame["body"].astype(object)
    frame.loc[3, "body"] = "x\udc00y"
    frame["word"] = pd.Series(["a", "b\ud800"] * 30, dtype=object)
    assert open_suite(frame, text="body", targets="y").inputs["tokens"].shape[0] == 60
    assert as_table(frame)["word"].levels == ["a", "b\ufffd"]
    assert open_suite(frame, targets="y", ignore="body").only_input.encoder["columns"][0]["levels"] == ["a", "b\ufffd"]


def test_valid_texts_stay() -> None:
    assert valid_text("naïve \U0001f600") == "naïve \U0001f600"
    assert without_lone_surrogates({"a\ud800": ["b", {"c": "\udfff"}, 3, None]}) == (
        {"a\ufffd": ["b", {"c": "\ufffd"}, 3, None]},
        2,
    )


def test_an_endless_word_is_cut_into_pieces() -> None:
    words = ["plain words here", "and some more words", "a" * 5000 + " tail", "x" * 1000]
    encoder = TextEncoder.fit(words)
    inputs = encoder.transform(["a" * 2500, "a" * 1000, "plain words"])["tokens"]
    pieces = encoder.transform([f"{'a' * 1000} {'a' * 1000} {'a' * 500}", "a" * 1000, "plain words"])["tokens"]
    assert inputs.tolist() == pieces.tolist(), "a word of 2500 letters is read as words of at most 1000"


def test_endless_words_take_linear_time() -> None:
    """Counted in letters of the longest word that the tokenizer gets, which is what its time depends on."""
    from graftwork.data.encoders import text as module

    word = "qwertzuiop" * 20_000
    shortened = module._with_short_words(word)
    assert max(map(len, shortened.split())) == 1000
    assert shortened.replace(" ", "") == word
