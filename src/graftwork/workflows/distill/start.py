"""Begin or resume a distillation: settings from what the user wrote, the folder, and then the session."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.core.components import components_allowed
from graftwork.core.errors import ConfigError
from graftwork.data.options import DataOptions
from graftwork.data.suite import Suite
from graftwork.workflows.distill.bare_data import NO_TARGETS
from graftwork.workflows.distill.distill_run import DistillRun, load_distillation
from graftwork.workflows.distill.session import DistillSession
from graftwork.workflows.distill.settings import DEFAULT_STEPS, DistillSettings
from graftwork.workflows.distill.ways import AUTO
from graftwork.workflows.portfolio import check_asked
from graftwork.workflows.runs.begin import Call, begun_run, default_out_folder, is_finished, repeat_command, source_name
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.same_run import asked_for, resumed_settings
from graftwork.workflows.runs.script_progress import ProgressChoice, check_progress, listening
from graftwork.workflows.teachers.naming import check_teacher

__all__ = ["distill"]

Listener = Callable[[dict[str, Any]], None]
_MAY_CHANGE = ("workers", "checkpoint_seconds")


def distill(
    source: Any = None,
    *,
    teachers: str | Sequence[str] | None = None,
    student: str | None = None,
    ways: str | Sequence[str] | None = None,
    weighting: str | Sequence[float] | None = None,
    temperature: float | None = None,
    strength: float | None = None,
    tap: str | Sequence[str] | None = None,
    steps: int | None = None,
    time_limit: float | str | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_event: Listener | None = None,
    progress: ProgressChoice = "auto",
    command: str | None = None,
    checkpoint_seconds: float = 20.0,
    allow_components: Any = None,
    **data: Any,
) -> DistillRun:
    """Teach a student what teachers know, and measure it against the same student alone on rows that no choice saw.

    Args:
        source: Whatever :func:`graftwork.fit` takes; None is the demo suite ``"emoji"``, or, with ``resume``, the run's own data.
            Rows without labels are taught as well. With ``targets="none"`` (or a suite without tasks) there are no labels at all: the
            student learns what the teachers answer (tasks of runs, columns of predictions, else their own classes or features), and
            the result says how near it came to each of them.
        teachers: One or several: folders of runs or models, names (see ``graftwork backbones``), or files with features or
            predictions of the same rows.
        student: ``"scratch"`` (the library's own small trunk, the default), the name of a backbone, or the dotted path of one.
        ways: ``"logits"``, ``"features"``, ``"attention"``, ``"relations"``, ``"classes"``, several of them, or ``"auto"``:
            outputs where a teacher answers a task of the data, else its own classes and its features.
        weighting: ``"relevance"`` (default: by how alike a teacher's features and the labels are), ``"equal"``, or a number a
            teacher.
        temperature: Of softened outputs, above 0; 2 by default.
        strength: Factor on all terms of distillation, above 0; 1 by default.
        tap: ``"STUDENT=TEACHER"``: paths of the modules whose outputs are compared, in place of the features at the end; several
            such pairs are compared at once, and ``"attention:STUDENT=TEACHER"`` is compared in that way alone.
        steps: Steps of each training; 1000 by default.
        time_limit: Time for everything in place of ``steps``, as in ``"10m"``: both students make the same steps.
        seeds: Trainings of each student; 3 by default. With one nothing is asserted.
        seed: Root seed of splits, initialisation and batches; None is 0.
        out: Run folder; ``runs/distill-<suite>-<date>-<time>`` by default.
        resume: Go on with the run in ``out`` (begin it if there is none); what is finished is not made again.
        workers: Processes that train at the same time; 0 runs in this process.
        device: Where networks are trained; see :func:`graftwork.fit`.
        precision: Of the forward passes while they train; see :func:`graftwork.fit`.
        overrides: Training settings stronger than those of the plan, ``{"learning_rate": 1e-3}``.
        on_event: Called with every event of the run, a JSON object.
        progress: Whether to show how far the run is; see :func:`graftwork.fit`.
        command: The command that the report shows; made from the arguments by default.
        checkpoint_seconds: Longest work in seconds that a kill may undo.
        allow_components: Packages besides graftwork whose components may be named.
        data: How the data is read: ``targets``, ``text``, ``labels`` and the others of :func:`graftwork.fit`.

    Returns:
        The finished distillation.

    Raises:
        GraftworkError: If data, settings or a teacher cannot be used; the message says what to do.
        RunStopped: After Ctrl-C; ``resume=True`` goes on.
    """
    # The first line: nothing but the arguments is there yet.
    asked = asked_for({**locals(), **data, "taps": tap or None, "teachers": teachers or None})
    check_progress(progress)
    unknown = sorted(set(data) - set(DataOptions.names()))
    if unknown:
        raise ConfigError(f"distill takes no {unknown[0]!r}. About the data it takes {', '.join(sorted(DataOptions.names()))}.")
    is_path = source is None or isinstance(source, str | Path)
    given = DistillSettings.of_user(
        source_name(source),
        data=DataOptions.of_user(**data),
        steps=DEFAULT_STEPS if steps is None and time_limit is None else steps,
        time_limit=time_limit,
        seeds=3 if seeds is None else seeds,
        seed=0 if seed is None else seed,
        workers=workers,
        device=device or "auto",
        precision=precision or "auto",
        overrides=overrides,
        checkpoint_seconds=checkpoint_seconds,
        teachers=_words(teachers) or (),
        student=student or "scratch",
        ways=_words(ways, split=True) or (AUTO,),
        weighting=_weighting(weighting),
        temperature=2.0 if temperature is None else float(temperature),
        strength=1.0 if strength is None else float(strength),
        taps=_words(tap) or (),
    )

    def resumed(run: RunFolder) -> DistillSettings:
        return resumed_settings(run, given, asked, may_change=_MAY_CHANGE)

    run = RunFolder(Path(out) if out is not None else default_out_folder(given.source, "distill-"))
    call = Call(verb="distill", resume=resume, command=command or _command(given), source=source)
    with components_allowed(allow_components):
        if not given.teachers and not (resume and run.exists()):
            raise ConfigError(
                "distill needs at least one teacher: a run folder, a model's folder, a name as in graftwork backbones, or a "
                "file with predictions or features. Give it with --teacher (teachers=... in Python). For example: graftwork distill "
                "reviews.csv --text body --targets stars --teacher minilm"
            )
        # Before the folder exists: a mistyped teacher leaves nothing behind.
        for name in given.teachers:
            check_teacher(name)
        if not run.exists():
            check_asked(None, (), given.overrides)
        with begun_run(run, given, resumed, call) as settled:
            if is_finished(run, "result.json", "report.html"):
                return load_distillation(run.path)
            with listening(progress, on_event) as listener:
                run.listen(listener)
                if _may_be_unlabelled(source, settled):
                    from graftwork.workflows.distill.unlabelled import store_pseudo_labels

                    store_pseudo_labels(run, settled, source)
                result = DistillSession(run, settled, None if is_path else source).go()
    return DistillRun(run.path, result)


def _may_be_unlabelled(source: Any, settings: DistillSettings) -> bool:
    """Return whether the data may have no labels at all; nothing is opened."""
    return settings.data.targets == (NO_TARGETS,) or (isinstance(source, Suite) and not source.tasks)


def _words(value: str | Sequence[str] | None, *, split: bool = False) -> tuple[str, ...] | None:
    if value is None:
        return None
    parts = (value.split(",") if split else [value]) if isinstance(value, str) else value
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _weighting(value: str | Sequence[float] | None) -> str:
    if value is None:
        return "relevance"
    return value if isinstance(value, str) else ",".join(f"{number:g}" for number in value)


def _command(settings: DistillSettings) -> str:
    """Return the command line that repeats a run with these settings."""
    default = DistillSettings()
    own = {field.name: getattr(default, field.name) for field in dataclasses.fields(default) if field.name in _OWN}
    plain = repeat_command(dataclasses.replace(settings, **own), "distill")
    if settings.source == "<data>":
        return plain
    words = shlex.split(plain)
    words += ["--teacher", *settings.teachers] if settings.teachers else []
    words += ["--student", settings.student]
    if settings.ways != default.ways:
        words += ["--way", ",".join(settings.ways)]
    for key, flag in (("weighting", "--weighting"), ("temperature", "--temperature"), ("strength", "--strength")):
        if getattr(settings, key) != getattr(default, key):
            words += [flag, str(getattr(settings, key))]
    words += [word for tap in settings.taps for word in ("--tap", tap)]
    return shlex.join(words)


_OWN = ("teachers", "student", "ways", "weighting", "temperature", "strength", "taps")
