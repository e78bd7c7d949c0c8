"""Embedded suites: data that comes with pip packages or is generated, by name. Looking one up imports nothing else."""

from __future__ import annotations

import importlib
from typing import Any

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.names import did_you_mean
from graftwork.data.suite import Suite

__all__ = ["EMBEDDED", "load_embedded"]

EMBEDDED: dict[str, str] = {
    "emoji": "graftwork.data.suites.emoji:emoji_suite",
    "conflicting": "graftwork.data.suites.generated:conflicting_tasks",
    "related": "graftwork.data.suites.generated:related_tasks",
    "multidigits": "graftwork.data.suites.multidigits:multidigits",
    "glyphs": "graftwork.data.suites.glyphs:glyphs",
    "multitab-bench": "graftwork.data.suites.multitab_bench:multitab_bench",
    "digits": "graftwork.data.suites.digit_family:digit_family",
    "flights": "graftwork.data.suites.flights:flights",
    "diamonds": "graftwork.data.suites.diamonds:diamonds",
    "outlier-tasks": "graftwork.data.suites.outlier_tasks:outlier_tasks",
    "clicks": "graftwork.data.suites.click_log:click_log",
    "aspects": "graftwork.data.suites.aspects:aspects",
    "behaviours": "graftwork.data.suites.behaviours:behaviours",
    "creatives": "graftwork.data.suites.creatives:creatives",
    "scenes": "graftwork.data.suites.scenes:scenes",
    "histology": "graftwork.data.suites.histology:histology",
    "short-texts": "graftwork.data.suites.short_texts:short_texts",
    "series-zoo": "graftwork.data.suites.series_zoo:series_zoo",
}
"""Name -> ``module:function``; each function takes keyword options and returns a Suite."""


def load_embedded(name: str, **options: Any) -> Suite:
    """Build an embedded suite.

    Args:
        name: A key of :data:`EMBEDDED`.
        options: Passed on to its function, for example ``seed=1``.

    Raises:
        DataError: If there is no such suite.
        ConfigError: If it has no such option.
        MissingDependencyError: If it needs a package that is not installed.
    """
    if name not in EMBEDDED:
        raise DataError(
            f"There is no embedded suite {name!r}.{did_you_mean(name, EMBEDDED)} The suites are: {', '.join(EMBEDDED)}."
        )
    # Here, since the list of names is asked for by commands that must start fast.
    import inspect

    module, _, function = EMBEDDED[name].partition(":")
    build = getattr(importlib.import_module(module), function)
    allowed = list(inspect.signature(build).parameters)
    for option in options:
        if option not in allowed:
            raise ConfigError(
                f"The suite {name!r} has no option {option!r}.{did_you_mean(option, allowed)} Its options "
                f"are: {', '.join(allowed)}."
            )
    suite: Suite = build(**options)
    return suite
