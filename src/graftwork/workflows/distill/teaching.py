"""Ask all teachers, once: their jobs, and whether the cache still has what they said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError, StorageError
from graftwork.core.files import read_json
from graftwork.core.folders import remove_own
from graftwork.core.records import Plan
from graftwork.data.array_cache import stored_arrays
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.jobs.teach import TeachJob

__all__ = ["ask_teachers", "leak_words"]


def ask_teachers(context: RunContext[DistillSettings], alone: Plan) -> list[dict[str, Any]]:
    """Return the result of each teacher's job, in the order of the user.

    Args:
        context: The run.
        alone: The plan of the student, which jobs name.

    Raises:
        ConfigError: If a teacher cannot be asked.
        RunStopped: After Ctrl-C.
    """
    run, settings = context.run, context.settings
    taps = run.state.get("teacher_taps", {})
    jobs = [
        # By number: the name of a teacher may be a long path.
        TeachJob(
            id=f"teacher-{number}",
            phase="teachers",
            plan=alone,
            facts=context.maker.facts,
            teacher=name,
            taps=tuple(taps.get(name, ())),
        )
        for number, name in enumerate(settings.teachers, 1)
    ]
    for job in jobs:
        stored = run.result(job.id)
        is_lost = stored is not None and stored["status"] == "ok" and stored_arrays(stored["entry"]) is None
        # The cache was cleared since: asked again, the answers come to the same place.
        if is_lost and not remove_own(run.path, f"jobs/{job.id}"):
            raise StorageError(f"Cannot remove {run.job(job.id)}, which has to be made again. Move it away and resume.")
    run.emit("phase", phase="teachers", jobs=len(jobs), plans=list(settings.teachers))
    answers = context.run_jobs(jobs)
    context.pause_point()
    found = []
    for job in jobs:
        answer = answers.get(job.id, {"status": "stopped"})
        if answer["status"] != "ok":
            late = "the time limit came before it had answered for all rows; give more time, and resume"
            raise ConfigError(f"The teacher {job.teacher} cannot teach: {answer.get('message') or late}")
        found.append(dict(answer))
    return found


def leak_words(context: RunContext[DistillSettings], teacher: str) -> str:
    """Say it if a run of graftwork has learned from rows that judge the student here; empty if not, or nothing is known.

    Args:
        context: The run.
        teacher: As the user named it.
    """
    folder = Path(teacher)
    folder = folder if (folder / "result.json").exists() else folder.parent
    try:
        lineage, result = read_json(folder / "model" / "lineage.json"), read_json(folder / "result.json")
        inputs, settings = dict(lineage["inputs"]), dict(result["settings"])
        rows = str((result.get("model") or {}).get("rows") or "training")
    except (GraftworkError, FileFormatError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return ""
    suite = context.suite
    same = set(inputs.values()) & {*suite.sources.values(), suite.fingerprint()}
    if not same:
        return ""
    if rows == "training" and int(settings.get("seed", 0)) == context.settings.seed:
        return ""
    what = (
        "all rows of this data, test rows included" if rows == "all" else "other training rows of this data, test rows among them"
    )
    return (
        f"The teacher {teacher} learned from {what}: its own scores here are too high, and the distilled student's may be, too. "
        f"For clean numbers train the teacher with --no-refit and the same --seed."
    )
