"""The kinds of jobs that the pool can run, one module each, found by name: a new kind is a new module with a class ``JOB``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.nearest import did_you_mean
from graftwork.workflows.runs.job import Job

__all__ = ["job_class", "job_kinds", "read_job"]


def job_kinds() -> tuple[str, ...]:
    """Return the names of all kinds."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def job_class(kind: object) -> type[Job]:
    """Return the class of a kind.

    Raises:
        ConfigError: If there is no such kind.

    Example:
        >>> job_class("train").__name__
        'TrainJob'
    """
    kinds = job_kinds()
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"There is no job of kind {kind!r}.{did_you_mean(str(kind), kinds)} Known kinds: {', '.join(kinds)}.")
    found: type[Job] = importlib.import_module(f"{__name__}.{kind}").JOB
    return found


def read_job(value: Any) -> Job:
    """Read :meth:`~graftwork.workflows.runs.job.Job.to_json`'s object.

    Raises:
        ConfigError: If there is no such kind, or its plan or a name cannot be used.
        FileFormatError: If it is no object, a key is unknown or missing, or a value has another type.
    """
    if not isinstance(value, Mapping):
        raise FileFormatError(f"A job is an object with a kind; got {value!r:.200}.")
    return job_class(value.get("kind")).from_json(value)
