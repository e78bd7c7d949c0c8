"""Rank sources for a user's data: rows, sources, scores, recommendation, report."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftwork.core.components import components_allowed
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.files import cache_folder, check_writable_folder, remove_leftovers, write_json
from graftwork.core.folders import check_folder
from graftwork.core.version import __version__
from graftwork.data.options import DataOptions
from graftwork.evaluation.choice.source_choice import RankedSource, choose_source
from graftwork.evaluation.score_stability import HalfSamples, Standing, standings
from graftwork.training.devices import chosen_device
from graftwork.workflows.rank.judging import JudgedSource, common_columns, judge_source, score_tables
from graftwork.workflows.rank.rank_run import RANK_KIND, RankRun
from graftwork.workflows.rank.rows import RankRows, rank_rows
from graftwork.workflows.rank.score_names import SCORES, chosen_scores
from graftwork.workflows.rank.sets import judge_sets
from graftwork.workflows.rank.sources import RankSource, find_sources, knows_rows
from graftwork.workflows.rank.trust import known_agreement
from graftwork.workflows.runs.begin import DEMO, check_demo, default_out_folder, source_name
from graftwork.workflows.runs.preparation import machine_facts
from graftwork.workflows.runs.run_folder import clean_json

__all__ = ["rank", "row_limit"]

Listener = Callable[[Mapping[str, Any]], None]


def rank(
    source: Any = None,
    *,
    sources: str | Sequence[str] = "all",
    scores: str | Sequence[str] | None = None,
    rows: int | str | None = None,
    draws: int = 30,
    set_size: int | None = None,
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
    seed: int = 0,
    device: str = "auto",
    on_event: Listener | None = None,
    command: str | None = None,
    allow_components: str | Sequence[str] | None = None,
) -> RankRun:
    """Judge which source to start from, without training any.

    Every source computes features of the training rows, once (they are stored and used again); scores of transferability stream over
    these, with intervals from half-samples of the rows. An untrained trunk is ranked along as a control.

    Args:
        source: The data, as :func:`graftwork.fit` takes it; so are the arguments from ``targets`` to ``strict``.
        sources: ``"all"`` (the pretrained backbones that are installed), names (``"minilm"``, ``"timm:resnet18"``,
            ``"efficientnet_lite0@96"``), folders (a model as transformers or timm save it, a run of graftwork, or a folder of such), or
            several of these, separated by commas.
        scores: ``"all"``, or names out of logme, hscore, hscore-plain, leep, nce, transrate, gbc, sfda, ped, ped-sfda, knn, probe; by
            default logme, hscore, leep, knn and probe.
        rows: Most training rows to judge on, at least 10; None or ``"all"`` takes all of them. Memory does not grow with them.
        draws: Half-samples for intervals and stability, at least 10.
        set_size: Also choose a set of so many sources, for an ensemble, of those with classes of their own; at least 2.
        targets: Columns to predict.
        labels: Table with the labels of pictures.
        text: Column with the text; None takes the columns of free text.
        group: Column whose equal values are drawn together.
        time: Column by whose order the rows are divided; only the training rows are judged on.
        categories: Columns whose numbers are names.
        histories: Columns with the ids of earlier items.
        task_kinds: Overrides of inferred kinds.
        metrics: Metrics of tasks; no score depends on them.
        class_weights: Weights of classes; no score depends on them.
        image_size: Side of the encoded pictures.
        image_column: Column that names the pictures.
        ignore: Columns that are not learned from.
        missing: Words that mean a missing cell.
        split_labels: What separates the labels in a cell.
        strict: Refuse pictures that cannot be read.
        out: Folder of the result; ``runs/rank-<suite>-<date>-<time>`` by default. One that holds a ranking is written anew.
        seed: Draws rows, halves and untrained trunks.
        device: ``auto`` (an accelerator if there is one), ``cpu``, ``cuda`` or ``mps``: where features are computed.
            Milliseconds of a row are measured on the CPU all the same.
        on_event: Called with what happens, JSON objects: ``rows``, ``features``, ``source``.
        command: The command that the report shows.
        allow_components: Packages besides graftwork whose components own runs may name.

    Returns:
        The ranking; its folder holds ``report.html`` and ``result.json``.

    Raises:
        GraftworkError: If data or settings cannot be used, or no source could be judged; the message says what to do.
    """
    begin = clock.perf_counter()
    names = chosen_scores(scores)
    limit = row_limit(rows)
    if draws < 10:
        raise ConfigError(f"draws must be at least 10; got {draws!r}.")
    if set_size is not None and set_size < 2:
        raise ConfigError(f"A set has at least 2 sources; got {set_size!r}.")
    # Before the data is read, which may take long.
    if source is None:
        check_demo("rank")
    place = chosen_device(device)
    folder = Path(out) if out is not None else default_out_folder(source_name(source), "rank-")
    check_folder(folder, RANK_KIND)
    options = DataOptions.of_user(
        targets=targets, labels=labels, text=text, group=group, time=time, categories=categories, histories=histories,
        task_kinds=task_kinds, metrics=metrics, class_weights=class_weights, image_size=image_size, image_column=image_column,
        ignore=ignore, missing=missing, split_labels=split_labels, strict=strict,
    )  # fmt: skip
    emit: Listener = on_event or (lambda event: None)
    with components_allowed(allow_components):
        from graftwork.data.reading.ingest import open_data

        suite = open_data(DEMO if source is None else source, options, seed=seed)
        found, passed = find_sources(sources, suite.kinds)
        sample = rank_rows(suite, limit, seed=seed)
        emit(
            {"event": "rows", "rows": len(sample.suite), "tasks": list(sample.targets), "sources": [item.name for item in found]}
        )
        samples = HalfSamples(len(sample.suite), groups=sample.groups, draws=draws, seed=seed)
        knowing = [words for item in found if (words := knows_rows(item, suite))]
        judged = _judge_all(found, sample, names, samples, passed, emit, seed, place, keep_views=set_size is not None)
        sets, set_notes = ([], []) if set_size is None else judge_sets(judged, sample, set_size, samples)
    result = {
        "format": RANK_KIND.format,
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command or f"graftwork.rank({source_name(source)!r}, sources={sources!r})",
        "machine": machine_facts({}),
        "suite": {
            "name": suite.name, "modality": ", ".join(suite.kinds), "rows": len(suite), "judged_rows": len(sample.suite),
            "tasks": [task.to_json() for task in suite.tasks], "notes": list(suite.notes),
        },
        "settings": {"sources": sources if isinstance(sources, str) else list(sources), "scores": names, "draws": draws, "seed": seed, "device": place},
        **_ranked(judged, sample, names, draws, [*knowing, *set_notes]),
        "sets": sets,
        "passed_over": passed,
        "agreement": known_agreement(suite.kinds),
        "timing": {"seconds": clock.perf_counter() - begin},
    }  # fmt: skip
    result = clean_json(result)
    _write(folder, result)
    return RankRun(folder, result)


def row_limit(rows: int | str | None) -> int | None:
    """Return a number of rows from what a user wrote; None for all.

    Raises:
        ConfigError: If it is no number of at least 10.
    """
    if rows is None or rows == "all":
        return None
    try:
        limit = int(rows)
    except ValueError:
        limit = 0
    if limit < 10:
        raise ConfigError(f"--rows is a number of rows, at least 10, or all; got {rows!r}.")
    return limit


def _judge_all(
    sources: Sequence[RankSource],
    rows: RankRows,
    scores: Sequence[str],
    samples: HalfSamples,
    passed: list[dict[str, str]],
    emit: Listener,
    seed: int,
    device: str,
    *,
    keep_views: bool,
) -> list[JudgedSource]:
    """Return the sources that could be judged; the others join ``passed``.

    Raises:
        ConfigError: If none could.
    """
    judged = []
    for item in sources:
        begin = clock.perf_counter()

        def said(name: str, done: int, count: int, begin: float = begin) -> None:
            emit({"event": "features", "source": name, "done": done, "rows": count, "seconds": clock.perf_counter() - begin})

        try:
            one = judge_source(
                item, rows, scores, samples, cache=cache_folder("features"), seed=seed, keep_view=keep_views, device=device,
                on_progress=said,
            )  # fmt: skip
        except (GraftworkError, FloatingPointError) as error:
            passed.append({"name": item.name, "reason": str(error)})
            emit({"event": "passed_over", **passed[-1]})
            continue
        judged.append(one)
        emit({"event": "source", "source": item.name, "seconds": one.seconds})
    if not any(not one.source.is_control for one in judged):
        raise ConfigError("No source could be judged.", [f"{item['name']}: {item['reason']}" for item in passed])
    return judged


def _ranked(
    judged: Sequence[JudgedSource], rows: RankRows, scores: Sequence[str], draws: int, more_notes: Sequence[str]
) -> dict[str, Any]:
    """Return sources, verdict and notes of the result."""
    wanted = [(task, score) for task in rows.targets for score in scores]
    columns = common_columns(judged, rows, scores)
    shown = {score for _, score in wanted if any(score in one.scores[task] for one in judged for task in rows.targets)}
    notes = [*rows.notes, *(note for one in judged for note in one.notes), *more_notes]
    few = [score for score in scores if score in shown and (SCORES[score].most_rows or len(rows.suite)) < len(rows.suite)]
    notes += [
        f"{SCORES[score].title}: of {SCORES[score].most_rows:,} rows, drawn from all {len(rows.suite):,}, because every row is compared "
        "with every other."
        for score in few
    ]
    told = [(one, task, head) for one in judged for task, head in one.classes_of.items()]
    notes += [
        f"LEEP and NCE of {task} for {one.source.name} are of the classes of its own task {head}." for one, task, head in told
    ]
    partial = sorted(shown - {score for _, score in columns}, key=list(SCORES).index)
    if partial:
        notes.append(
            f"{', '.join(SCORES[score].title for score in partial)}: shown, but not part of the combined rank, because not every source "
            "(the untrained trunk is one) has classes of its own."
        )
    if not columns:
        raise ConfigError(
            f"None of the scores {', '.join(scores)} can be taken of all sources. Add --scores logme,knn,probe, which need features alone."
        )
    values, replicates = score_tables(judged, columns)
    found = standings(values, replicates)
    ranked = [
        RankedSource(name=one.source.name, standing=standing, milliseconds=one.ms_per_row, is_control=one.source.is_control)
        for one, standing in zip(judged, found, strict=True)
    ]
    used = {score for _, score in columns}
    tasks = list(dict.fromkeys(task for task, _ in columns))
    own = {task: [index for index, column in enumerate(columns) if column[0] == task] for task in tasks}
    by_task = {task: standings(values[:, part], replicates[:, :, part]) for task, part in own.items()}
    choice = choose_source(ranked, num_tasks=len(tasks), num_scores=len(used), draws=draws, by_task=by_task)
    order = sorted(range(len(judged)), key=lambda index: (found[index].mean_rank, judged[index].ms_per_row))
    return {
        "sources": [_source(judged[index], found[index]) for index in order],
        "columns": [[task, score] for task, score in columns],
        "scores": {score: {"title": SCORES[score].title, "words": SCORES[score].words} for score in scores if score in shown},
        "verdict": {
            "choice": choice.name, "certainty": choice.strength, "cheaper": choice.cheaper, "sentences": list(choice.sentences),
            "warnings": [],
        },
        "notes": notes,
    }  # fmt: skip


def _source(one: JudgedSource, standing: Standing) -> dict[str, Any]:
    return {
        "name": one.source.name,
        "control": one.source.is_control,
        "licence": one.source.licence,
        "parameters": one.parameters,
        "width": one.width,
        "ms_per_row": one.ms_per_row,
        "seconds": one.seconds,
        "has_classes": one.has_classes,
        "classes_of": dict(one.classes_of),
        "standing": {
            "mean_rank": standing.mean_rank, "low": standing.rank_low, "high": standing.rank_high, "first_share": standing.first_share,
        },
        "scores": {
            task: {
                score: {"value": stable.value, "low": stable.interval[0], "high": stable.interval[1]} for score, stable in cells.items()
            }
            for task, cells in one.scores.items()
        },
    }  # fmt: skip


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    from graftwork.core.optional import has
    from graftwork.reporting.rank_report import write_rank_report

    folder.mkdir(parents=True, exist_ok=True)
    check_writable_folder(folder)
    remove_leftovers(folder)
    write_json(folder / "result.json", result)
    if has("jinja2"):
        write_rank_report(result, folder / "report.html")
