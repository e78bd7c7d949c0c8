"""What the verbs that train have in common: flags about data and run folder, what they mean, and the last lines. Standard
library only."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.cli.common import add_component_argument, parse_assignments
from graftwork.cli.shared_flags import add_device_argument, add_out_argument
from graftwork.core.machine import PRECISIONS

if TYPE_CHECKING:
    from graftwork.workflows.compare import CompareRun
    from graftwork.workflows.distill import DistillRun
    from graftwork.workflows.fit import FitRun
    from graftwork.workflows.tune import TuneRun

__all__ = ["add_data_arguments", "add_device_arguments", "add_run_arguments", "print_end", "run_folder_of", "shared_settings"]

_SHARED = (
    "targets",
    "labels",
    "text",
    "group",
    "time",
    "categories",
    "image_size",
    "image_column",
    "ignore",
    "missing",
    "split_labels",
    "strict",
    "time_limit",
    "steps",
    "seeds",
    "seed",
    "plans",
    "backbone",
    "workers",
    "device",
    "precision",
)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how the data is read."""
    data = parser.add_argument_group("data")
    add = data.add_argument
    add("--targets", metavar="A,B", help="columns to predict, needed for tables; colour=r+g+b makes one task of several columns")
    override = "override an inferred kind, as in stars=regression; may repeat"
    add("--task-kind", metavar="TASK=KIND", action="append", default=[], help=override)
    add(
        "--metric",
        metavar="TASK=METRIC",
        action="append",
        default=[],
        help="by what a task is judged and models are chosen, as in sold=log_loss (default: ROC AUC, accuracy or RMSE); may repeat",
    )
    add(
        "--class-weight",
        metavar="TASK=balanced",
        action="append",
        default=[],
        help="let all classes of a task weigh the same together in the loss, however rare they are, as in fraud=balanced; may repeat",
    )
    add("--labels", metavar="FILE", help="table with the labels of pictures")
    add(
        "--text",
        metavar="COLUMN",
        help="column with the text to learn from, beside the other columns (default: columns of free text)",
    )
    add(
        "--group",
        metavar="COLUMN",
        help="column (patient, user, site) whose equal values stay on one side of every split (default: one that is found to give "
        "targets away; none: split by rows)",
    )
    add(
        "--time",
        metavar="COLUMN",
        help="column of dates or numbers: learn from the earliest rows, choose on later ones, test on the latest (not with --group)",
    )
    add("--categories", metavar="A,B", help="columns whose numbers are names (ids, codes): levels, not a scale")
    add(
        "--history",
        metavar="COLUMN=ITEM",
        action="append",
        default=[],
        help="column with the ids of earlier items, most recent last, and the column of the item shown; as in clicked=item; may repeat",
    )
    add("--image-size", metavar="PIXELS", type=int, help="side of the encoded pictures")
    add(
        "--image-column",
        metavar="COLUMN",
        help="column with the paths of pictures, relative to the table; of the labels of a picture folder, the column that names "
        "its pictures (default: the one that matches them)",
    )
    add("--ignore", metavar="A,B", help="columns of the table that are not learned from")
    add(
        "--missing",
        metavar="WORD",
        action="append",
        help="word or number that means a missing cell, in all columns, as in --missing '?' --missing -999; kept with the model; may repeat",
    )
    add(
        "--split-labels",
        metavar="SEP",
        help="sign between the labels in a cell of a target, such as ';' or '_' (auto: look for it): they become sets of labels",
    )
    add("--strict", action="store_true", help="refuse pictures that cannot be read (default: rows of up to 1 %% are skipped)")


