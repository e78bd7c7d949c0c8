"""Begin or resume a run: settings from what the user wrote, the folder, and then the session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.core.components import components_allowed
from graftwork.core.records import Plan
from graftwork.data.options import DataOptions
from graftwork.workflows.fit.fit_run import FitRun, load_run
from graftwork.workflows.fit.session import FitSession
from graftwork.workflows.fit.warm_start import warm_settings
from graftwork.workflows.portfolio import check_asked
from graftwork.workflows.runs.begin import (
    Call,
    begun_run,
    default_out_folder,
    is_finished,
    source_name,
    split_plans,
)
from graftwork.workflows.runs.preparation import check_backbone_names
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.same_run import asked_for, resumed_settings
from graftwork.workflows.runs.script_progress import ProgressChoice, check_progress, listening
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["fit"]

Listener = Callable[[dict[str, Any]], None]

_MAY_CHANGE = ("time_limit", "workers", "checkpoint_seconds")
"""Settings that a resumed run may be given anew: they change when it ends, not what it does."""


def fit(
    source: Any = None,
    *,
    targets: str | Sequence[str] | None = None,
    labels: str | None = None,
    text: str | None = None,
    group: str | None = None,
    time: str | None = None,
    categories: str | Sequence[str] | None = None,
    histories: Mapping[str, str] | None = None,
    task_kinds: Mapping[str, str] | None = None,
    metrics: Mapping[str, str] | None = None,
    class_weights: Mapping[str, str] | None = None,
    image_size: int | None = None,
    image_column: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    missing: str | Sequence[str] | None = None,
    split_labels: str | None = None,
    strict: bool = False,
    out: str | Path | None = None,
    time_limit: float | str | None = None,
    preset: str | None = None,
    steps: int | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    folds: int | None = None,
    single: bool | None = None,
    refit: bool = True,
    keep: str | None = None,
    resume: bool = False,
    warm_start: str | Path | None = None,
    plans: str | Sequence[str | Plan] | None = None,
    backbone: str | None = None,
    weights: Mapping[str, float | str] | None = None,
    tolerance: float | str | None = None,
    prefer: str | None = None,
    max_params: float | str | None = None,
    max_latency: float | str | None = None,
    max_memory: float | str | None = None,
    workers: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_event: Listener | None = None,
    progress: ProgressChoice = "auto",
    dry_run: bool = False,
    command: str | None = None,
    checkpoint_seconds: float = 20.0,
    allow_components: str | Sequence[str] | None = None,
) -> FitRun:
    """Find out which way of learning the tasks is best, and train that.

    Args:
        source: A table (path or DataFrame), a folder of pictures, a ``suite.yaml``, a :class:`~graftwork.data.suite.Suite`, or
            the name of an embedded suite; None is the demo suite ``"emoji"``, or, with ``resume``, the run's own data.
        targets: Columns to predict, ``"a,b"`` or a list; see :func:`graftwork.data.reading.ingest.open_suite` for this and the
            next eight.
        labels: Table with the labels of pictures.
        text: Column with the text to learn from; None takes the columns of free text.
        group: Column whose equal values stay on one side of every split; None looks for one, ``"none"`` splits by rows.
        time: Column by whose order the rows are divided: the latest ones are tested on. Not beside ``group``.
        categories: Columns whose numbers are names (ids, codes).
        histories: Columns with the ids of earlier items, and the column of the item shown, ``{"clicked": "item"}``.
        task_kinds: Overrides of inferred kinds, ``{"stars": "regression"}``.
        metrics: By what tasks are judged, in place of the defaults of their kinds, ``{"sold": "log_loss"}``.
        class_weights: Tasks whose classes are to weigh the same together in the loss, ``{"sold": "balanced"}``.
        image_size: Side of the encoded pictures.
        image_column: Column of the labels that names the pictures; of a table, column(s) with the paths of pictures.
        ignore: Columns of a table that are not learned from.
        missing: Words and numbers that mean a missing cell, in all columns, ``"?"`` or ``["?", "-999"]``; kept with the model.
        split_labels: What separates the labels in the cells of targets, such as ``";"`` or ``"_"``; ``"auto"`` looks for it. Such
            targets are sets of labels.
        strict: Refuse pictures that cannot be read; else rows of up to one in a hundred are skipped, with a note.
        out: Run folder; ``runs/<suite>-<date>-<time>`` by default.
        time_limit: ``"6m"``, ``"1h30m"`` or seconds, for everything up to the verdict; None is 5 minutes, or no limit with
            ``steps``.
        preset: How thorough it is where nothing else is said: ``"quick"`` (few plans, one model), ``"good"`` (the default) or
            ``"best"`` (all plans, more seeds, folds and settings; for long time limits).
        steps: Steps of a full training; None takes as many as fit into the time limit. With ``steps`` the run repeats exactly.
        seeds: Seeds of every finalist, at least 1; three or more are needed to assert anything. None is as the preset says.
        seed: Root seed of splits, initialisation and batches; None is 0.
        folds: Compare plans by cross-validation in so many folds; 0 is one split; None is three, five or eight folds (by preset)
            below 2,000 rows.
        single: Hand over one model of one plan for all tasks: no ensemble of plans, no ``mixed`` plan (one plan for each task), and no
            average of models that see different rows. None is as the preset says.
        refit: Let the chosen plan learn from all rows once the verdict is there; the scores are those measured before.
        keep: ``"finalists"`` (the default) keeps a model of every finalist in ``plans/`` of the run folder, as far as time and size allow;
            ``"chosen"`` keeps that of the chosen plan alone.
        resume: Go on with the run in ``out`` (begin it if there is none). Settings that are given must be those of the run, and
            data that is named must be unchanged; the time limit, ``workers`` and ``checkpoint_seconds`` may be others.
        warm_start: Folder of a finished run of the same tasks and columns: with more time on the same data, or on other rows. Settings
            that are not given are those of that run, its winning settings are tried first (taken over if rows and splits are the
            same), and costs are not measured again. No weights, thresholds or choices are taken:
            :mod:`graftwork.workflows.fit.warm_start` says why.
        plans: Names of plans, ``"all"``, ``"none"``, ``"+name"`` (besides the defaults), TOML files, or
            :class:`~graftwork.core.records.Plan` records, which join the others.
        backbone: Pretrained backbone, or several separated by commas: of those that read the same kind of input the run starts from the
            one whose features say most of the targets (LogME, H-score, neighbours and a linear probe on up to 500 training rows, as
            :func:`graftwork.rank` takes them). ``"all"`` means those that are installed; ``"none"`` leaves pretrained plans out.
        weights: Weights of tasks in means over tasks, ``{"sold": 2}``; tasks without one weigh 1.
        tolerance: Percent of the best validation score that a cheaper plan may be worse by; 1 by default.
        prefer: Within the tolerance, ``"score"`` (the default) keeps the best plan and ``"cost"`` takes the cheapest that is not worse.
        max_params: Most parameters to store, ``"5M"``.
        max_latency: Longest time for one row, ``"20ms"``.
        max_memory: Most resident memory while training, ``"2GB"``.
        workers: Processes that train at the same time; None is one for each core, 0 runs in this process.
        device: Where networks are trained: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` (the default), which takes an accelerator where
            there is one. Trees, linear models and the exported graph compute on the CPU. A run stays on the device on which it began.
        precision: Of the forward passes of networks while they train: ``"fp32"``, ``"bf16"``, or ``"auto"`` (the default): bfloat16 for
            pretrained backbones on GPUs on which it is fast, else what a plan says. Predictions are made in float32.
        overrides: Training settings stronger than those of all plans (:class:`graftwork.training.config.TrainConfig`).
        on_event: Called with every event of the run, a JSON object.
        progress: Whether to show how far the run is, on stderr or below the cell: ``"auto"`` where that is a terminal or a
            notebook, True in any case, False never.
        dry_run: Stop after checks, estimates and schedule.
        command: The command that the report shows; made from the arguments by default.
        checkpoint_seconds: Longest work in seconds that a kill may undo.
        allow_components: Packages besides graftwork whose components plans may name; see :mod:`graftwork.core.components`. It
            holds for
            this call alone: a resumed run needs it again.

    Returns:
        The finished run; after a dry run its ``result`` is empty, and ``run.json`` in its folder holds estimates and schedule.

    Raises:
        GraftworkError: If data or settings cannot be used, or nothing could be trained; the message says what to do.
        RunStopped: After Ctrl-C; ``resume=True`` goes on.
    """
    asked = asked_for(locals())  # the first line: nothing but the arguments is there yet
    check_progress(progress)
    names, extra = split_plans(plans)
    is_path = source is None or isinstance(source, str | Path)
    given = FitSettings.of_user(
        source_name(source),
        data=DataOptions.of_user(
            targets=targets,
            labels=str(labels) if labels is not None else None,
            text=text,
            group=group,
            time=time,
            categories=categories,
            histories=histories,
            task_kinds=task_kinds,
            metrics=metrics,
            class_weights=class_weights,
            image_size=image_size,
            image_column=image_column,
            ignore=ignore,
            missing=missing,
            split_labels=split_labels,
            strict=strict,
        ),
        time_limit=time_limit,
        preset=preset,
        steps=steps,
        seeds=seeds,
        seed=0 if seed is None else seed,
        folds=folds,
        single=single,
        refit=refit,
        keep=keep or "finalists",
        plans=names,
        backbone=backbone,
        weights=weights,
        tolerance=tolerance,
        prefer=prefer or "score",
        max_params=max_params,
        max_latency=max_latency,
        max_memory=max_memory,
        workers=workers,
        device=device or "auto",
        precision=precision or "auto",
        overrides=overrides,
        checkpoint_seconds=checkpoint_seconds,
        warm_start=None if warm_start is None else str(warm_start),
    )
    run = RunFolder(Path(out) if out is not None else default_out_folder(given.source))
    if warm_start is not None and not (resume and run.exists()):
        given, stored = warm_settings(warm_start, given, asked)
        extra = [*extra, *stored]
        if out is None:  # named after its data
            run = RunFolder(default_out_folder(given.source))

    def resumed(run: RunFolder) -> FitSettings:
        settings = resumed_settings(run, given, asked, may_change=_MAY_CHANGE, extra=extra)
        # Kept, so that the next resume has this limit as well.
        if settings.time_limit != run.state["settings"].get("time_limit"):
            run.save(settings={**run.state["settings"], "time_limit": settings.time_limit})
        return settings

    call = Call(verb="fit", resume=resume, command=command, extra=extra, source=source)
    with components_allowed(allow_components):
        # Before the folder exists: a mistyped plan leaves nothing behind.
        if not run.exists():
            check_asked(given.plans, extra, given.overrides)
            check_backbone_names(given.backbone)
        with begun_run(run, given, resumed, call) as settings:
            # With a file missing the session goes through again; finished jobs answer from their folders.
            if is_finished(run, "result.json", "report.html", "model.onnx"):
                return load_run(run.path)
            with listening(progress, on_event) as listener:
                run.listen(listener)
                result = FitSession(run, settings, None if is_path else source).go(dry_run=dry_run)
    return FitRun(run.path, result or {})
