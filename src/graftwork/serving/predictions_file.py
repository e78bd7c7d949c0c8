"""The file that ``graftwork predict`` writes: where it may go, and which older file it may replace."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from graftwork.core.errors import ConfigError
from graftwork.core.folders import check_output_file
from graftwork.core.records import TaskSpec
from graftwork.data.output_columns import ROW_NAMES
from graftwork.serving.kept_plans import PLANS_FOLDER

__all__ = ["check_predictions_file", "check_replaced_predictions"]

_PARTS_OF_A_RUN = ("model", PLANS_FOLDER, "suite", "jobs", "logs", "log.jsonl")
"""What a run keeps under names that predictions could have."""
_EFFECTS = frozenset(("task", "prediction", "column", "cell", "effect"))
"""Columns of ``--explain``, besides the one that names the rows."""
# A longer first line is surely none of predictions, and is not read to find out.
_LONGEST_LINE = 2**24


def check_predictions_file(out: str | Path, run_folder: str | Path, source: str | Path) -> None:
    """Refuse to write predictions over their input or over files of the run.

    Raises:
        ConfigError: If ``out`` is a folder, the file ``source`` (however spelled or linked), or lies among the run's own files.
    """
    out = check_output_file(out, [source])
    run = Path(run_folder).resolve()
    for path in (out.resolve(), out.parent.resolve() / out.name):  # where a link leads, and the link itself
        if path.is_relative_to(run) and path.relative_to(run).parts[:1] in [(part,) for part in _PARTS_OF_A_RUN]:
            raise ConfigError(
                f"{out} lies among the files of the run itself. Name a file elsewhere, for example "
                f"{run_folder}/predictions{out.suffix}."
            )


def check_replaced_predictions(out: str | Path, tasks: Sequence[TaskSpec]) -> None:
    """Refuse to write predictions over a file that holds something else; those of before may be replaced.

    Args:
        out: The file to write, ``.csv``, ``.parquet`` or ``.jsonl``.
        tasks: The tasks of the run, by whose columns predictions of before are known.

    Raises:
        ConfigError: If there is such a file.
    """
    check_output_file(out, (), replaces=lambda path: _are_predictions(_columns(path), tasks))


def _are_predictions(columns: Sequence[str], tasks: Sequence[TaskSpec]) -> bool:
    """Return whether a table has the columns of predictions: the rows, and nothing but what tasks answer.

    A table of labels has the same tasks; where a task has classes, predictions have their probabilities besides.
    """
    rows = [name for name in columns if name.startswith(ROW_NAMES)]
    if {*columns} >= _EFFECTS:
        return len(columns) == len(_EFFECTS) + 1 and len(rows) == 1
    answers = [name for name in columns if any(name.startswith((f"{task.name}_", f"{task.name}[")) for task in tasks)]
    names = [task.name for task in tasks if task.name in columns]
    alone = [task.name for task in tasks if task.name in columns and task.classes and f"{task.name}_probability" not in columns]
    left = {*columns} - {*answers} - {*names}
    return bool(answers or names) and not alone and len(left) == 1 and left <= {*rows}


def _columns(path: Path) -> list[str]:
    """Return the names of a table's columns; none if it cannot be read as one."""
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow.parquet import read_schema

            schema = read_schema(path)
            # A range of row numbers is no column, but stands in the metadata.
            kept = (schema.pandas_metadata or {}).get("index_columns", [])
            return [*schema.names, *(str(part["name"]) for part in kept if isinstance(part, dict) and part.get("name"))]
        with open(path, encoding="utf-8", newline="") as file:
            line = file.readline(_LONGEST_LINE)
        if path.suffix.lower() == ".csv":
            return next(csv.reader([line]), [])
        found = json.loads(line)
        return [str(name) for name in found] if isinstance(found, dict) else []
    # pyarrow's errors are of these kinds, too; a line that is no text or no JSON is a ValueError
    except (OSError, ValueError, ImportError, csv.Error, RecursionError):
        return []
