"""Import what builds on torch without torch's compiler, which takes about as long as torch itself.

torchvision, timm and transformers mark functions for the compiler when they are imported, which imports all of it. Nothing is compiled
here, so the marks are left out; whatever else of the compiler such a package keeps is looked up when it is called.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

__all__ = ["without_compiler"]

_COMPILER = "torch._dynamo"
_MARKS = ("allow_in_graph", "assume_constant_result", "disable", "disallow_in_graph", "forbid_in_graph", "nonstrict_trace")
"""Decorators that change nothing where nothing is compiled."""


class _StandIn(ModuleType):
    """A module of the compiler while others are imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _MARKS:
            return _unmarked
        module = self.__name__

        def later(*args: Any, **kwargs: Any) -> Any:
            _end()  # asked for while others are still imported: there is no way around the compiler
            return getattr(importlib.import_module(module), name)(*args, **kwargs)

        return later


def _unmarked(fn: Any = None, *_: Any, **__: Any) -> Any:
    return fn if fn is not None else _unmarked


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives stand-ins for the compiler's modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a stand-in for a module of the compiler; None for all others."""
        if fullname != _COMPILER and not fullname.startswith(f"{_COMPILER}."):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """Return the stand-in."""
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run."""


_FINDER = _Finder()


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Import packages in this block without torch's compiler; where that is there already, nothing changes.

    Functions that these packages exclude from compilation are not excluded then, should somebody compile them later in this process.
    """
    if _COMPILER in sys.modules or _FINDER in sys.meta_path:
        yield
        return
    sys.meta_path.insert(0, _FINDER)
    try:
        yield
    finally:
        _end()


def _end() -> None:
    """Let the next import of the compiler find it."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        parent, _, own = name.rpartition(".")
        vars(sys.modules.get(parent, ModuleType(parent))).pop(own, None)
        del sys.modules[name]
