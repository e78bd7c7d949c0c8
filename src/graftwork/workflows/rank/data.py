"""``rank --data``: which classes of a source data set are worth keeping for a target, or which source tasks to label next."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftwork.core.components import components_allowed
from graftwork.core.errors import ConfigError
from graftwork.core.files import check_writable_folder, remove_leftovers, write_json
from graftwork.core.folders import FolderKind, check_folder
from graftwork.core.optional import has
from graftwork.core.version import __version__
from graftwork.data.options import DataOptions
from graftwork.data.suite import Suite
from graftwork.training.devices import chosen_device
from graftwork.workflows.rank.rows import rank_rows, training_sample
from graftwork.workflows.rank.source_classes import judge_classes
from graftwork.workflows.rank.source_classes import plain_result as classes_result
from graftwork.workflows.rank.source_features import chosen_source
from graftwork.workflows.rank.source_tasks import judge_tasks
from graftwork.workflows.rank.source_tasks import plain_result as tasks_result
from graftwork.workflows.runs.begin import DEMO, check_demo, default_out_folder, source_name
from graftwork.workflows.runs.preparation import machine_facts
from graftwork.workflows.runs.run_folder import clean_json

__all__ = ["DATA_KIND", "TASKS", "DataRun", "rank_data"]

DATA_KIND = FolderKind(marker="result.json", format="graftwork-rank-data-1", noun="a ranking of data by graftwork")
TASKS = "tasks"
"""What ``data`` is when the source tasks are those of the target's own suite."""


@dataclass(frozen=True, repr=False)
class DataRun:
    """A finished ranking of data."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The recommendation."""
        return tuple(self.result["verdict"]["sentences"])

    @property
    def where(self) -> str:
        """Where the report is."""
        return f"Report: {self.folder / 'report.html'}"

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.source_data_report import format_data_summary

        return format_data_summary(self.result, width)

    def __repr__(self) -> str:
        return f"DataRun({str(self.folder)!r}, {self.result['question']!r})"


def rank_data(
    source: Any = None,
    *,
    data: Any,
    data_labels: str | None = None,
    target_task: str | None = None,
    budget: int = 1000,
    sources: str = "all",
    rows: int | None = 2000,
    draws: int = 30,
    options: DataOptions | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    command: str | None = None,
    allow_components: str | None = None,
) -> DataRun:
    """Judge source data for a target, without training on either.

    Args:
        source: The target's data, as :func:`graftwork.rank` takes it.
        data: The source data set, likewise (its classes are ranked by votes of the target's rows); or ``"tasks"``: the other tasks of the
            target's own data are the sources, and are ranked by how relevant they are to ``target_task``.
        data_labels: Table with the labels of the source's pictures.
        target_task: The task that counts, with ``data="tasks"``; the first one by default.
        budget: Labels to share out among source tasks, at least 1.
        sources: Whose features are looked at: a name or folder as in :func:`graftwork.rank`; by default the first pretrained backbone
            that is installed, else an untrained trunk.
        rows: Most training rows of each data set; None takes all.
        draws: Half-samples, at least 10.
        options: How the target's data is read.
        out: Folder of the result.
        seed: Draws rows and halves.
        device: ``auto`` (an accelerator if there is one), ``cpu``, ``cuda`` or ``mps``: where features are computed.
        command: The command that the report shows.
        allow_components: Packages besides graftwork whose components own runs may name.

    Returns:
        The ranking; its folder holds ``report.html`` and ``result.json``.

    Raises:
        GraftworkError: If data or settings cannot be used; the message says what to do.
    """
    begin = clock.perf_counter()
    if draws < 10 or budget < 1:
        raise ConfigError(f"draws must be at least 10 and the budget at least 1; got {draws!r} and {budget!r}.")
    # Before the data is read, which may take long.
    if source is None:
        check_demo("rank")
    place = chosen_device(device)
    # A table of pandas would be compared cell by cell.
    is_tasks = isinstance(data, str) and data == TASKS
    if is_tasks and data_labels is not None:
        raise ConfigError("--data tasks takes the tasks of the target's own data; leave --data-labels out.")
    if not is_tasks and target_task is not None:
        raise ConfigError("--target-task is about source tasks; use it with --data tasks.")
    folder = Path(out) if out is not None else default_out_folder(source_name(source), "rank-data-")
    check_folder(folder, DATA_KIND)
    with components_allowed(allow_components):
        from graftwork.data.reading.ingest import open_data

        suite = open_data(DEMO if source is None else source, options or DataOptions(), seed=seed)
        backbone = chosen_source(sources, suite.kinds)
        notes: list[str] = []
        if is_tasks:
            sample = rank_rows(suite, rows, seed=seed)
            name = target_task or next(iter(sample.targets))
            found = tasks_result(judge_tasks(sample, name, backbone, draws=draws, seed=seed, device=place), budget)
            notes += sample.notes
            judged, other = len(sample.suite), suite.name
        else:
            other_suite = open_data(data, DataOptions.of_user(labels=data_labels), seed=seed)
            _check_kinds(suite, other_suite)
            target, kept = training_sample(suite, rows, seed=seed), training_sample(other_suite, rows, seed=seed)
            found = classes_result(judge_classes(target, kept, backbone, draws=draws, seed=seed, device=place), len(target))
            judged, other = len(target), other_suite.name
            if found["mapping"] == "features":
                notes.append(f"{other} has no task of classes; groups of its features stand in.")
            if len(kept) < len(other_suite.splits["train"]):
                notes.append(f"Votes are of {len(target):,} target rows; the surrogate was fitted on {len(kept):,} source rows.")
    result = clean_json(
        {
            "format": DATA_KIND.format,
            "version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command or f"graftwork.workflows.rank.rank_data({source_name(source)!r}, data={source_name(data)!r})",
            "machine": machine_facts({}),
            "suite": {
                "name": suite.name, "modality": ", ".join(suite.kinds), "rows": len(suite), "judged_rows": judged,
                "tasks": [task.to_json() for task in suite.tasks], "notes": list(suite.notes),
            },
            "source": other,
            "features": backbone.name,
            "settings": {"draws": draws, "seed": seed, "device": place},
            **found,
            "notes": notes,
            "timing": {"seconds": clock.perf_counter() - begin},
        }
    )  # fmt: skip
    _write(folder, result)
    return DataRun(folder, result)


def _check_kinds(target: Suite, source: Suite) -> None:
    shared = set(target.kinds) & set(source.kinds) & {"image", "text"}
    if not shared:
        raise ConfigError(
            f"Classes of a source are voted for by rows that the same backbone reads: pictures or texts on both sides; got "
            f"{', '.join(target.kinds)} and {', '.join(source.kinds)}."
        )


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    from graftwork.reporting.source_data_report import write_data_report

    folder.mkdir(parents=True, exist_ok=True)
    check_writable_folder(folder)
    remove_leftovers(folder)
    write_json(folder / "result.json", result)
    if has("jinja2"):
        write_data_report(result, folder / "report.html")
