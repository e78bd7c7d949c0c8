"""The kinds of stages that a plan can have, one module each, found by name: a new kind is a new module with a class ``STAGE``."""

from __future__ import annotations

import importlib
import pkgutil

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.core.stage import Stage

__all__ = ["stage_class", "stage_kinds"]


def stage_kinds() -> tuple[str, ...]:
    """Return the names of all kinds."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def stage_class(kind: object) -> type[Stage]:
    """Return the class of a kind.

    Raises:
        ConfigError: If there is no such kind.

    Example:
        >>> stage_class("train").__name__
        'TrainStage'
    """
    kinds = stage_kinds()
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"unknown kind of stage {kind!r}.{did_you_mean(str(kind), kinds)} Known kinds: {', '.join(kinds)}")
    found: type[Stage] = importlib.import_module(f"{__name__}.{kind}").STAGE
    return found
