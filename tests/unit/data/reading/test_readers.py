from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftwork.core.errors import FileFormatError
from graftwork.data.names import check_names, nearest_name, short_list
from graftwork.data.reading.header import guess_delimiter, read_header
from graftwork.data.reading.readers import check_columns, read_table
from graftwork.data.reading.sniff import describe_content
from graftwork.data.reading.table import as_table

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "zé"], "c": [0.5, float("nan"), -1.0]})


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "pq", "jsonl", "ndjson", "json"])
def test_all_formats_read_the_same_table(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table.{ending}"
    if ending in ("csv", "tsv"):
        FRAME.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    elif ending in ("parquet", "pq"):
        FRAME.to_parquet(path, index=False)
    else:
        FRAME.to_json(path, orient="records", lines=ending != "json", force_ascii=False)
    frame = read_table(path)
    assert list(frame.columns) == ["a", "b", "c"]
    table = as_table(frame)
    assert table["a"].numbers().values.tolist() == [1, 2, 3]
    assert table["b"].known.tolist() == [True, False, True]
    assert table["b"].levels[-1] == "zé"
    assert table["c"].numbers().values[0] == 0.5
    assert [table[name].kind for name in frame] == ["numeric", "categorical", "numeric"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_and_byte_order_mark(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + delimiter.join(["a", '"b, c"', "d"]).encode() + b"\n" + delimiter.join(["1", "2", "3"]).encode() + b"\n"
    )
    frame = read_table(path)
    assert list(frame.columns) == ["a", "b, c", "d"]
    assert read_header(path) == ["a", "b, c", "d"]
    assert frame.iloc[0].tolist() == ["1", "2", "3"], "cells are texts as they stand"


def test_lists_survive_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"tags": ["a", "b"], "n": 1}\n\n{"tags": [], "n": 2}\n')
    assert read_table(path)["tags"].tolist() == [["a", "b"], []]


def test_named_parquet_index_becomes_a_column(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    FRAME.set_index("a").to_parquet(path)
    assert set(read_table(path).columns) == {"a", "b", "c"}


def test_quoted_line_breaks_are_not_ragged(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"one\ntwo",3\n')
    assert read_table(path)["a"].tolist() == ["one\ntwo"]


class Bomb:
    """Raises if it is ever unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return faulty files and what the message about each must say."""

    def put(name: str, content: bytes | str) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    whole = folder / "whole.parquet"
    FRAME.to_parquet(whole)
    archive = folder / "archive.csv"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("a.csv", "a,b\n1,2\n")
    return {
        "missing": (folder / "whole.parqet", r"does not exist\. Did you mean 'whole.parquet'\?.*\.csv"),
        "folder": (folder, "is a folder.*Give the path of a table"),
        "zero bytes": (put("zero.csv", ""), "zero bytes.*header and rows.*Export it again"),
        "blank": (put("blank.csv", "\n\n"), "no header"),
        "no rows": (put("norows.csv", "a,b\n"), r"has a header \(a, b\) but no rows.*Add rows"),
        "pickle": (put("data.csv", pickle.dumps([Bomb()])), "is a Python pickle.*never opens.*to_parquet"),
        "old pickle name": (put("data.pkl", pickle.dumps([Bomb()])), "is a Python pickle"),
        "archive": (archive, r"called \.csv but its content is a zip archive.*Unpack or export"),
        "unknown ending": (put("data.xlsx", "a,b\n1,2\n"), r"ending '\.xlsx'.*none of \.csv.*rename"),
        "text as parquet": (put("text.parquet", "a,b\n1,2\n"), r"called \.parquet but its content is text.*Rename"),
        "parquet as csv": (put("binary.csv", whole.read_bytes()), r"called \.csv but its content is a Parquet file"),
        "truncated parquet": (put("cut.parquet", whole.read_bytes()[:-30]), "not a whole Parquet file.*truncated.*restore"),
        "latin-1": (
            put("latin.csv", "a,b\nok,1\ncaf\xe9,2\n".encode("latin-1")),
            r"not UTF-8.*byte 0xe9 at offset 12 \(line 3\).*WINDOWS-1252.*iconv -f WINDOWS-1252",
        ),
        "utf-16": (put("wide.csv", "a,b\n1,2\n".encode("utf-16")), "offset 0.*UTF-16.*iconv -f UTF-16"),
        "utf-16 without mark": (put("wide2.csv", "a,b\n1,2\n3,4\n".encode("utf-16-le")), "zero byte.*UTF-16"),
        "doubled columns": (put("doubled.csv", "a,b,a\n1,2,3\n"), r"duplicated column names: 'a' in columns \[1, 3\].*Rename"),
        "unnamed column": (put("unnamed.csv", "a,,c\n1,2,3\n"), "column 2 has no name.*Name it"),
        "ragged": (put("ragged.csv", "a,b\n1,2\n3\n4,5,6\n"), "2 rows do not have 2 fields.*line 3 has 1, line 4 has 3.*repair"),
        "open quote": (put("quote.csv", 'a,b\n1,"2\n'), "line .*Quoted fields must be closed.*cut off"),
        "bad json line": (put("cut.jsonl", '{"a": 1}\n{"a": 2'), r"line 2 is not one JSON object.*begins.*cut off"),
        "doubled key": (put("key.jsonl", '{"a": 1, "a": 2}\n'), "line 1.*duplicated key 'a'"),
        "line of numbers": (put("list.jsonl", "[1, 2]\n"), "line 1: each line must be a JSON object"),
        "blank json lines": (put("blank.jsonl", "\n \n"), "only blank lines"),
        "not a list": (put("object.json", '{"a": 1}'), "list of objects.*got dict.*jsonl"),
        "lines in json": (put("lines.json", '{"a": 1}\n{"a": 2}\n'), r"not valid JSON.*must end in \.jsonl"),
    }


BAD_NAMES = (
    "missing",
    "folder",
    "zero bytes",
    "blank",
    "no rows",
    "pickle",
    "old pickle name",
    "archive",
    "unknown ending",
    "text as parquet",
    "parquet as csv",
    "truncated parquet",
    "latin-1",
    "utf-16",
    "utf-16 without mark",
    "doubled columns",
    "unnamed column",
    "ragged",
    "open quote",
    "bad json line",
    "doubled key",
    "line of numbers",
    "blank json lines",
    "not a list",
    "lines in json",
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_faulty_file_is_refused_with_cause_and_remedy(tmp_path: Path, name: str) -> None:
    path, pattern = bad_files(tmp_path)[name]
    with pytest.raises(FileFormatError, match=f"(?s){pattern}") as caught:
        read_table(path)
    assert path.name in str(caught.value)


def test_all_faulty_files_are_tested(tmp_path: Path) -> None:
    assert tuple(bad_files(tmp_path)) == BAD_NAMES


def test_position_of_a_bad_byte_beyond_the_first_chunk(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "é,1\n" * 300_000  # more than one chunk, with two-byte letters across its border
    path.write_bytes(b"a,b\nx" + rows.encode() + b"\xff,1\n")
    with pytest.raises(FileFormatError, match=rf"offset {5 + len(rows.encode())} \(line 300002\)"):
        read_table(path)


def test_duplicated_columns_of_a_frame_are_named() -> None:
    with pytest.raises(FileFormatError, match="'x' in columns \\[1, 2\\]"):
        check_columns(["x", "x", "y"], "the table")


def test_pictures_and_arrays_are_recognised(tmp_path: Path) -> None:
    for head, words in ((b"\x89PNG\r\n\x1a\n0000", "PNG"), (b"\x93NUMPY\x01\x00", "NumPy"), (b"a,b\n", None)):
        path = tmp_path / "f"
        path.write_bytes(head)
        found = describe_content(path)
        assert (found is None) if words is None else (found is not None and words in found)


def test_names() -> None:
    assert nearest_name("Pirce", ["price", "cut"]) == "price"
    assert nearest_name("zzz", ["price"]) is None
    assert short_list(["a"] * 3, 2) == "a, a and 1 more"
    assert guess_delimiter("a") == ","
    with pytest.raises(
        ValueError, match=r"--targets: 'pirce' is not a column of t\. Did you mean 'price'\? The columns are: price, cut\."
    ):
        check_names(["pirce", "cut"], ["price", "cut"], what="--targets", where="t")


def test_json_column_order_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"z": 1, "a": 2}, {"z": 3, "b": 4}]))
    assert list(read_table(path).columns) == ["z", "a", "b"]


@pytest.mark.parametrize("blank", ["\n", "\r\n\r\n"])
def test_the_delimiter_is_that_of_the_first_line_that_is_not_blank(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"{blank}a;b{blank[:2]}1,5;2\n".encode())
    frame = read_table(path)
    assert frame.to_dict("list") == {"a": ["1,5"], "b": ["2"]}
    assert frame.attrs["decimal"] == ","
    assert read_header(path) == ["a", "b"]


@pytest.mark.parametrize(("ending", "where"), [("json", "is not valid JSON"), ("jsonl", "line 1 is not one JSON object")])
def test_endless_brackets_are_a_fault_of_the_file(tmp_path: Path, ending: str, where: str) -> None:
    path = tmp_path / f"t.{ending}"
    path.write_text('[{"a": ' + "[" * 100_000 if ending == "json" else '{"a": ' + "[" * 100_000)
    with pytest.raises(FileFormatError, match=rf"{where}: brackets are nested too deeply"):
        read_table(path)


def test_parquet_with_texts_that_are_none_is_refused(tmp_path: Path) -> None:
    texts = ["north", "south", "west"]
    sound = pa.array(texts)
    damaged = pa.Array.from_buffers(pa.string(), len(texts), [None, sound.buffers()[1], pa.py_buffer(b"n\xffrthsouthwest")])
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table({"place": damaged, "a": [1, 2, 3]}), file)
    with pytest.raises(FileFormatError, match="table.parquet is not a whole Parquet file .*Invalid UTF8"):
        read_table(file)


def test_a_column_that_pandas_would_call_like_another_is_named(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    pd.DataFrame({"c": [1, 2], "d": [3, 4]}).to_parquet(file)
    table = pq.read_table(file)
    described = table.schema.metadata[b"pandas"].replace(b'"name": "d"', b'"name": "c"')
    pq.write_table(table.replace_schema_metadata({b"pandas": described}), file)
    with pytest.raises(FileFormatError, match=r"duplicated column names: 'c' in columns \[1, 2\]"):
        read_table(file)


def test_parquet_with_a_damaged_description_of_the_index_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).set_index("b")
    frame.to_parquet(tmp_path / "table.parquet")
    content = (tmp_path / "table.parquet").read_bytes()
    assert content.count(b'"pandas_type"') > 1
    for damaged in (
        content.replace(b'"pandas_type"', b'"pandas_typo"'),
        content.replace(b'"index_columns": [', b'"index_columns": {'),
    ):
        (tmp_path / "table.parquet").write_bytes(damaged)
        with pytest.raises(FileFormatError, match="not a whole Parquet file"):
            read_table(tmp_path / "table.parquet")
