"""What a pool tells about its jobs, as events of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.workflows.runs.run_folder import RunFolder

__all__ = ["announce"]


def announce(run: RunFolder, event: str, job: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Turn what the pool tells into an event of the run."""
    plan = job.get("plan", {}).get("name", "") if isinstance(job.get("plan"), Mapping) else ""
    fields = {"job": job["id"], "kind": job.get("kind", ""), "phase": job.get("phase", ""), "plan": plan}
    fields |= {"seed": job.get("seed", 0), "task": job.get("keep_task"), "until": job.get("until", 0)}
    if event == "progress":
        run.emit("progress", log=False, step=details.get("step", 0), **fields)
    elif event == "start":
        run.emit("job-start", **fields)
    else:
        keys = ("status", "message", "steps", "seconds", "validation", "cut")
        run.emit("job-end", **fields, **{key: details[key] for key in keys if key in details})
