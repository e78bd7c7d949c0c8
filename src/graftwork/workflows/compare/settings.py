"""What the user asked of ``compare``: the settings of ``fit``, an engine, and a budget that holds for each training."""

from __future__ import annotations

from dataclasses import dataclass

from graftwork.core.errors import ConfigError
from graftwork.workflows.runs.auto_groups import MAX_GROUPS
from graftwork.workflows.runs.pool import Engine
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["DEFAULT_STEPS", "CompareSettings"]

DEFAULT_STEPS = 500
"""Steps of every training if neither steps nor a time is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareSettings(FitSettings):
    """Settings of one ``compare``. ``time_limit`` is the seconds of each training; exactly one of it and ``steps`` is set."""

    engine: Engine = "local"
    """``local``: processes on this machine; ``ray``: a Ray cluster."""
    max_groups: int = MAX_GROUPS
    """Most groups of tasks that the report suggests."""

    def __post_init__(self) -> None:
        FitSettings.__post_init__(self)
        problems = []
        if self.engine not in ("local", "ray"):
            problems.append(f"engine must be 'local' or 'ray'; got {self.engine!r}")
        if self.max_groups < 1:
            problems.append(f"max-groups must be at least 1; got {self.max_groups}")
        if self.steps is not None and self.time_limit is not None:
            problems.append("give steps or a time limit for each training, not both")
        if self.engine == "ray" and self.workers == 0:
            problems.append("workers must be at least 1 with the engine ray")
        if self.engine == "ray" and self.device not in ("auto", "cpu"):
            problems.append(f"device must be cpu with the engine ray, whose workers train on CPUs; got {self.device!r}")
        if problems:
            raise ConfigError("Some settings cannot be used.", problems)
