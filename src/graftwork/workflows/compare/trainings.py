"""All trainings of a comparison in one queue: every plan, every seed, and one short run that measures affinities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.horizons import shared_plans
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs.train import TrainJob

__all__ = ["Trainings", "run_trainings"]


@dataclass(slots=True)
class Trainings:
    """What came of the queue."""

    finals: dict[str, dict[int, TrainJob]] = field(default_factory=dict)
    """``{plan: {seed: finished job}}``."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """``plan``, ``seed``, ``status``, ``message`` and ``steps`` of trainings that did not end well."""
    affinity: dict[str, Any] | None = None
    gradients: dict[str, Any] | None = None


def run_trainings(context: RunContext[Any], *, with_affinity: bool) -> Trainings:
    """Train; finished trainings answer from their folders.

    Args:
        context: The run, with its plans in the order of the queue, and its schedule.
        with_affinity: Whether to measure affinities with the first plan that shares a model; nothing is measured without one.

    Returns:
        What ended; after Ctrl-C only a part of it.
    """
    plans, schedule, maker = context.plans, context.schedule, context.maker
    names = [name for name in plans if name in schedule.horizons]
    # One seed of everything comes before the next, so that a comparison that is stopped has something of every plan.
    jobs = [(name, seed, maker.final(name, seed)) for seed in schedule.seeds for name in names]
    queue: list[Job] = [job for _, _, job in jobs]
    probed = next((plan.name for plan in shared_plans(plans[name] for name in names)), None)
    probe = maker.affinity(probed) if with_affinity and probed and len(context.suite.tasks) > 1 else None
    # After one seed of everything: the ranking matters more than the affinities if the comparison is stopped.
    if probe is not None:
        queue.insert(len(names), probe)
    context.run.emit("phase", phase="trainings", jobs=len(queue), plans=names)
    answers = context.run_jobs(queue)
    found = Trainings()
    for name, seed, job in jobs:
        answer = answers.get(job.id)
        # Stopped by the user: not a failure, a resume goes on with it.
        if answer is None or answer["status"] == "stopped":
            continue
        if answer["status"] == "ok":
            found.finals.setdefault(name, {})[seed] = job
        else:
            kept = {key: answer.get(key) for key in ("status", "message")}
            found.failures.append({"plan": name, "seed": seed, "steps": answer.get("steps") or 0, **kept})
    if probe is not None:
        answer = answers.get(probe.id, {})
        found.affinity, found.gradients = answer.get("affinity"), answer.get("gradients")
    return found
