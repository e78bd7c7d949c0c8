"""Decisions that depend on time: made once, stored, and found again by a resumed run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.run_folder import clean_json

__all__ = ["DEADLINE_SHARE", "MEMBERS", "VERDICT", "deadline", "decided", "is_decided", "seconds_left"]

DEADLINE_SHARE = 0.96
"""Share of the time limit at which trainings are cut; the rest is for what comes after the last one."""


VERDICT = "verdict seconds"
"""Name of the decision that holds how long the verdict will take; without it, what is left after the deadline is enough."""
MEMBERS = "models on all rows"
"""Name of the decision how many models on all rows are made. From then on the race is over, also for a resume with more time: these
models have the settings that it found, and are known by the plan's name."""
_MOST_OF_VERDICT = 0.4
"""Share of the time limit by which the deadline comes earlier at most: a verdict needs something to judge."""


def deadline(state: Mapping[str, Any], limit: float, share: float = DEADLINE_SHARE) -> float:
    """Return the second of a run at which a share of its time is used: earlier if the verdict takes longer than what is left after
    the deadline.

    Args:
        state: The run's state.
        limit: Its time limit in seconds.
        share: The share.
    """
    verdict = float(state.get("decisions", {}).get(VERDICT) or 0.0)
    missing = max(0.0, verdict - (1.0 - DEADLINE_SHARE) * limit)
    return share * limit - min(missing, _MOST_OF_VERDICT * limit)


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


def is_decided(context: RunContext[Any], name: str) -> bool:
    """Return whether something was decided under a name: a resumed run then follows it, however late it is by now. What was begun
    before the end of the time is there, and is a part of the result."""
    return name in context.run.state.get("decisions", {})


def seconds_left(context: RunContext[Any], share: float = DEADLINE_SHARE) -> float | None:
    """Return the seconds until a share of the time limit is used; None without a limit or with fixed steps, which take the time
    that they take."""
    settings = context.settings
    if settings.time_limit is None or settings.steps is not None:
        return None
    return max(0.0, deadline(context.run.state, settings.time_limit, share) - context.run.seconds_used())
