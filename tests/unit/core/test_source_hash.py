from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.source_hash import bytes_hash, module_file, syntax_hash


def hash_of(folder: Path, code: str) -> str:
    file = folder / "code.py"
    file.write_text(code, encoding="utf-8")
    return syntax_hash(["claim"], [file])


BASE = "def add(a, b):\n    return a + b\n\nclass Box:\n    size: int = 3\n"


@pytest.mark.parametrize(
    "same",
    [
        "# comment\n" + BASE,
        BASE.replace("return a + b", "return (a\n            + b)"),
        BASE.replace("    return", '    """Add."""\n    return'),
        BASE + '    """Number of things."""\n',
        '"""Module."""\n' + BASE.replace("\n\n", "\n\n\n\n"),
    ],
)
def test_what_does_nothing_does_not_count(tmp_path: Path, same: str) -> None:
    assert hash_of(tmp_path, same) == hash_of(tmp_path, BASE)


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("a + b", "b + a"),
        BASE.replace("a + b", "a - b"),
        BASE.replace("3", "4"),
        BASE.replace("3", "3.0"),
        BASE.replace("add", "plus"),
        BASE.replace("3", "'3'"),
        BASE + "    weight: int = 0\n",
        BASE.replace("(a, b)", "(a, b=None)"),
    ],
)
def test_what_does_something_counts(tmp_path: Path, other: str) -> None:
    assert hash_of(tmp_path, other) != hash_of(tmp_path, BASE)


@given(st.integers(), st.integers())
def test_constants_count(tmp_path_factory: pytest.TempPathFactory, first: int, second: int) -> None:
    folder = tmp_path_factory.mktemp("hash")
    assert (hash_of(folder, f"x = {first}\n") == hash_of(folder, f"x = {second}\n")) == (first == second)


def test_texts_count_but_their_line_breaks_do_not(tmp_path: Path) -> None:
    assert syntax_hash(["one two"], []) == syntax_hash(["one\n  two"], [])
    assert syntax_hash(["one two"], []) != syntax_hash(["one", "two"], [])


def test_bytes_count_all(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(BASE, encoding="utf-8")
    before = bytes_hash([], [file])
    file.write_text("# comment\n" + BASE, encoding="utf-8")
    assert bytes_hash([], [file]) != before


def test_finds_files_of_modules_without_importing() -> None:
    assert module_file("graftwork.core.errors:DataError").name == "errors.py"
    assert module_file("graftwork.core").name == "__init__.py"
    assert module_file("json.decoder").name == "decoder.py"
    assert not module_file("no_such_package.part").exists()
