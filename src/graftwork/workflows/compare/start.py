"""Begin or resume a comparison: settings from what the user wrote, the folder, and then the session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.core.components import components_allowed
from graftwork.core.records import Plan
from graftwork.data.options import DataOptions
from graftwork.workflows.compare.compare_run import CompareRun, load_comparison
from graftwork.workflows.compare.session import CompareSession
from graftwork.workflows.compare.settings import DEFAULT_STEPS, CompareSettings
from graftwork.workflows.portfolio import check_asked
from graftwork.workflows.runs.auto_groups import MAX_GROUPS
from graftwork.workflows.runs.begin import (
    Call,
    begun_run,
    default_out_folder,
    is_finished,
    source_name,
    split_plans,
)
from graftwork.workflows.runs.pool import Engine
from graftwork.workflows.runs.preparation import check_backbone_names
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.same_run import asked_for, resumed_settings
from graftwork.workflows.runs.script_progress import ProgressChoice, check_progress, listening

__all__ = ["compare"]

Listener = Callable[[dict[str, Any]], None]

_MAY_CHANGE = ("workers", "checkpoint_seconds", "engine")
"""Settings that a resumed comparison may be given anew: they change how it is run, not what."""


def compare(
    source: Any = None,
    *,
    plans: str | Sequence[str | Plan] | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    time_limit: float | str | None = None,
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
    resume: bool = False,
    engine: Engine | None = None,
    workers: int | None = None,
    backbone: str | None = None,
    max_groups: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    on_event: Listener | None = None,
    progress: ProgressChoice = "auto",
    command: str | None = None,
    checkpoint_seconds: float = 20.0,
    allow_components: str | Sequence[str] | None = None,
) -> CompareRun:
    """Train several plans on one suite with one budget and compare them on its test rows.

    Args:
        source: Whatever :func:`graftwork.fit` takes; None is the demo suite ``"emoji"``, or, with ``resume``, the run's own data.
        plans: Names of plans, ``"all"``, ``"+name"`` (besides the defaults), TOML files, or
            :class:`~graftwork.core.records.Plan` records;
            None takes the defaults. Separate models are always in: everything is measured against them.
        seeds: Seeds of every plan, at least 1; None is 3, of which fewer assert nothing.
        steps: Steps of each training; 500 if no ``time_limit`` is given either. With steps the comparison repeats exactly.
        time_limit: ``"30s"`` or seconds for each training, in place of ``steps``.
        targets: Columns to predict; see :func:`graftwork.fit` for this and the next eight.
        labels: Table with the labels of pictures.
        text: Column with the text to learn from; None takes the columns of free text.
        group: Column whose equal values stay on one side of every split; None looks for one, ``"none"`` splits by rows.
        time: Column by whose order the rows are divided: the latest ones are tested on. Not beside ``group``.
        categories: Columns whose numbers are names (ids, codes).
        histories: Columns with the ids of earlier items, and the column of the item shown, ``{"clicked": "item"}``.
        task_kinds: Overrides of inferred kinds.
        metrics: By what tasks are judged, in place of the defaults of their kinds, ``{"sold": "log_loss"}``.
        class_weights: Tasks whose classes are to weigh the same together in the loss, ``{"sold": "balanced"}``.
        image_size: Side of the encoded pictures.
        image_column: Column of the labels that names the pictures; of a table, column(s) with the paths of pictures.
        ignore: Columns of a table that are not learned from.
        missing: Words and numbers that mean a missing cell, in all columns, ``"?"`` or ``["?", "-999"]``; kept with the model.
        split_labels: What separates the labels in the cells of targets, such as ``";"`` or ``"_"``; ``"auto"`` looks for it. Such
            targets are sets of labels.
        strict: Refuse pictures that cannot be read; else rows of up to one in a hundred are skipped, with a note.
        out: Run folder; ``runs/compare-<suite>-<date>-<time>`` by default.
        resume: Go on with the run in ``out`` (begin it if there is none); finished trainings are not made again. Settings that are
            given must be those of the run, and data that is named must be unchanged; ``workers``, ``engine`` and
            ``checkpoint_seconds`` may be others.
        engine: ``"local"`` (the default): processes on this machine; ``"ray"``: the Ray cluster that ``RAY_ADDRESS`` names, or one on this
            machine.
        workers: Trainings at the same time; None is one for each core (of the cluster), 0 runs in this process.
        backbone: Pretrained backbone; ``"none"`` leaves pretrained plans out.
        max_groups: Most groups of tasks that the report suggests; None is 3.
        seed: Root seed of splits, initialisation and batches; None is 0.
        device: Where networks are trained: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"`` (the default), which takes an accelerator where
            there is one. Trees, linear models and the exported graph compute on the CPU. A run stays on the device on which it began.
        precision: Of the forward passes of networks while they train: ``"fp32"``, ``"bf16"``, or ``"auto"`` (the default): bfloat16 for
            pretrained backbones on GPUs on which it is fast, else what a plan says. Predictions are made in float32.
        overrides: Training settings stronger than those of all plans.
        on_event: Called with every event of the run, a JSON object.
        progress: Whether to show how far the run is, on stderr or below the cell: ``"auto"`` where that is a terminal or a
            notebook, True in any case, False never.
        command: The command that the report shows; made from the arguments by default.
        checkpoint_seconds: Longest work in seconds that a kill may undo.
        allow_components: Packages besides graftwork whose components plans may name; see :mod:`graftwork.core.components`. It
            holds for
            this call alone: a resumed run needs it again.

    Returns:
        The finished comparison.

    Raises:
        GraftworkError: If data or settings cannot be used, or nothing could be trained; the message says what to do.
        RunStopped: After Ctrl-C; ``resume=True`` goes on.
    """
    asked = asked_for(locals())  # the first line: nothing but the arguments is there yet
    check_progress(progress)
    names, extra = split_plans(plans)
    is_path = source is None or isinstance(source, str | Path)
    unset = steps is None and time_limit is None
    given = CompareSettings.of_user(
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
        steps=DEFAULT_STEPS if unset else steps,
        seeds=3 if seeds is None else seeds,
        seed=0 if seed is None else seed,
        plans=names,
        backbone=backbone,
        workers=workers,
        device=device or "auto",
        precision=precision or "auto",
        overrides=overrides,
        checkpoint_seconds=checkpoint_seconds,
        engine=engine or "local",
        max_groups=MAX_GROUPS if max_groups is None else max_groups,
    )

    def resumed(run: RunFolder) -> CompareSettings:
        return resumed_settings(run, given, asked, may_change=_MAY_CHANGE, extra=extra)

    run = RunFolder(Path(out) if out is not None else default_out_folder(given.source, "compare-"))
    call = Call(verb="compare", resume=resume, command=command, extra=extra, source=source)
    with components_allowed(allow_components):
        # Before the folder exists: a mistyped plan leaves nothing behind.
        if not run.exists():
            check_asked(given.plans, extra, given.overrides)
            check_backbone_names(given.backbone)
        with begun_run(run, given, resumed, call) as settings:
            if is_finished(run, "result.json", "report.html"):
                return load_comparison(run.path)
            with listening(progress, on_event) as listener:
                run.listen(listener)
                result = CompareSession(run, settings, None if is_path else source).go()
    return CompareRun(run.path, result)
