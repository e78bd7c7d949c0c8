"""What must answer at once, or run without torch, imports none of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from source_tree import imports, modules

HEAVY = ("torch", "timm", "transformers", "torchjd", "safetensors.torch")
CLI_HEAVY = (*HEAVY, "numpy", "pandas", "yaml", "scipy", "sklearn", "rich", "plotly")
MAY_IMPORT_TORCH = {"graftwork.core.batch", "graftwork.data.loader"}


def runs_at_import(name: str) -> set[str]:
    """Everything that importing a module runs: modules of the package, and names of others."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        parents = [module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1)]
        waiting += [parent for parent in parents if parent in modules()]
        if module in modules():
            waiting += [item.module for item in imports(module) if item.at_top]
    return seen


def is_one_of(module: str, heavy: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in heavy)


def torch_free() -> list[str]:
    wanted = [name for name, module in modules().items() if module.room in ("core", "data") and name not in MAY_IMPORT_TORCH]
    kinds = (
        "graftwork.tasks.kinds",
        "graftwork.tasks.metrics",
        "graftwork.interfaces.task_kind",
        "graftwork.interfaces.learner",
    )  # readers, servers and pools ask them
    return wanted + [name for name in modules() if name.startswith(("graftwork.serving.", "graftwork.workflows.merge", *kinds))]


@pytest.mark.parametrize("name", torch_free())
def test_torch_free_modules_stay_so(name: str) -> None:
    heavy = sorted(module for module in runs_at_import(name) if is_one_of(module, HEAVY))
    assert not heavy, f"importing {name} imports {heavy}"


@pytest.mark.parametrize("name", [name for name, module in modules().items() if module.room in ("cli", "")])
def test_the_command_line_starts_on_the_standard_library(name: str) -> None:
    heavy = sorted(module for module in runs_at_import(name) if is_one_of(module, CLI_HEAVY))
    assert not heavy, f"importing {name} imports {heavy}"


@pytest.mark.parametrize("command", ["['systems']", "['show', 'merging']", "['--help']"])
def test_listing_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\n"
        "from graftwork.cli.main import main\n"
        "try:\n"
        f"    main({command})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"heavy = [name for name in {CLI_HEAVY!r} if name in sys.modules]\n"
        "print('HEAVY', heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().splitlines()[-1] == "HEAVY []"