def add_device_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the flags that say where networks are trained, and in which precision."""
    add_device_argument(group, "networks are trained")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of forward passes in training (default: auto, bf16 for pretrained backbones on GPUs where it is fast, else fp32)",
    )


def add_run_arguments(parser: argparse.ArgumentParser, folder: str) -> argparse._ArgumentGroup:
    """Add the flags about the run folder, which is ``folder`` by default; return their group, for the flags about what is
    printed."""
    output = parser.add_argument_group("output")
    add = output.add_argument
    add_out_argument(output, "run folder", folder)
    add(
        "--resume",
        metavar="RUN",
        nargs="?",
        const="",
        help="go on with a stopped run: its folder, or the one of --out, or the latest in runs/",
    )
    add_component_argument(output)
    add("--checkpoint-seconds", metavar="S", type=float, default=20.0, help=argparse.SUPPRESS)
    return output


def shared_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that ``fit`` and ``compare`` both take, by the names of their arguments."""
    return {
        **{name: getattr(args, name) for name in (*_SHARED, "checkpoint_seconds")},
        "task_kinds": parse_assignments(args.task_kind, flag="--task-kind", plain=True),
        "metrics": parse_assignments(args.metric, flag="--metric", plain=True),
        "class_weights": parse_assignments(args.class_weight, flag="--class-weight", plain=True),
        "histories": parse_assignments(args.history, flag="--history", plain=True),
        "overrides": parse_assignments(args.set, flag="--set"),
        "resume": args.resume is not None,
    }


def _latest_run(verb: str) -> str | None:
    """Return the newest unfinished run in ``runs/``, the newest at all if every one is finished."""
    from graftwork.core.errors import FileFormatError, GraftworkError
    from graftwork.core.files import read_json

    # By the time of writing, not by name: folders may have any name.
    runs = sorted(Path("runs").glob("*/run.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    states: dict[Path, Mapping[str, Any]] = {}
    for file in runs:
        try:
            state = read_json(file)
            if not isinstance(state, dict):
                raise FileFormatError(f"{file} holds no object.")
        except (GraftworkError, OSError) as error:
            # One damaged folder must not keep the others from being resumed; whoever means it names it.
            print(f"note: {file.parent} is passed over: {error}", file=sys.stderr)
            continue
        states[file] = state
    runs = [file for file in states if states[file].get("verb", "fit") == verb]
    unfinished = [file for file in runs if states[file].get("state") != "done"]
    # Finished ones as well: more time or another report may be wanted.
    found = unfinished or runs
    return str(found[0].parent) if found else None


def run_folder_of(args: argparse.Namespace, verb: str) -> tuple[str | None, str | None]:
    """Return the source and the run folder; ``--resume`` may have swallowed the source, or name the folder."""
    from graftwork.core.errors import ConfigError

    source, out = args.source, args.out
    if args.resume is None:
        return source, out
    if args.resume:
        is_run = (Path(args.resume) / "run.json").exists()
        if out is not None and (is_run or source is not None) and Path(out).resolve() != Path(args.resume).resolve():
            raise ConfigError(
                f"--resume names the run folder {args.resume} and --out another one, {out}. Give one of them: a run is resumed "
                "where it is."
            )
        # It is a run, or it can only have been meant as one.
        if is_run or source is not None:
            return source, args.resume
        # `fit --resume table.csv`: the flag has taken the source, and the run is looked for. A folder with a result is no data.
        if Path(args.resume).exists() and not (Path(args.resume) / "result.json").is_file():
            return args.resume, out or _latest_run(verb)
        if Path(args.resume).exists():
            raise ConfigError(f"{args.resume} cannot be resumed: it holds a result, and no run that could go on.")
        # Neither a run nor something that could be the source.
        raise ConfigError(f"There is no run to resume in {args.resume}. Give the folder that graftwork {verb} printed.")
    if out is None:
        out = _latest_run(verb)
        if out is None:
            raise ConfigError(f"There is no run in runs/ to resume. Name its folder: graftwork {verb} --resume FOLDER.")
    return source, out


def print_end(
    result: FitRun | CompareRun | TuneRun | DistillRun, args: argparse.Namespace, shown: Callable[[], Mapping[str, Any]]
) -> None:
    """Print a finished run: with ``--json`` the folder and what ``shown`` returns, else sentences or tables, and where the
    report is."""
    if args.json:
        print(json.dumps({"folder": str(result.folder), **shown()}, ensure_ascii=False, indent=2))
        return
    if args.quiet:
        print("\n".join(result.sentences))
        print(result.where)
    else:
        from graftwork.workflows.runs.display import terminal_width

        print(result.fit_summary(terminal_width()))
