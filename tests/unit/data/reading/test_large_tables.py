"""Large tables are read column by column: the suite is that of the whole table, bit for bit."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftwork.core.errors import DataError, FileFormatError
from graftwork.data.reading import large_tables, streamed, target_cells
from graftwork.data.reading.column import Column
from graftwork.data.reading.ingest import open_suite
from graftwork.data.reading.large_tables import KeptArrays, LargeColumns
from graftwork.data.reading.readers import open_table, read_table
from graftwork.data.reading.streamed import StreamedTable
from graftwork.data.reading.target_cells import TargetCells
from graftwork.data.row_names import RowNames
from graftwork.data.store import load_suite, save_suite
from graftwork.data.suite import Suite

ROWS = 2400


def table() -> pd.DataFrame:
    """Return columns of all sorts; what decides how some are read comes late."""
    random = np.random.default_rng(0)
    number = random.normal(size=ROWS)
    words = random.choice(["red", "green", "blue"], size=ROWS).astype(object)
    words[ROWS - 60 :] = random.choice(["late", "red"], size=60)
    words[5] = None
    mixed = np.array([f"{value:.2f}" for value in number], dtype=object)
    mixed[900::7] = "n7x"  # numbers until row 900, then words with digits: no numbers
    tolerant = np.array([f"{value:.3f}" for value in number[::-1]], dtype=object)
    tolerant[ROWS - 3] = "broken"
    days = pd.Timestamp("2021-01-01") + pd.to_timedelta(random.integers(0, 900, size=ROWS), unit="D")
    frame = pd.DataFrame(
        {
            "size": np.where(random.random(ROWS) < 0.1, np.nan, number),
            "visits": pd.array(np.where(random.random(ROWS) < 0.1, None, random.integers(0, 50, size=ROWS)), dtype="Int64"),
            "colour": words,
            "band": pd.Categorical(np.where(np.arange(ROWS) < 2000, "low", "high"), categories=["high", "mid", "low"]),
            "mixed": mixed,
            "tolerant": tolerant,
            "seen": days.astype(str),
            "member": random.random(ROWS) < 0.5,
            "same": "x",
            "row id": [f"r{row:05d}" for row in range(ROWS)],
            "heavy, tail": np.exp(3 * random.normal(size=ROWS)),
        }
    )
    frame["price"] = 2 * number + random.normal(size=ROWS)
    frame["kind"] = np.where(number + random.normal(size=ROWS) > 0, "yes", "no").astype(object)
    frame.loc[::11, "price"] = np.nan
    frame.loc[ROWS - 4 :, "kind"] = None
    # Copies of rows, which are looked for.
    return pd.concat([frame, frame.iloc[:20]], ignore_index=True)


def written(folder: Path, form: str) -> Path:
    """Write the table; ``parquet:N`` has row groups of N rows."""
    kind, _, rows = form.partition(":")
    path = folder / f"table.{'csv' if kind == 'semicolons' else kind}"
    frame = table()
    if kind == "parquet":
        frame["when"] = pd.to_datetime(frame["seen"]).dt.tz_localize("Europe/Berlin")
        frame["part.of"], frame["part"] = frame["size"] * 2, frame["size"].astype("float32")
        frame.to_parquet(path, index=False, row_group_size=int(rows))
    elif kind == "semicolons":
        frame.to_csv(path, sep=";", decimal=",")  # row numbers in front, as pandas writes them by default
    else:
        frame["said"] = np.where(np.arange(len(frame)) % 5 == 0, 'one "two"\nthree, four', "plain")
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


def assert_same(found: Suite, expected: Suite) -> None:
    assert found.fingerprint() == expected.fingerprint()
    for name in ("tasks", "notes", "input_specs", "sources", "domains", "credits"):
        assert getattr(found, name) == getattr(expected, name), name
    for part in ("inputs", "targets", "splits"):
        assert list(getattr(found, part)) == list(getattr(expected, part))
        for key, array in getattr(found, part).items():
            assert array.flags.writeable, f"{part}/{key} lies in a temporary file"
    assert (found.groups is None) == (expected.groups is None)
    if found.groups is not None and expected.groups is not None:
        np.testing.assert_array_equal(found.groups, expected.groups)
    assert list(found.raw["labels"]) == list(expected.raw["labels"])
    others = [{key: value for key, value in suite.raw.items() if key not in ("labels", "frame")} for suite in (found, expected)]
    assert json.dumps(others[0], default=list) == json.dumps(others[1], default=list)


def opened(monkeypatch: pytest.MonkeyPatch, rows: int, source: Any, **options: Any) -> Suite:
    monkeypatch.setattr(large_tables, "LARGE_ROWS", rows)
    # Several blocks, so that rows cross their borders.
    monkeypatch.setattr(streamed, "_BLOCK", 20_000)
    return open_suite(source, targets="price,kind", **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"missing": ["red", "n7x"], "categories": "visits"},
        {"group": "visits"},
        {"time": "seen"},
        {"histories": {"mixed": "colour"}, "ignore": "tolerant"},
    ],
    ids=["plain", "missing", "group", "time", "history"],
)
@pytest.mark.parametrize("form", ["csv", "tsv", "semicolons", "parquet:17", "parquet:1000", "parquet:100000"])
def test_the_suite_is_that_of_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, options: dict[str, Any]
) -> None:
    path = written(tmp_path, form)
    expected = opened(monkeypatch, 10**9, path, **options)
    found = opened(monkeypatch, 100, path, **options)
    with ExitStack() as scratch:
        assert isinstance(open_table(path, scratch), StreamedTable), "read whole: nothing is shown"
    assert_same(found, expected)
    assert len(expected.notes) > 5


def test_a_frame_in_memory_gives_the_same_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table()
    frame["vector"] = [[value, 1.0 + value] for value in frame["heavy, tail"]]
    frame["record"] = [{"lat": value} for value in frame["heavy, tail"]]
    assert_same(opened(monkeypatch, 100, frame), opened(monkeypatch, 10**9, frame))


def test_cells_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_tables, "LARGE_ROWS", 100)
    for form in ("csv", "semicolons", "parquet:17"):
        path = written(tmp_path, form)
        whole = read_table(path)
        with ExitStack() as scratch:
            found = open_table(path, scratch)
            assert list(found.columns) == list(whole.columns)
            assert found.attrs == whole.attrs
            for name in whole.columns:
                pd.testing.assert_series_equal(found[name], whole[name], check_names=False)


def test_a_column_is_read_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = written(tmp_path, "csv"), Counter[str]()
    plain = StreamedTable.__getitem__

    def counted(one: StreamedTable, name: str) -> Any:
        reads[name] += 1
        return plain(one, name)

    monkeypatch.setattr(StreamedTable, "__getitem__", counted)
    opened(monkeypatch, 100, path)
    assert reads
    features = {name: count for name, count in reads.items() if name not in ("price", "kind")}
    assert max(features.values()) == 1, "every feature is read once, and then from what was kept"
    assert max(reads.values()) <= 3


@pytest.mark.parametrize("name", [*table().columns, "flag"])
def test_what_a_kept_column_says_is_what_the_column_says(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = table().assign(flag=lambda one: one["kind"] == "yes")
    monkeypatch.setattr(large_tables, "_MOST_LEVELS", 1000)  # some columns have more, some fewer
    expected, room = Column(name, frame[name]), LargeColumns(KeptArrays(tmp_path))
    found, other = room.column(name, lambda: frame[name]), room.column("other", lambda: frame["price"])
    rows = np.array([3, 1, len(frame) - 1, 5])
    for one, same in ((found, expected), (found.take(rows), expected.take(rows))):
        assert other.kind == "numeric"
        assert len(one) == len(same)
        for what in ("kind", "machine_kind", "is_category", "is_nested", "num_levels", "naming", "number_rule", "date_rule"):
            assert getattr(one, what) == getattr(same, what), what
        for what in ("codes", "counts", "known"):
            np.testing.assert_array_equal(getattr(one, what), getattr(same, what), what)
            assert getattr(one, what).dtype == getattr(same, what).dtype
        assert one.levels == same.levels
        assert one.texts_of(np.array([0, 3, 2])) == same.texts_of(np.array([0, 3, 2]))
        np.testing.assert_array_equal(one.numbers().values, same.numbers().values)
        np.testing.assert_array_equal(one.dates().values, same.dates().values)
        assert (one.numbers().unread, one.numbers().blanks) == (same.numbers().unread, same.numbers().blanks)
        assert one.named("words")[1] == same.named("words")[1]
        pd.testing.assert_series_equal(one.cells, same.cells)
    assert found.notes() == expected.notes()


def test_what_cannot_be_read_by_columns_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_tables, "LARGE_ROWS", 3)
    frame = pd.DataFrame({"a": [1, 2, 3, 4], "b": ["x", "y", "x", "z"]})
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"a": [[1, 2]] * 4, "b": [{"c": 1}] * 4}), nested)
    indexed, named = tmp_path / "indexed.parquet", tmp_path / "named.parquet"
    frame.set_index("a").to_parquet(indexed)
    frame.rename_axis("number").to_parquet(named)
    long = tmp_path / "long.csv"
    long.write_text("a,b\n1,2\n3," + "4" * 100_000 + "\n5,6\n7,8\n")
    monkeypatch.setattr(streamed, "_BLOCK", 10_000)
    with ExitStack() as scratch:
        for path in (nested, indexed, named, long):
            found = open_table(path, scratch)
            assert isinstance(found, pd.DataFrame), path.name
            pd.testing.assert_frame_equal(found, read_table(path))
    assert len(read_table(long)["b"][1]) == 100_000


def test_names_are_checked_and_damage_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_tables, "LARGE_ROWS", 3)
    doubled = tmp_path / "doubled.parquet"
    pq.write_table(pa.table({"a": [1] * 4, "a ": [2] * 4}), doubled)
    with pytest.raises(FileFormatError, match="duplicated column names"):
        open_suite(doubled, targets="a")
    path = written(tmp_path, "parquet:1000")
    with pytest.raises(DataError, match="there is no column 'prise'|'prise'"):
        open_suite(path, targets="prise")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="not a whole Parquet file"):
        open_suite(path, targets="price,kind")


def test_on_a_full_disk_readings_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    frame = table()
    expected = opened(monkeypatch, 10**9, frame)
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        array = np.arange(5)
        np.testing.assert_array_equal(KeptArrays(tmp_path).keep(array)(), array)
        assert not list(tmp_path.iterdir())
        assert_same(opened(monkeypatch, 100, frame), expected)


def test_names_of_rows_are_stored_as_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = opened(monkeypatch, 100, table())
    assert isinstance(suite.raw["labels"], RowNames)
    again = load_suite(save_suite(suite, tmp_path / "suite"))
    assert list(again.raw["labels"]) == [f"row {row + 1}" for row in range(ROWS + 20)]
    assert "row 7" not in (tmp_path / "suite" / "suite.json").read_text()


@pytest.mark.parametrize("odd", [[], ["", "?"], ["0", "-0"], ["1.50", "1.5"], ["1e3", "1000"]])
def test_many_numbers_of_a_target_get_the_same_numbers_and_names(monkeypatch: pytest.MonkeyPatch, odd: list[str]) -> None:
    cells = [f"{value:.6f}" for value in np.random.default_rng(0).normal(size=300)]
    column = Column("y", pd.Series([*cells[:150], *odd, *cells[150:], *cells[:7]], dtype=object))
    found = []
    for many in (10, 10**9):
        monkeypatch.setattr(target_cells, "_MANY_NUMBERS", many)
        found.append(TargetCells.of(column))
    np.testing.assert_array_equal(found[0].codes, found[1].codes)
    assert list(found[0].levels) == list(found[1].levels)
    assert len(found[0].levels) == len(found[1].levels)
