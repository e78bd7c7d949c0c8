"""Source code of a class that implements a seam: the abstract methods of the interface with their signatures, read from its
syntax tree."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence

from graftwork.core.errors import ConfigError
from graftwork.core.source_hash import module_file

__all__ = ["seam_source", "seams"]

_LINE = 130


@functools.cache
def seams() -> dict[str, str]:
    """Return the module in ``graftwork.interfaces`` of each seam: the classes there that have abstract methods, or a base that
    does."""
    found: dict[str, str] = {}
    names = sorted(path.stem for path in module_file("graftwork.interfaces").parent.glob("*.py") if path.stem != "__init__")
    classes = {
        node.name: (name, node)
        for name in names
        for node in ast.parse(module_file(f"graftwork.interfaces.{name}").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }

    def is_seam(name: str) -> bool:
        node = classes[name][1]
        own = any(isinstance(item, ast.FunctionDef) and _is_abstract(item) for item in node.body)
        # Some seams have no abstract method of their own and inherit all of them.
        return own or any(isinstance(base, ast.Name) and base.id in classes and is_seam(base.id) for base in node.bases)

    for name, (module, _) in sorted(classes.items()):
        if is_seam(name):
            found[name] = module
    return found


def seam_source(seam: str) -> tuple[str, str, str]:
    """Return imports, base class and methods of an implementation of ``seam``, as source code; empty ``seam`` gives a plain
    class.

    Raises:
        ConfigError: If there is no such seam.
    """
    if not seam:
        return "from typing import Any", "", _plain_body()
    if seam not in seams():
        raise ConfigError(f"There is no seam {seam!r}; the seams are {', '.join(seams())}.")
    name = f"graftwork.interfaces.{seams()[seam]}"
    names: dict[str, set[str]] = {name: {seam}}
    methods = []
    for module, tree, found in _abstract_methods(name, seam):
        methods += found
        used = {item.id for method in found for item in ast.walk(method.args) if isinstance(item, ast.Name)}
        used |= {item.id for method in found if method.returns for item in ast.walk(method.returns) if isinstance(item, ast.Name)}
        for needed, parts in _needed_imports(tree, used):
            names.setdefault(needed, set()).update(parts)
        # Types that the interface's module defines itself are imported from there.
        if defined := used & _defined_names(tree):
            names.setdefault(module, set()).update(defined)
    imports = [(needed, sorted(parts)) for needed, parts in names.items()]
    return _format_imports(imports), f"({seam})", "\n".join(_method_source(method) for method in methods).rstrip()


def _abstract_methods(module: str, seam: str) -> list[tuple[str, ast.Module, list[ast.FunctionDef]]]:
    """Return what an implementation has to write: modules with their trees and abstract methods, those of base classes first."""
    tree = ast.parse(module_file(module).read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    written = [node for node in classes[seam].body if isinstance(node, ast.FunctionDef)]
    # What a seam implements itself need not be written again, although its base has it abstract.
    own = {node.name for node in written}
    origin = {
        alias.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module for alias in node.names
    }
    found = []
    for base in (item.id for item in classes[seam].bases if isinstance(item, ast.Name)):
        home = module if base in classes else origin.get(base, "")
        if home.startswith("graftwork.interfaces."):
            found += [
                (place, other, [method for method in methods if method.name not in own])
                for place, other, methods in _abstract_methods(home, base)
            ]
    return [*found, (module, tree, [node for node in written if _is_abstract(node)])]


def _plain_body() -> str:
    return (
        "    def __call__(self, *args: Any, **settings: Any) -> Any:\n"
        '        """Apply the method."""\n'
        '        raise NotImplementedError("Give this method its real name, arguments and body.")'
    )


def _is_abstract(node: ast.FunctionDef) -> bool:
    return any(isinstance(item, ast.Name) and item.id == "abstractmethod" for item in node.decorator_list)


def _defined_names(tree: ast.Module) -> set[str]:
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return names | {
        target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)
    }


def _needed_imports(tree: ast.Module, used: set[str]) -> list[tuple[str, list[str]]]:
    needed: list[tuple[str, list[str]]] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            names = sorted(alias.name for alias in node.names if (alias.asname or alias.name) in used)
            if names:
                needed.append((node.module, names))
        elif isinstance(node, ast.Import):
            needed += [(f"{alias.name} as {alias.asname}", []) for alias in node.names if alias.asname in used]
    return needed


def _format_imports(imports: Sequence[tuple[str, list[str]]]) -> str:
    groups: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for module, names in imports:
        root = module.split(".")[0].split(" ")[0]
        rank = 2 if root == "graftwork" else 1 if root in ("torch", "numpy") else 0
        groups[rank].append(f"from {module} import {', '.join(names)}" if names else f"import {module}")
    lines = [sorted(group, key=lambda line: (line.startswith("from"), line)) for group in groups.values() if group]
    return "\n\n".join("\n".join(group) for group in lines)


def _method_source(method: ast.FunctionDef) -> str:
    arguments = _split_arguments(method.args)
    result = f" -> {ast.unparse(method.returns)}" if method.returns else ""
    head = f"    def {method.name}({', '.join(arguments)}){result}:"
    if len(head) > _LINE:
        broken = ",\n        ".join(arguments)
        head = f"    def {method.name}(\n        {broken},\n    ){result}:"
    summary = (ast.get_docstring(method) or "").split("\n\n")[0].replace("\n", " ")
    decorator = (
        "    @property\n" if any(isinstance(item, ast.Name) and item.id == "property" for item in method.decorator_list) else ""
    )
    lines = [f'{decorator}{head}\n        """{summary}"""']
    lines.append(f'        raise NotImplementedError("{method.name} is what this method is about: write it.")\n')
    return "\n".join(lines)


def _split_arguments(arguments: ast.arguments) -> list[str]:
    text, depth, parts = ast.unparse(arguments), 0, [""]
    for letter in text:
        # Commas inside brackets belong to a type, not between arguments.
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        elif letter == "=" and depth == 0 and ":" in parts[-1]:
            parts[-1] += " = "  # unparse writes defaults of annotated arguments without spaces
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
