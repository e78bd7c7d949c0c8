"""Begin or resume a tuning: settings from what the user wrote, the folder, and then the session."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.components import components_allowed
from graftwork.core.errors import ConfigError
from graftwork.data.options import DataOptions
from graftwork.workflows.portfolio import check_asked
from graftwork.workflows.runs.begin import Call, begun_run, default_out_folder, is_finished, repeat_command, source_name
from graftwork.workflows.runs.preparation import check_backbone_names
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.same_run import asked_for, resumed_settings
from graftwork.workflows.runs.script_progress import ProgressChoice, check_progress, listening
from graftwork.workflows.tune.methods import AUTO, check_method, find_method, plan_of
from graftwork.workflows.tune.session import TuneSession
from graftwork.workflows.tune.settings import DEFAULT_STEPS, TuneSettings
from graftwork.workflows.tune.tune_run import TuneRun, load_tuning

__all__ = ["tune"]

Listener = Callable[[dict[str, Any]], None]
_MAY_CHANGE = ("workers", "checkpoint_seconds")


def tune(
    backbone: str | None = None,
    source: Any = None,
    *,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    max_trainable: float | str | None = None,
    max_memory: float | str | None = None,
    steps: int | None = None,
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
) -> TuneRun:
    """Tune one pretrained backbone on one suite, and measure what the other methods would have cost.

    Args:
        backbone: Name of a pretrained backbone (see ``graftwork backbones``); None takes the default one for the data.
        source: Whatever :func:`graftwork.fit` takes; None is the demo suite ``"emoji"``, or, with ``resume``, the run's own data.
        method: ``"lora"``, ``"adapter"``, ``"full"`` ... (``graftwork tune --help`` lists them), the dotted path of a tuner, or
            ``"auto"`` (the default): of the methods that fit the limits the one that gets furthest in the same seconds.
        settings: Keywords of the method's tuner, ``{"r": 4}``.
        max_trainable: Most numbers that learn: a count, or a share of the model's as in ``"1%"``.
        max_memory: Most memory of a step besides the model, as in ``"500MB"``: what is held for the backward pass, gradients and
            moments of the optimiser.
        steps: Steps of the training; 500 by default.
        seed: Root seed of splits, initialisation and batches; None is 0.
        out: Run folder; ``runs/tune-<suite>-<date>-<time>`` by default.
        resume: Go on with the run in ``out`` (begin it if there is none); what is finished is not made again.
        workers: 0 runs in this process, anything else in one worker process.
        device: Where it is tuned; see :func:`graftwork.fit`.
        precision: Of the forward passes while it is tuned; see :func:`graftwork.fit`.
        overrides: Training settings stronger than those of the plan, ``{"learning_rate": 1e-3}``.
        on_event: Called with every event of the run, a JSON object.
        progress: Whether to show how far the run is; see :func:`graftwork.fit`.
        command: The command that the report shows; made from the arguments by default.
        checkpoint_seconds: Longest work in seconds that a kill may undo.
        allow_components: Packages besides graftwork whose components may be named.
        data: How the data is read: ``targets``, ``text``, ``labels`` and the others of :func:`graftwork.fit`.

    Returns:
        The finished tuning.

    Raises:
        GraftworkError: If data or settings cannot be used, the method cannot tune the backbone, or breaks a limit; the message
            says what to do.
        RunStopped: After Ctrl-C; ``resume=True`` goes on.
    """
    asked = asked_for({**locals(), **data})  # the first line: nothing but the arguments is there yet
    check_progress(progress)
    unknown = sorted(set(data) - set(DataOptions.names()))
    if unknown:
        raise ConfigError(f"tune takes no {unknown[0]!r}. About the data it takes {', '.join(sorted(DataOptions.names()))}.")
    is_path = source is None or isinstance(source, str | Path)
    given = TuneSettings.of_user(
        source_name(source),
        data=DataOptions.of_user(**data),
        steps=DEFAULT_STEPS if steps is None else steps,
        seeds=1,
        seed=0 if seed is None else seed,
        backbone=backbone,
        max_memory=max_memory,
        workers=workers,
        device=device or "auto",
        precision=precision or "auto",
        overrides=overrides,
        checkpoint_seconds=checkpoint_seconds,
        method=AUTO if method is None else method,
        settings=dict(settings or {}),
        max_trainable="" if max_trainable is None else str(max_trainable),
    )

    def resumed(run: RunFolder) -> TuneSettings:
        return resumed_settings(run, given, asked, may_change=_MAY_CHANGE)

    run = RunFolder(Path(out) if out is not None else default_out_folder(given.source, "tune-"))
    call = Call(verb="tune", resume=resume, command=command or _command(given), source=source)
    with components_allowed(allow_components):
        # Before the folder exists: a mistyped name leaves nothing behind.
        found = find_method(given.method, given.settings) if given.method != AUTO else None
        if not run.exists():
            if found is not None:
                check_method(found, given.settings)
            check_asked(None, [plan_of(found)] if found is not None else [], given.overrides)
            check_backbone_names(given.backbone)
        with begun_run(run, given, resumed, call) as settled:
            if is_finished(run, "result.json", "report.html"):
                return load_tuning(run.path)
            with listening(progress, on_event) as listener:
                run.listen(listener)
                result = TuneSession(run, settled, None if is_path else source).go()
    return TuneRun(run.path, result)


def _command(settings: TuneSettings) -> str:
    """Return the command line that repeats a run with these settings; the backbone stands before the data."""
    plain = repeat_command(dataclasses.replace(settings, backbone=None, settings={}, seeds=TuneSettings().seeds), "tune")
    if settings.source == "<data>":
        return plain
    words = shlex.split(plain)
    words[2:2] = [settings.backbone] if settings.backbone else []
    words += [word for key, value in settings.settings.items() for word in ("--tuner", f"{key}={value}")]
    return shlex.join(words)
