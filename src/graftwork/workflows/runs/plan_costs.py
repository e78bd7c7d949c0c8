"""What a plan costs, as a few steps say it before the race and as its own trainings say it later."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

__all__ = ["VALIDATIONS", "Estimate", "FirstFit", "measured_cost"]

VALIDATIONS = 8
"""How often a learner looks at its validation rows in one training, for the cost model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstFit:
    """What a first model cost whose plan is fitted in one go."""

    rows: int
    """Training rows that it learned from."""
    seconds: float
    parameters: int = 0
    peak_rss_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a few steps of a plan cost."""

    plan: str
    seconds_per_step: float = 0.0
    """Median of several steps after the first ones; 0 for what is fitted in one go."""
    setup_seconds: float = 0.0
    """Building the model and reading the suite, with warm caches; and fitting it, for what is fitted in one go."""
    once_seconds: float = 0.0
    """What is paid once for all trainings of the plan: the features of a frozen backbone, which are stored."""
    eval_seconds: float = 0.0
    """One pass over the validation rows."""
    steps_per_epoch: float = 1.0
    sees_all_rows: bool = False
    """Whether every step sees all training rows (boosting rounds, fits in one go), so that it costs more on more rows."""
    parameters: int = 0
    peak_rss_bytes: int = 0
    latency_ms: float = 0.0
    is_made: bool = False
    """Whether its first model was fitted in one go on the rows of the race: rungs and the first final go on from it."""
    measured: bool = True
    """False if the time did not suffice to measure it: the costs are a cautious guess."""
    kept: bool = True
    reason: str = ""
    """Why it is left out or cut; empty if it is not."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object."""
        return cls(**value)

    def seconds(self, horizon: float, share: float = 1.0, scale: float = 1.0, passes: float = 0.0) -> float:
        """Return the seconds of a job.

        Args:
            horizon: Steps of a full training.
            share: Part of them that the job makes.
            scale: How many times more training rows there are than where it was measured.
            passes: Further passes over the validation rows.
        """
        more = scale if self.sees_all_rows else 1.0
        # What is fitted in one go is judged once.
        validations = VALIDATIONS * share if self.seconds_per_step else 0.0
        return (
            more * (self.setup_seconds + share * horizon * self.seconds_per_step)
            + (1.5 + passes + validations) * self.eval_seconds
        )


def measured_cost(estimate: Estimate, seconds: float, steps: int) -> Estimate:
    """Return the costs as a training of the race shows them: one noisy estimate must not decide a whole race.

    Args:
        estimate: What was known before.
        seconds: Seconds of the job.
        steps: Steps that it made; 0 says nothing about steps.
    """
    # A rung validates two or three times.
    fixed = estimate.setup_seconds + (1.5 + VALIDATIONS / 4) * estimate.eval_seconds
    if steps < 1:
        return replace(estimate, once_seconds=0.0, measured=True)
    if not estimate.seconds_per_step:  # fitted in one go
        return replace(estimate, setup_seconds=seconds, once_seconds=0.0, measured=True)
    # Set-up and evaluation were noisy as well: together they explain at most half of what the job took.
    shrink = min(1.0, 0.5 * seconds / fixed) if fixed > 0 else 1.0
    return replace(
        estimate,
        setup_seconds=shrink * estimate.setup_seconds,
        eval_seconds=shrink * estimate.eval_seconds,
        seconds_per_step=max((seconds - shrink * fixed) / steps, 1e-9),
        once_seconds=0.0,
        measured=True,
    )
