"""``open_suite``: whatever the user has (table, pictures, texts, several data sets, arrays) becomes a suite."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import DataError, FileFormatError
from graftwork.core.files import hash_file, hash_files
from graftwork.data.names import check_names, did_you_mean, short_list
from graftwork.data.options import DataOptions, Targets
from graftwork.data.reading.assemble import RawSuite, assemble_suite
from graftwork.data.reading.class_weighting import with_class_weights
from graftwork.data.reading.frame_hash import hash_frame
from graftwork.data.reading.histories import check_histories
from graftwork.data.reading.infer import TargetRequest, parse_targets
from graftwork.data.reading.missing_words import without_words
from graftwork.data.reading.nested import flatten_records
from graftwork.data.reading.picture_cells import picture_paths
from graftwork.data.reading.readers import check_columns, open_table
from graftwork.data.reading.sniff import TABLE_FORMATS
from graftwork.data.reading.streamed import StreamedTable
from graftwork.data.store import is_stored_suite, load_suite
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["open_data", "open_suite", "refuse_options"]


def open_suite(
    source: str | Path | pd.DataFrame | Suite,
    *,
    targets: Targets | None = None,
    labels: str | Path | pd.DataFrame | None = None,
    text: str | Sequence[str] | None = None,
    group: str | None = None,
    time: str | None = None,
    categories: str | Sequence[str] | None = None,
    histories: Mapping[str, str] | None = None,
    task_kinds: Mapping[str, str] | None = None,
    metrics: Mapping[str, str] | None = None,
    class_weights: Mapping[str, str] | None = None,
    image_size: int | None = None,
    seed: int = 0,
    name: str | None = None,
    image_column: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    missing: str | Sequence[str] | None = None,
    split_labels: str | None = None,
    strict: bool = False,
) -> Suite:
    """Open data as a suite.

    Args:
        source: A table file (.csv, .tsv, .parquet, .jsonl, .json), a folder of pictures, a ``suite.yaml``, a DataFrame, a ready
            Suite, a folder written by ``save_suite``, or the name of an embedded suite such as ``"emoji"``.
        targets: Columns to predict: ``"a,b"``, a list, or a mapping; ``"colour=r+g+b"`` makes one task of several columns.
            Needed for tables and texts; for pictures all columns of the labels file by default.
        labels: Table with one row per picture, for picture folders; a file ``labels.csv`` inside the folder is found by itself,
            and without any the sub-folders name the classes.
        text: Column(s) that hold the text to learn from; ``"title+body"`` joins two. The other columns of the table are learned
            from, too. None takes the columns of free text, if the table is not large and has no pictures.
        group: Column whose equal values (patient, user, site) stay on one side of every split; None looks for one whose rows
            would give targets away, and ``"none"`` splits by rows.
        time: Column of dates or numbers by whose order the rows are divided: models learn from the earliest 60 %, are chosen on
            the next 20 % and tested on the latest. It stays a feature, unless ``ignore`` names it. Not beside ``group``.
        categories: Columns of a table whose numbers are names (ids, codes), ``"user,item"`` or a list: each gets levels, not a
            scale.
        histories: Columns of a table with the ids of earlier items, most recent last, and the column of the item shown, read as
            a category: ``{"clicked": "item"}``. One item column for all; the last 20 ids of a cell count.
        task_kinds: Overrides of the inferred kinds, ``{"stars": "regression"}`` or ``{"size": "ordinal: s < m < l"}``.
        metrics: By what tasks are judged, in place of the defaults of their kinds, ``{"sold": "log_loss"}``.
        class_weights: Tasks whose classes are to weigh the same together in the loss, ``{"sold": "balanced"}``.
        image_size: Side of the encoded pictures in pixels; chosen from the pictures by default.
        seed: Seed of the splits.
        name: Name of the suite; from the source by default.
        image_column: For a picture folder, the column of the labels that names the pictures; by default the one that matches
            them, with file endings before names without. For a table, the column(s) with the paths of pictures, relative to the
            table's folder: they are learned from beside the other columns. An empty cell is a row without a picture.
        ignore: Columns of a table that are not learned from, ``"a,b"`` or a list.
        missing: Words and numbers that mean a missing cell, in all columns, ``"?"`` or ``["?", "-999"]``; kept with the model.
        split_labels: What separates the labels in the cells of targets, such as ``";"`` or ``"_"``; ``"auto"`` looks for it. Such
            targets are sets of labels.
        strict: Refuse pictures that are missing or cannot be read; else rows of up to one in a hundred are skipped, with a note.

    Raises:
        DataError: If the data cannot be used; ``FileFormatError`` if a file cannot be read; ``ConfigError`` for wrong settings.
    """
    options = DataOptions.of_user(
        targets=targets,
        labels=labels,
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
    )
    return open_data(source, options, seed=seed, name=name)


def open_data(
    source: str | Path | pd.DataFrame | Suite, options: DataOptions, *, seed: int = 0, name: str | None = None
) -> Suite:
    """Open data as a suite; :func:`open_suite` with its options in one record.

    Raises:
        DataError: If the data cannot be used; ``FileFormatError`` if a file cannot be read; ``ConfigError`` for wrong settings.
    """
    # Metrics and class weights are about judging and learning: any source takes them, also those that describe their own data.
    suite = _open(source, replace(options, metrics={}, class_weights={}), seed, name)
    suite = _with_metrics(suite, options.metrics) if options.metrics else suite
    return with_class_weights(suite, options.class_weights) if options.class_weights else suite


def _with_metrics(suite: Suite, metrics: Mapping[str, str]) -> Suite:
    """Return the suite with other primary metrics; whether they can judge their tasks is checked before training.

    Raises:
        DataError: If a metric is given for a task that the suite does not have.
    """
    unknown = [name for name in metrics if name not in suite.task_names]
    if unknown:
        raise DataError(
            f"--metric names {unknown[0]!r}, which is no task.{did_you_mean(unknown[0], suite.task_names)} "
            f"The tasks are: {short_list(suite.task_names, 40)}."
        )
    return replace(suite, tasks=tuple(replace(task, metric=metrics.get(task.name, task.metric)) for task in suite.tasks))


def _open(source: str | Path | pd.DataFrame | Suite, options: DataOptions, seed: int, name: str | None) -> Suite:
    if isinstance(source, Suite):
        refuse_options(source.name, options.given(besides=("targets",)))
        return _with_targets(source, options)
    if not isinstance(source, (str, Path)):
        return _open_frame(source, options, seed, name or "table", Path())
    path = Path(source)
    # A folder or file of such a name comes before the embedded suite.
    if not os.path.exists(path):
        from graftwork.data.suites import EMBEDDED, load_embedded

        if str(source) in EMBEDDED:
            refuse_options(str(source), options.given(besides=("targets",)))
            return _with_targets(load_embedded(str(source)), options)
        neighbours = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileFormatError(
            f"{source} does not exist.{did_you_mean(path.name, [*neighbours, *EMBEDDED])} Give a table "
            f"({', '.join(TABLE_FORMATS)}), a folder of pictures, "
            f"a suite.yaml, or one of the embedded suites: {', '.join(EMBEDDED)}."
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        from graftwork.data.reading.suite_build import open_suite_yaml

        refuse_options(path.name, options.given())
        return open_suite_yaml(path, seed=seed, name=name)
    if path.is_dir():
        return _open_folder(path, options, seed, name)
    if options.labels is not None:
        raise DataError(
            f"--labels belongs to a folder of pictures, but {path} is a file. Leave --labels out; a table holds its own targets."
        )
    with ExitStack() as scratch:
        table = open_table(path, scratch)
        return _open_frame(table, options, seed, name or path.stem, path.parent, {path.name: hash_file(path)})


def _open_folder(path: Path, options: DataOptions, seed: int, name: str | None) -> Suite:
    if is_stored_suite(path):
        return _with_targets(load_suite(path), options)
    from graftwork.data.reading.image_folder import open_image_folder

    given = options.given()
    # These options are about columns of a table, which a folder of pictures does not have.
    refuse_options(
        f"{path}, a folder of pictures,", {key: given[key] for key in ("categories", "histories", "ignore") if key in given}
    )
    return open_image_folder(path, options, seed=seed, name=name or path.resolve().name)


def _with_targets(suite: Suite, options: DataOptions) -> Suite:
    if options.targets is None:
        return suite
    return suite.with_tasks(tuple(request.name for request in parse_targets(options.targets, suite.task_names)))


def refuse_options(what: str, given: Mapping[str, Any]) -> None:
    """Refuse options beside a source that decides them itself.

    Args:
        what: The source, as the first words of a message.
        given: What was given, by name.

    Raises:
        DataError: If anything was.
    """
    if given:
        raise DataError(
            f"{what} describes its own data, so {short_list(given)} cannot be set beside it. Leave it out, or change the data's "
            f"description."
        )


def _open_frame(
    frame: pd.DataFrame | StreamedTable,
    options: DataOptions,
    seed: int,
    name: str,
    folder: Path,
    sources: Mapping[str, str] | None = None,
) -> Suite:
    if not hasattr(frame, "columns"):
        raise DataError(f"A suite is opened from a path, a DataFrame, a Suite or a name; got {type(frame).__name__}.")
    check_columns(frame.columns, "the table")
    if isinstance(frame, StreamedTable):
        frame = frame.without_words(options.missing or ())
    else:
        # Rows are counted by position everywhere; a user's index may repeat.
        frame = frame.reset_index(drop=True)
        frame.columns = [str(column) for column in frame.columns]
        frame = without_words(flatten_records(frame), options.missing or ())
    if len(frame) == 0:
        raise DataError(f"The table has columns ({short_list(frame.columns)}) but no rows. Add rows.")
    if options.targets is None:
        raise DataError(
            f"Say which columns to predict: --targets a,b (targets=... in Python). The columns of {name} are: "
            f"{short_list(frame.columns, 40)}."
        )
    texts, requests = options.text_columns(frame.columns), parse_targets(options.targets, list(frame.columns))
    pictures = options.image_columns(frame.columns)
    _check_roles(frame, options, texts, pictures, requests)
    roles = {column: "a target" for request in requests for column in request.columns}
    roles |= {options.group: "the group"} if options.group else {}
    roles |= (
        dict.fromkeys(texts, "the text") | dict.fromkeys(pictures, "a picture") | dict.fromkeys(options.ignore or (), "ignored")
    )
    past = check_histories(
        tuple(options.histories.items()),
        frame.columns,
        roles,
        categories=options.categories or (),
        what="--history",
        where="the table",
    )
    images = {column: picture_paths(frame[column], folder, strict=options.strict) for column in pictures}
    found = {"DataFrame": hash_frame(frame)} if sources is None and not isinstance(frame, StreamedTable) else dict(sources or {})
    for column, files in images.items():
        known = list(dict.fromkeys(path for path in files if path is not None and os.path.isfile(path)))
        found[f"{column} ({len(known)} pictures)"] = hash_files(known)
    return assemble_suite(
        RawSuite(
            name=name,
            frame=frame,
            requests=requests,
            options=replace(options, text=texts or None, histories=past),
            text=texts,
            images=images,
            notes=frame.attrs.get("notes", []),
            sources=found,
            seed=seed,
        )
    )


def _check_roles(
    frame: pd.DataFrame | StreamedTable,
    options: DataOptions,
    texts: Sequence[str],
    pictures: Sequence[str],
    requests: Sequence[TargetRequest],
) -> None:
    """Check that named columns exist, and that none serves twice.

    Raises:
        DataError: If a column does not exist, or is named for two things that exclude each other.
    """
    named = {
        "--text": tuple(texts),
        "--image-column": tuple(pictures),
        "--categories": options.categories or (),
        "--ignore": options.ignore or (),
    }
    for flag, columns in named.items():
        check_names(columns, frame.columns, what=flag, where="the table")
    if options.group in named["--categories"]:
        raise DataError(f"Column {options.group!r} is the group, which no model sees, so it cannot be a category. Name it once.")
    roles: dict[str, list[str]] = {}
    for request in requests:
        for column in request.columns:
            roles.setdefault(column, []).append("--targets")
    for flag, columns in named.items():
        for column in dict.fromkeys(columns):
            roles.setdefault(column, []).append(flag)
    if options.group is not None:
        roles.setdefault(options.group, []).append("--group")
    if options.time is not None and options.group not in (None, "none"):
        raise DataError("Rows are divided by --time or by --group, not by both. Leave one of them out.")
    if options.time is not None and any(options.time in request.columns for request in requests):
        raise DataError(f"Column {options.time!r} is named with --targets and with --time. Name it once.")
    for column, flags in roles.items():
        # A column may be ignored and be the group: it is no feature in either case.
        given = list(dict.fromkeys(flags))
        if len(given) > 1 and given != ["--ignore", "--group"]:
            raise DataError(f"Column {column!r} is named with {' and with '.join(given)}. Name it once.")
