"""ONNX Runtime reports its use unless a variable is set before it is imported: the one function that sets it imports it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from source_tree import PACKAGE, ROOT

FILES = sorted(path for folder in (PACKAGE, ROOT / "benchmarks") for path in folder.rglob("*.py"))
PACKAGES = ("onnxruntime",)
IMPORTERS = ("import_module", "__import__")


def imported(tree: ast.Module) -> list[int]:
    """Return the lines that import ONNX Runtime in another way than by ``require``; type hints import nothing."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    lines = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in IMPORTERS:
            names = [str(item.value) for item in node.args if isinstance(item, ast.Constant)]
        if id(node) not in for_types and any(name.partition(".")[0] in PACKAGES for name in names):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_onnx_runtime_is_imported_by_require_alone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # Whoever imports it names it.
    found = imported(ast.parse(text)) if any(name in text for name in PACKAGES) else []
    assert not found, f"lines {found}: use graftwork.core.optional.require, which turns its reports off"


def test_the_rule_sees_every_way_of_importing() -> None:
    source = """
import onnxruntime
from onnxruntime.capi import x
importlib.import_module("onnxruntime")
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import onnxruntime
runtime = require("onnxruntime", extra="predict", purpose="It")
from . import onnxruntime
"""
    assert imported(ast.parse(source)) == [2, 3, 4]
