"""Reads a run's ``result.json`` with defaults for everything that a run cut short may lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from graftwork.core.errors import FileFormatError
from graftwork.core.records import TaskSpec
from graftwork.evaluation.metrics import default_metric

__all__ = ["FORMAT", "ResultView"]

FORMAT = "graftwork-fit-1"
"""The only format of ``graftwork fit`` that this version reads."""


@dataclass(frozen=True)
class ResultView:
    """Typed access to a result. Nothing here computes a statistic: the race did.

    Raises:
        FileFormatError: On building, if the object is not a result of ``graftwork fit``.
    """

    result: Mapping[str, Any]

    format: ClassVar[str] = FORMAT
    verb: ClassVar[str] = "fit"
    """Verb that writes such results."""

    def __post_init__(self) -> None:
        found = self.result.get("format") if isinstance(self.result, Mapping) else None
        if found != self.format:
            raise FileFormatError(
                f"This is no result of graftwork {self.verb}: its format is {found!r}, allowed is {self.format!r}. "
                f"Pass the result.json that graftwork {self.verb} wrote into its run folder."
            )

    def section(self, name: str) -> dict[str, Any]:
        """Return an object of the result; empty if the run did not get that far."""
        return dict(self.result.get(name) or {})

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return a list of the result; empty if the run did not get that far."""
        return [dict(row) for row in self.result.get(name) or ()]

    @cached_property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The tasks, in the suite's order."""
        return tuple(TaskSpec.from_json(task) for task in self.section("suite").get("tasks", ()))

    @cached_property
    def plans(self) -> dict[str, dict[str, Any]]:
        """Everything known of each plan, by name."""
        return {name: dict(plan) for name, plan in self.section("plans").items()}

    @property
    def choice(self) -> str:
        """Name of the chosen plan; empty if none could be chosen."""
        return str(self.section("verdict").get("choice") or "")

    @property
    def reference(self) -> str:
        """Name of the separate-models plan that everything is compared with; empty if it did not finish."""
        return str(self.section("verdict").get("reference") or "")

    @cached_property
    def finalists(self) -> list[str]:
        """Plans with test scores: the chosen one first, then the reference, then by delta-m, best first."""

        def order(name: str) -> tuple[bool, bool, float]:
            value = (self.plans[name].get("delta_m") or {}).get("value")
            # Plans without a delta-m come last.
            return name != self.choice, name != self.reference, -(value if isinstance(value, int | float) else float("-inf"))

        tested = [name for name, plan in self.plans.items() if plan.get("finalist") or plan.get("test")]
        return sorted(tested, key=order)

    @cached_property
    def _estimated(self) -> dict[str, dict[str, Any]]:
        return {str(row.get("plan")): row for row in self.rows("estimate")}

    def record(self, plan: str) -> dict[str, Any]:
        """Return the plan itself; of one that left the race early its role, group and title; empty if nothing is known."""
        return dict(self.plans.get(plan, {}).get("plan") or self._estimated.get(plan) or {})

    def title(self, plan: str) -> str:
        """Return the plan's one-line title, or its name."""
        return str(self.record(plan).get("title") or plan)

    def group(self, plan: str) -> str:
        """Return the words by which the plan is grouped; its role if it names none (results of older versions: its family)."""
        record = self.record(plan)
        return str(record.get("group") or record.get("family") or record.get("role") or "")

    def metric(self, task: TaskSpec) -> str:
        """Return the task's primary metric, or the first one that the race wrote if it wrote another."""
        names = [metric for plan in self.plans.values() for metric in (plan.get("test") or {}).get(task.name) or {}]
        wanted = default_metric(task)
        # Older runs may have written other metrics.
        return wanted if wanted in names or not names else names[0]

    def score(self, plan: str, task: TaskSpec) -> dict[str, Any] | None:
        """Return the interval of the primary metric on the test rows; None if there is none."""
        scores = (self.plans.get(plan, {}).get("test") or {}).get(task.name) or {}
        value = scores.get(self.metric(task))
        return dict(value) if value else None

    def comparison(self, plan: str, task: str) -> dict[str, Any]:
        """Return the comparison of a plan with the reference on one task; empty if there is none."""
        for row in self.rows("comparisons"):
            # A comparison that names no reference is with the usual one.
            if row.get("task") == task and row.get("plan") == plan and row.get("reference") in ("", None, self.reference):
                return row
        return {}
