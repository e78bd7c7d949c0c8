"""Every module is small, documented, and free of what is unsafe."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from source_tree import PACKAGE, ROOT, Module, modules

LIMIT = 400
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def python_files() -> list[Path]:
    folders = ("src", "tests", "docs", "benchmarks")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LIMIT, f"{path} has {lines} lines; split it along an idea"


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.name)
def test_modules_are_documented(module: Module) -> None:
    if module.path.name == "__init__.py" and not module.path.read_text(encoding="utf-8").strip():
        return
    assert ast.get_docstring(module.tree), f"{module.name} has no docstring"
    definitions = {
        node.name: node for node in module.tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for name in public_names(module):
        if name in definitions:
            assert ast.get_docstring(definitions[name]), f"{module.name}.{name} is public but has no docstring"


def public_names(module: Module) -> list[str]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return [item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return []


@pytest.mark.parametrize(
    "module",
    [module for module in modules().values() if module.path.name not in ("__init__.py", "__main__.py")],
    ids=lambda module: module.name,
)
def test_modules_name_what_is_public(module: Module) -> None:
    names = public_names(module)
    assert names, f"{module.name} has no __all__"
    defined = {node.name for node in module.tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            defined |= {alias.asname or alias.name for alias in node.names}
    assert set(names) <= defined, f"{module.name}: __all__ names {sorted(set(names) - defined)}, which are not there"


def unsafe_calls(tree: ast.AST) -> list[str]:
    """Return what in a module could run foreign code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                f"line {node.lineno}: import {alias.name}" for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES
            ]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(f"line {node.lineno}: from {node.module}")
        elif isinstance(node, ast.Call):
            found += [f"line {node.lineno}: {problem}" for problem in call_problems(node)]
    return found


def call_problems(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    options = {item.arg: ast.unparse(item.value) for item in node.keywords if item.arg}
    problems = []
    if name == "torch.load" and options.get("weights_only") != "True":
        problems.append("torch.load without weights_only=True")
    if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
        problems.append("np.load without allow_pickle=False")
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        problems.append(f"{name} can build objects; use yaml.safe_load")
    if name in ("eval", "exec") or name.endswith("read_pickle"):
        problems.append(name)
    if options.get("trust_remote_code", "False") != "False":
        problems.append("trust_remote_code")
    if options.get("shell") == "True":
        problems.append("a shell")
    return problems


@pytest.mark.parametrize("module", modules().values(), ids=lambda module: module.name)
def test_nothing_unpickles_or_runs_foreign_code(module: Module) -> None:
    assert not unsafe_calls(module.tree)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from dill import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "pd.read_pickle(path)",
    ],
)
def test_the_rule_sees_what_is_unsafe(code: str) -> None:
    assert unsafe_calls(ast.parse(code))


def test_the_rule_allows_what_is_safe() -> None:
    code = "torch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)\nyaml.safe_load(text)\nmodel.eval()\n"
    assert not unsafe_calls(ast.parse(code))


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
