"""Every guarantee in SECURITY.md is one sentence that names the tests which show it, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from source_tree import ROOT

SECTIONS = ("Files of others", "Texts of others", "Clients of a server", "Pages in your browser", "Yourself and this program")
GUARANTEE = re.compile(r"- (?P<sentence>[A-Z`][^\[\]]*\.) \[(?P<tests>[^\[\]]+)\]")
NAME = re.compile(r"(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)")


def guarantees(text: str) -> list[tuple[str, list[str]]]:
    """Return the bullets of the sections that guarantee something, each with the tests it names (none if it is written otherwise)."""
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        if title not in SECTIONS:
            continue
        for line in re.findall(r"^- .*(?:\n  .*)*", body, flags=re.MULTILINE):
            match = GUARANTEE.fullmatch(line)
            found.append((line, [name.strip() for name in match["tests"].split(",")] if match else []))
    return found


def fault(sentence: str, tests: list[str]) -> str:
    """Return what is wrong with a guarantee; empty if nothing is."""
    if not tests:
        return f"names no tests, or is not written as `- Sentence. [tests]`: {sentence}"
    match = GUARANTEE.fullmatch(sentence)
    if match and re.search(r"[.!?] [A-Z]", match["sentence"]):
        return f"more than one sentence: {sentence}"
    for name in tests:
        parts = NAME.fullmatch(name)
        if parts is None or not has_test(ROOT / parts["file"], parts["test"]):
            return f"there is no test {name}"
    return ""


def has_test(path: Path, name: str) -> bool:
    if not path.is_file():
        return False
    return any(
        isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(path.read_text(encoding="utf-8")).body
    )


FOUND = guarantees((ROOT / "SECURITY.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("sentence", "tests"), FOUND, ids=[line[2:60] for line, _ in FOUND])
def test_every_guarantee_names_tests_that_exist(sentence: str, tests: list[str]) -> None:
    assert not fault(sentence, tests)


def test_all_sections_are_there_and_say_something() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for title in SECTIONS:
        assert guarantees(f"## {title}\n" + text.partition(f"## {title}\n")[2].partition("\n## ")[0]), title
    others = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert set(others) - set(SECTIONS) == {"What is not guaranteed", "What was run"}


@pytest.mark.parametrize(
    "line",
    [
        "- Nothing is ever lost.",
        "- Nothing is lost. [tests/unit/core/test_files.py::test_that_is_not_there]",
        "- Nothing is lost. [tests/unit/core/test_no_such_file.py::test_a]",
        "- Nothing is lost. Nobody gets in. [tests/unit/core/test_files.py::test_hash_of_a_file_is_sha256]",
    ],
)
def test_the_rule_sees_a_sentence_without_its_test(line: str) -> None:
    (sentence, tests), *rest = guarantees(f"## {SECTIONS[0]}\n\n{line}\n")
    assert not rest
    assert fault(sentence, tests)
