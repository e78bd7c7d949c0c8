"""Columns of short texts: their words become flags, free texts become the text."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.data.encoders.table import TableEncoder
from graftwork.data.encoders.words import WordsColumn, most_words
from graftwork.data.reading.column import Column
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.phrases import holds_phrases, holds_sentences, shared_words, words_of

BRANDS, BODIES = ("ford", "opel", "fiat"), ("wagon", "coupe", "van", "sedan")


def cars(rows: int = 240, *, repeat: int = 1) -> pd.DataFrame:
    """Return cars whose names differ (or repeat), with a price that goes by words of the name."""
    generator = np.random.default_rng(0)
    numbers = np.arange(rows) // repeat
    brand = generator.integers(3, size=rows // repeat)[numbers]
    body = generator.integers(4, size=rows // repeat)[numbers]
    return pd.DataFrame(
        {
            "name": [f"{BRANDS[a].title()} {BODIES[b]} x{number}" for a, b, number in zip(brand, body, numbers, strict=True)],
            "age": generator.normal(size=rows),
            "price": 10.0 * brand + 3.0 * body + generator.normal(size=rows),
            "sold": generator.integers(2, size=rows),
        }
    )


def column_of(cells: list[str | None]) -> Column:
    return Column("name", pd.Series(cells, dtype=object))


def test_words_are_split_at_everything_else() -> None:
    assert words_of("Ford F-250 (SW), 1970; ford_torino") == {"ford", "f", "sw", "torino"}
    assert words_of("ÉCOLE Straße 12") == {"école", "straße"}
    assert words_of("") == set()


def test_only_words_that_can_be_learned_from_are_kept() -> None:
    levels = ["red car", "blue car", "red big bus", "old big bus", "one two"]
    # `car` and `red` are in two levels; `big` and `bus` are always together; `one`, `two`, `old` and `blue` are in one level.
    assert shared_words(levels, [4, 4, 4, 4, 4], most=10) == ("big", "car", "red")
    assert shared_words(levels, [4, 4, 4, 4, 4], most=1) == ("big",)
    assert shared_words(levels, [2, 1, 1, 2, 9], most=10) == (), "fewer than four rows each"
    assert shared_words(["a b", "a c", "a d"], [5, 5, 5], most=10) == (), "a word of all rows tells nothing"
    assert shared_words(["a b", "a c", "d e"], [5, 5, 0], most=10) == (), "levels without rows do not count"


def test_which_columns_hold_phrases() -> None:
    assert holds_phrases(column_of(cars()["name"].tolist()))
    assert not holds_phrases(column_of([f"k{number}" for number in range(100)])), "single words"
    assert not holds_phrases(column_of([f"a b{number % 20}" for number in range(100)])), "few levels"
    assert not holds_phrases(column_of([f"{number}-{number + 1}" for number in range(100)])), "numbers are no words"
    said = Column("name", cars()["name"], is_category=True)
    assert not holds_phrases(said), "the user called it a category"


def test_names_that_all_differ_are_learned_from_by_their_words() -> None:
    suite = open_suite(cars(), targets="price,sold")
    encoder = TableEncoder.from_state(suite.input_specs["table"].encoder)
    assert encoder.names == ("name", "age")
    assert [type(column).__name__ for column in encoder.columns] == ["WordsColumn", "NumericColumn"]
    # Seven words, in order of frequency; numbers of cars are in one row each.
    assert set(encoder.columns[0].words) == {*BRANDS, *BODIES}  # type: ignore[union-attr]
    assert encoder.numeric_names()[-1] == "age"
    assert "name (ford)" in encoder.numeric_names()
    assert encoder.places()["name"] == {"numeric": list(range(7))}
    flags = suite.inputs["numeric"][:, encoder.numeric_names().index("name (ford)")]
    assert np.array_equal(flags, cars()["name"].str.contains("Ford").to_numpy().astype(np.float32))
    assert any("only their frequent words are learned from: name" in note for note in suite.notes)
    assert suite.raw["columns"]["name"]["use"] == "7 frequent words, a flag each"


def test_names_that_repeat_are_levels_and_words() -> None:
    frame = cars(repeat=4)
    suite = open_suite(frame, targets="price,sold", group="none")
    encoder = TableEncoder.from_state(suite.input_specs["table"].encoder)
    assert [type(column).__name__ for column in encoder.columns] == ["CategoricalColumn", "WordsColumn", "NumericColumn"]
    assert encoder.places()["name"] == {"categorical": [0], "numeric": list(range(7))}
    use = suite.raw["columns"]["name"]["use"]
    assert use.startswith("category of ")
    assert use.endswith(" levels, and 7 frequent words, a flag each")
    again = encoder.transform(frame)
    assert all(np.array_equal(again[name], suite.inputs[name]) for name in again)


def test_words_are_those_of_training_rows() -> None:
    frame = cars()
    train = np.arange(120)
    frame.loc[200:, "name"] = [f"Tata truck y{number}" for number in range(40)]
    encoder = TableEncoder.fit(frame, ["name", "age"], rows=train)
    assert not any("tata" in name for name in encoder.numeric_names())
    encoded = encoder.transform(frame)["numeric"]
    assert not encoded[200:, :7].any(), "words that training does not have are none"
    assert encoded[:, :7].any(axis=1)[:200].all()


def test_missing_cells_and_numbers_have_no_words() -> None:
    column = WordsColumn("name", ("ford", "van"))
    flags = column.encode(pd.Series(["a Ford VAN", None, 3, "vans", float("nan")], dtype=object))
    assert flags.tolist() == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert WordsColumn.from_state(column.state()) == column
    assert WordsColumn("name", ()).encode(pd.Series(["a"])).shape == (0, 1)


@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), min_size=1, max_size=40), st.integers(1, 5))
def test_flags_of_any_texts(cells: list[str | None], most: int) -> None:
    series = pd.Series(cells, dtype=object)
    column = WordsColumn.fit("text", series, most=most)
    flags = column.encode(series)
    assert flags.shape == (len(column.words), len(cells))
    assert len(column.words) <= most
    rows = flags.sum(axis=1)
    assert ((rows >= 4) & (rows <= len(cells) - 4)).all()
    one_by_one = np.concatenate([column.encode(series[place : place + 1]) for place in range(len(cells))], axis=1)
    assert np.array_equal(flags, one_by_one), "a row does not depend on the others"


def test_large_tables_have_fewer_words() -> None:
    assert most_words(1_000) == 100
    assert most_words(1_000_000) == 20
    assert most_words(0) == 100


def reviews(rows: int = 120) -> pd.DataFrame:
    good = np.arange(rows) % 2
    words = np.where(good, "a really fine thing that I like", "a very poor thing that nobody wants")
    return pd.DataFrame({"review": [f"{text} {number}" for number, text in enumerate(words)], "size": good * 2.0, "good": good})


def test_free_text_is_learned_from_as_text() -> None:
    assert holds_sentences(column_of(reviews()["review"].tolist()))
    suite = open_suite(reviews(), targets="good,size")
    assert set(suite.input_specs) == {"text"}
    assert "Column 'review' holds free text and is learned from as text. Leave a column out with --ignore." in suite.notes
    assert suite.raw["columns"]["review"]["use"] == "text"
    beside = open_suite(reviews().assign(weight=np.random.default_rng(0).normal(size=120)), targets="good,size")
    assert set(beside.input_specs) == {"table", "text"}


def test_free_text_that_is_ignored_is_left_out() -> None:
    frame = reviews().assign(weight=np.random.default_rng(0).normal(size=120))
    suite = open_suite(frame, targets="good,size", ignore="review")
    assert set(suite.input_specs) == {"table"}
    assert not any("free text" in note for note in suite.notes)


@pytest.mark.parametrize(
    "cells",
    [
        [f"https://example.org/pictures/of/things/{number:04d}.png" for number in range(120)],
        [f"{number:08x}-1f2e-4a5b-8c9d-{number:012x}" for number in range(120)],
    ],
)
def test_links_and_keys_are_no_text(cells: list[str]) -> None:
    frame = reviews().assign(key=cells, weight=np.random.default_rng(0).normal(size=120)).drop(columns="review")
    suite = open_suite(frame, targets="good,size")
    assert set(suite.input_specs) == {"table"}
    assert TableEncoder.from_state(suite.input_specs["table"].encoder).names == ("weight",)
