"""Begin or resume a run: settings from what the user wrote, the folder, and then the session."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import Plan
from graftwork.workflows.fit.fit_run import FitRun, load_run
from graftwork.workflows.fit.run_folder import RunFolder
from graftwork.workflows.fit.session import FitSession
from graftwork.workflows.fit.settings import FitSettings
from graftwork.workflows.quantities import parse_seconds

__all__ = ["check_verb", "default_out_folder", "fit", "repeat_command", "resumed_settings", "split_plans"]

Listener = Callable[[dict[str, Any]], None]

_MAY_CHANGE = ("time_limit", "workers", "checkpoint_seconds")
"""Settings that a resumed run may be given anew: they change when it ends, not what it does."""

SomeSettings = TypeVar("SomeSettings", bound=FitSettings)


def fit(
    source: Any = None,
    *,
    targets: str | Sequence[str] | None = None,
    labels: str | None = None,
    text: str | None = None,
    group: str | None = None,
    task_kinds: Mapping[str, str] | None = None,
    image_size: int | None = None,
    out: str | Path | None = None,
    time_limit: float | str | None = None,
    steps: int | None = None,
    seeds: int = 3,
    seed: int = 0,
    resume: bool = False,
    plans: str | Sequence[str | Plan] | None = None,
    backbone: str | None = None,
    max_params: float | str | None = None,
    max_latency: float | str | None = None,
    max_memory: float | str | None = None,
    workers: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_event: Listener | None = None,
    dry_run: bool = False,
    command: str | None = None,
    checkpoint_seconds: float = 20.0,
) -> FitRun:
    """Find out which way of learning the tasks is best, and train that.

    Args:
        source: A table (path or DataFrame), a folder of pictures, a ``suite.yaml``, a :class:`~graftwork.data.suite.Suite`, or the
            name of an embedded suite; None is the demo suite ``"emoji"``, or, with ``resume``, the run's own data.
        targets: Columns to predict, ``"a,b"`` or a list; see :func:`graftwork.data.ingest.open_suite` for this and the next five.
        labels: Table with the labels of pictures.
        text: Column with the text to learn from.
        group: Column whose equal values stay on one side of every split.
        task_kinds: Overrides of inferred kinds, ``{"stars": "regression"}``.
        image_size: Side of the encoded pictures.
        out: Run folder; ``runs/<suite>-<date>-<time>`` by default.
        time_limit: ``"6m"``, ``"1h30m"`` or seconds, for everything up to the verdict; None is 5 minutes, or no limit with ``steps``.
        steps: Steps of a full training; None takes as many as fit into the time limit. With ``steps`` the run repeats exactly.
        seeds: Seeds of every finalist, at least 1; three or more are needed to assert anything.
        seed: Root seed of splits, initialisation and batches.
        resume: Go on with the run in ``out`` (begin it if there is none).
        plans: Names of plans, ``"all"``, ``"none"``, ``"+name"`` (besides the defaults), TOML files, or
            :class:`~graftwork.core.records.Plan` records, which join the others.
        backbone: Pretrained backbone; ``"none"`` leaves pretrained plans out.
        max_params: Most parameters to store, ``"5M"``.
        max_latency: Longest time for one row, ``"20ms"``.
        max_memory: Most resident memory while training, ``"2GB"``.
        workers: Processes that train at the same time; None is one for each core, 0 runs in this process.
        overrides: Training settings stronger than those of all plans (:class:`graftwork.training.config.TrainConfig`).
        on_event: Called with every event of the run, a JSON object.
        dry_run: Stop after checks, estimates and schedule.
        command: The command that the report shows; made from the arguments by default.
        checkpoint_seconds: Longest work in seconds that a kill may undo.

    Returns:
        The finished run; after a dry run its ``result`` is empty, and ``run.json`` in its folder holds estimates and schedule.

    Raises:
        GraftworkError: If data or settings cannot be used, or nothing could be trained; the message says what to do.
        RunStopped: After Ctrl-C; ``resume=True`` goes on.
    """
    names, extra = split_plans(plans)
    is_path = source is None or isinstance(source, str | Path)
    given = FitSettings.of_user(
        str(source) if source is not None and is_path else ("emoji" if source is None else "<data>"),
        targets=targets,
        labels=str(labels) if labels is not None else None,
        text=text,
        group=group,
        task_kinds=task_kinds,
        image_size=image_size,
        time_limit=time_limit,
        steps=steps,
        seeds=seeds,
        seed=seed,
        plans=names,
        backbone=backbone,
        max_params=max_params,
        max_latency=max_latency,
        max_memory=max_memory,
        workers=workers,
        overrides=overrides,
        checkpoint_seconds=checkpoint_seconds,
    )
    folder = Path(out) if out is not None else default_out_folder(given.source)
    run = RunFolder(folder)
    run.listen(on_event)
    is_new = not run.exists()
    if not is_new:
        if not resume:
            raise ConfigError(
                f"{folder} already holds a run. Go on with it by --resume (resume=True), or choose another folder with --out."
            )
        check_verb(run, "fit")
        run.open()
        limit = parse_seconds(time_limit) if time_limit is not None else None
        settings = resumed_settings(run, given, is_new=source is not None)
        settings = replace(settings, time_limit=limit if limit is not None else settings.time_limit)
    else:
        settings = given
        run.create(settings.to_json(), command or repeat_command(settings), extra_plans=[plan.to_json() for plan in extra])
    try:
        if run.state["state"] == "done" and all(
            (run.path / name).exists() for name in ("result.json", "report.html", "model.onnx")
        ):
            return load_run(folder)
        data = None if is_path else source
        result = FitSession(run, settings, data).go(dry_run=dry_run)
    except (ConfigError, DataError):
        if is_new and "schedule" not in run.state:  # wrong data or settings: leave no half-made run behind
            run.discard()
        raise
    finally:
        run.release()
    return FitRun(folder, result or {})


def split_plans(plans: str | Sequence[str | Plan] | None) -> tuple[str | list[str] | None, list[Plan]]:
    """Return names and records of what a caller gave as plans."""
    if plans is None or isinstance(plans, str):
        return plans, []
    return [plan for plan in plans if isinstance(plan, str)] or None, [plan for plan in plans if isinstance(plan, Plan)]


def check_verb(run: RunFolder, verb: str) -> None:
    """Refuse to go on with a run of another verb.

    Raises:
        ConfigError: If another verb began the run.
    """
    found = run.read_state().get("verb", "fit")
    if found != verb:
        raise ConfigError(
            f"The run in {run.path} was begun by graftwork {found}. Go on with: graftwork {found} --resume {run.path}"
        )


def resumed_settings(
    run: RunFolder, given: SomeSettings, *, is_new: bool, may_change: Sequence[str] = _MAY_CHANGE
) -> SomeSettings:
    """Return the stored settings with what may change from those given, the time limit apart.

    Args:
        run: The run, opened.
        given: Settings of this call.
        is_new: Whether this call named a source.
        may_change: Names of settings that may differ.

    Raises:
        ConfigError: If the user gave settings that differ from those of the run.
    """
    stored = type(given).from_json(run.state["settings"])
    default = type(given)(source=given.source, time_limit=given.time_limit)
    problems = []
    for key, value in given.to_json().items():
        before = stored.to_json()[key]
        if key in may_change or value == before:
            continue
        if (key == "source" and is_new) or (key != "source" and value != default.to_json()[key]):
            problems.append(f"{key.replace('_', '-')}: the run has {before!r}, you gave {value!r}")
    if problems:
        raise ConfigError(
            f"The run in {run.path} was begun with other settings. Resume it without them, or begin a new run in another folder.",
            problems,
        )
    return replace(
        stored,
        workers=given.workers if given.workers is not None else stored.workers,
        checkpoint_seconds=given.checkpoint_seconds,
    )


def default_out_folder(source: str, prefix: str = "") -> Path:
    """Return ``runs/<prefix><name>-<date>-<time>``, a folder that does not exist yet."""
    name = "data" if source == "<data>" else Path(source).resolve().stem if Path(source).exists() else source
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name).strip("-") or "run"
    base = Path("runs") / f"{prefix}{safe}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def repeat_command(settings: FitSettings, verb: str = "fit") -> str:
    """Return the command line that repeats a run with these settings.

    Example:
        >>> repeat_command(FitSettings(source="table.csv", targets=("a", "b"), steps=200, seeds=2))
        'graftwork fit table.csv --targets a,b --steps 200 --seeds 2'
    """
    if settings.source == "<data>":
        return f"graftwork.{verb}(...) on data handed in from Python"
    default = type(settings)()
    words = ["graftwork", verb, *([settings.source] if settings.source != "emoji" else [])]
    for key, value in settings.to_json().items():
        if key in ("source", "checkpoint_seconds", "workers", "task_kinds", "overrides") or value == default.to_json()[key]:
            continue
        unit = {"time_limit": "s", "max_latency": "ms"}.get(key, "")
        text = ",".join(value) if isinstance(value, list) else f"{value:g}{unit}" if unit else str(value)
        words += [f"--{key.replace('_', '-')}", text]
    words += [word for name, kind in settings.task_kinds.items() for word in ("--task-kind", f"{name}={kind}")]
    words += [word for name, value in settings.overrides.items() for word in ("--set", f"{name}={value}")]
    return shlex.join(words)
