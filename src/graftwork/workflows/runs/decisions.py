"""Decisions that depend on time: made once, stored, and found again by a resumed run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.run_folder import clean_json

__all__ = ["DEADLINE_SHARE", "decided", "seconds_left"]

DEADLINE_SHARE = 0.96
"""Share of the time limit at which trainings are cut; the rest is for what comes after the last one."""


def decided(context: RunContext[Any], name: str, decide: Callable[[], Any]) -> Any:
    """Return what was decided under a name earlier in this run, or decide now and store it.

    Args:
        context: The run.
        name: Name of the decision.
        decide: Returns JSON values.
    """
    stored = context.run.state.get("decisions", {})
    if name not in stored:
        context.run.save(decisions={**stored, name: clean_json(decide())})
    return context.run.state["decisions"][name]


def seconds_left(context: RunContext[Any], share: float = DEADLINE_SHARE) -> float | None:
    """Return the seconds until a share of the time limit is used; None without a limit or with fixed steps, which take the time
    that they take."""
    settings = context.settings
    if settings.time_limit is None or settings.steps is not None:
        return None
    return max(0.0, share * settings.time_limit - context.run.seconds_used())
