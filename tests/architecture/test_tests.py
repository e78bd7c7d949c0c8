"""Tests can fail, and the project's text speaks of the project alone."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from pathlib import Path

import pytest
from source_tree import ROOT

TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))
FORBIDDEN = tuple(
    "".join(parts)
    for parts in (("/wo", "rk/"), ("/ro", "ot/"), ("art", "ifactory"), ("jf", "rog"), ("hel", "per session"), ("de", "vpi"))
)
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".tmpl", ".cfg", ".txt", ".html", ".json", ".sh", ""}
FOLDERS = ("src", "tests", "docs", "benchmarks", "changes", "requirements", ".ci", ".github")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def found_tests(nodes: Iterable[ast.AST]) -> list[ast.FunctionDef]:
    return [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def asserts_something(function: ast.FunctionDef) -> bool:
    nodes = list(ast.walk(function))
    # First what most tests have: it takes no time to see.
    if any(isinstance(node, ast.Assert) for node in nodes):
        return True
    for node in nodes:
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in ("pytest.raises", "pytest.fail", "pytest.warns") or name.split(".")[-1].startswith(("assert_", "check")):
                return True
    return False


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_asserts_something(path: Path) -> None:
    functions = found_tests(ast.walk(tree_of(path)))
    assert functions, "a test file without tests"
    empty = [function.name for function in functions if not asserts_something(function)]
    assert not empty, f"these cannot fail by what they find: {empty}"


def test_the_rule_sees_an_empty_test() -> None:
    empty, full = ast.parse("def test_a():\n    run()\n\ndef test_b():\n    assert run()\n").body
    assert isinstance(empty, ast.FunctionDef)
    assert isinstance(full, ast.FunctionDef)
    assert not asserts_something(empty)
    assert asserts_something(full)


def test_test_names_are_unique() -> None:
    seen: dict[str, Path] = {}
    for path in TEST_FILES:
        names = [function.name for function in found_tests(tree_of(path).body)]
        assert len(names) == len(set(names)), f"{path}: a second test of one name hides the first"
        seen[str(path)] = path
    assert seen


def text_files() -> list[Path]:
    files = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT]
    for folder in FOLDERS:
        files += [
            path
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix in TEXT and "generated" not in path.parts and "__pycache__" not in path.parts
        ]
    return files


def test_no_text_names_a_machine_or_a_registry() -> None:
    wrong = []
    for path in text_files():
        text = path.read_text(encoding="utf-8", errors="replace").lower()
        wrong += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN if word in text]
    assert not wrong, "\n".join(wrong)
