"""Hashes of source code that see meaning only: comments, docstrings and formatting do not count, and neither does the Python
version."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast

__all__ = ["PACKAGE_FOLDER", "bytes_hash", "module_file", "syntax_hash"]

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
"""Folder of the ``graftwork`` package."""


def module_file(module: str) -> Path:
    """Return the file of a module without importing it; it may not exist. Modules of other packages are looked up on the search
    path.

    Example:
        >>> module_file("graftwork.core.errors:DataError").name
        'errors.py'
    """
    root, *parts = module.partition(":")[0].split(".")
    if root != "graftwork":
        return _outside_file(module.partition(":")[0])
    path = PACKAGE_FOLDER.joinpath(*parts)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _outside_file(module: str) -> Path:
    from importlib.util import find_spec

    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    # Where nothing is found, a path that does not exist: the caller's check of the file reports it.
    return Path(spec.origin) if spec is not None and spec.origin else Path(*module.split(".")).with_suffix(".py")


def bytes_hash(texts: Iterable[str], files: Iterable[Path]) -> str:
    """Return the SHA-256 over texts and files as they are: the cheap test; equal bytes mean equal syntax."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    for file in files:
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()


def syntax_hash(texts: Iterable[str], files: Iterable[Path]) -> str:
    """Return the SHA-256 over texts (white space collapsed) and the syntax trees of Python files, without docstrings and module
    paths.

    Where a module of this package stands says nothing about what it does: names imported from the package count, the modules that
    they come from do not, and neither do the order of imports and the names of the files. Of a component path only the name
    counts.

    Raises:
        SyntaxError: If a file is not Python.
    """
    import ast

    digest = hashlib.sha256()
    for text in texts:
        digest.update(" ".join(text.split()).encode() + b"\0")
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = " ".join(sorted(set(_imported_names(tree))))
        digest.update(imported.encode() + b"\0" + "".join(_canonical(tree)).encode() + b"\0")
    return digest.hexdigest()


_COMPONENT_PATH = re.compile(r"\bgraftwork(?:\.\w+)+:(?=\w)")


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield what the module imports: bare names from this package, full paths from others."""
    import ast

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name.rpartition(".")[2] if _is_own(alias.name) else alias.name
                yield f"{name} as {alias.asname}"
        elif isinstance(node, ast.ImportFrom):
            origin = "" if _is_own(node.module or "") else f"{node.module}."
            for alias in node.names:
                yield f"{origin}{alias.name} as {alias.asname}"


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == "graftwork"


def _canonical(node: ast.AST) -> Iterator[str]:
    # ``ast.dump`` differs between Python versions (new empty fields, dropped empty lists); this form leaves out whatever is
    # empty.
    import ast

    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        if isinstance(value, list) and name in ("body", "orelse", "finalbody"):
            value = _statements(value)
        # `kind` is the prefix of u"..." and `type_comment` a comment; neither changes what runs.
        if value is None or value == [] or name in ("kind", "type_comment"):
            continue
        yield f" {name}="
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _canonical(item)
            else:
                yield repr(_COMPONENT_PATH.sub("graftwork:", item) if isinstance(item, str) else item)
    yield ")"


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Leave out bare strings (docstrings, of a definition or of the field above), imports, and blocks for type checkers only."""
    import ast

    return [
        statement
        for statement in body
        if not isinstance(statement, ast.Import | ast.ImportFrom)
        and not (isinstance(statement, ast.If) and ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"))
        and not (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
    ]
