"""What a race comes to: finished trainings, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graftwork.workflows.runs.jobs.train import TrainJob

__all__ = ["RaceOutcome", "Result", "as_judged"]

Result = Mapping[str, Any]


@dataclass(slots=True)
class RaceOutcome:
    """What the verdict is made of."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One record for each job of rungs and finals, as ``race`` of ``result.json``."""
    finals: dict[str, dict[int, TrainJob]] = field(default_factory=dict)
    """``{plan: {seed: finished job}}``."""
    controls: dict[str, dict[int, TrainJob]] = field(default_factory=dict)
    """``{task: {seed: finished job}}``."""
    control_plan: str | None = None
    affinity: dict[str, Any] | None = None
    gradients: dict[str, Any] | None = None
    """Cosines of the tasks' gradients by stage, from the same run."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """Other settings and longer trainings that were tried, as ``attempts`` of ``result.json``."""
    first_model: bool = False
    """Whether nothing but the first model was finished."""
    warnings: list[str] = field(default_factory=list)

    def record(self, rung: int, plan: str, seed: int, result: Result, score: float | None) -> None:
        """Add a job to the history."""
        self.history.append(
            {
                "rung": rung,
                "plan": plan,
                "seed": seed,
                "steps": result.get("steps", 0),
                "status": result["status"],
                "message": result.get("message", ""),
                "validation": result.get("validation", {}),
                "score": score,
                "seconds": result.get("seconds", 0.0),
            }
        )


def as_judged(job: TrainJob, result: Result) -> TrainJob:
    """Return a finished training as it was made.

    One that the deadline cut may have the horizon and the rows of its last rung, and whoever loads it needs these; whoever compares
    it with whole trainings needs to know that it was cut.
    """
    return replace(
        job,
        max_steps=int(result.get("horizon", job.max_steps)),
        rows=int(result.get("most_rows", job.rows)),
        cut=bool(result.get("cut", job.cut)),
    )
