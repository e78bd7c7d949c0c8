"""What the architecture tests see of the source: modules and their imports, read from syntax trees."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "graftwork"


@dataclass(frozen=True)
class Import:
    """One imported module."""

    module: str
    line: int
    at_top: bool
    """Whether importing the module runs it (not inside a function)."""


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        """First folder below the package; empty for the package itself."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""


@functools.cache
def modules() -> dict[str, Module]:
    """All modules of the package by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


@functools.cache
def imports(name: str, *, with_types: bool = False) -> tuple[Import, ...]:
    """What a module imports; ``with_types`` adds the blocks that only type checkers read."""
    return tuple(_walk(modules()[name].tree, name, at_top=True, with_types=with_types))


def _walk(node: ast.AST, owner: str, *, at_top: bool, with_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in [*child.orelse, *(child.body if with_types else [])]:
                yield from _walk(ast.Module([other], []), owner, at_top=at_top, with_types=with_types)
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_top)
        elif isinstance(child, ast.ImportFrom):
            yield from _from(child, owner, at_top=at_top)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, owner, at_top=at_top and not inside, with_types=with_types)


def _from(node: ast.ImportFrom, owner: str, *, at_top: bool) -> Iterator[Import]:
    assert node.level == 0, f"{owner}: write imports in full, not relative"
    base = node.module or ""
    whole = False
    for alias in node.names:
        part = f"{base}.{alias.name}"
        if part in modules():
            yield Import(part, node.lineno, at_top)
        else:
            whole = True
    if whole:
        yield Import(base, node.lineno, at_top)
