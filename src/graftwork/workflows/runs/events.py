"""What a pool tells about its jobs, as events of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["announce"]


def announce(run: RunFolder, event: str, job: Job, details: Mapping[str, Any]) -> None:
    """Turn what the pool tells into an event of the run."""
    fields: dict[str, Any] = {"job": job.id, "kind": job.kind, "phase": job.phase, "plan": job.plan.name}
    fields |= {"seed": job.seed, "task": job.kept_task, "until": job.until}
    if event == "progress":
        # Several a second: listeners see them, the log would drown in them.
        run.emit("progress", log=False, step=details.get("step", 0), **fields)
    elif event == "start":
        run.emit("job-start", **fields)
    else:
        keys = ("status", "message", "steps", "seconds", "validation", "cut")
        run.emit("job-end", **fields, **{key: details[key] for key in keys if key in details})
