"""``graftwork fit``: which way of learning my tasks is best under my budget?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from graftwork.cli.common import parse_assignments

__all__ = ["HELP", "NAME", "add_arguments", "add_data_arguments", "run", "run_folder_of"]

NAME = "fit"
HELP = "find the best way to learn your tasks: data in, model, report and verdict out"
EXAMPLES = """examples:
  graftwork fit                                            the demo: emoji pictures, four tasks
  graftwork fit table.csv --targets price,cut,colour       a table (csv, tsv, parquet, jsonl)
  graftwork fit images/ --labels labels.csv                pictures with a table of labels
  graftwork fit reviews.jsonl --text body --targets stars,topic --task-kind stars=regression
  graftwork fit patients.csv --targets risk,stay --group patient --time-limit 20m
  graftwork fit suite.yaml --max-params 2M --max-latency 10ms
  graftwork fit --resume runs/table-20260101-120000        go on after Ctrl-C or a crash

The run folder gets report.html, model/, model.onnx, result.json and log.jsonl. Ctrl-C keeps all finished work.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("source", nargs="?", help="table, folder of pictures, suite.yaml, or name of an embedded suite (default: emoji)")
    add_data_arguments(parser)
    budget = parser.add_argument_group("budget")
    add = budget.add_argument
    add(
        "--time-limit", metavar="TIME", help="6m, 90s, 1h30m for everything up to the verdict (default: 5m, or none with --steps)"
    )
    add("--steps", metavar="N", type=int, help="steps of a full training, in place of what the time allows; repeats exactly")
    add("--seeds", metavar="N", type=int, default=3, help="seeds of every finalist (default 3)")
    add("--max-params", metavar="N", help="most parameters to store, as in 5M")
    add("--max-latency", metavar="TIME", help="longest time for one row, as in 20ms")
    add("--max-memory", metavar="SIZE", help="most memory while training, as in 2GB")
    add("--workers", metavar="N", type=int, help="processes that train at the same time (default: one for each core)")
    race = parser.add_argument_group("race")
    add = race.add_argument
    add("--plans", metavar="NAMES", help="plans to race: a,b or all or +name (besides the defaults) or file.toml")
    add("--backbone", metavar="NAME", help="pretrained backbone (see graftwork backbones); none leaves pretrained plans out")
    add("--seed", metavar="N", type=int, default=0, help="root seed of splits, initialisation and batches (default 0)")
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="training setting for all plans, as in learning_rate=0.001",
    )
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("--out", metavar="FOLDER", help="run folder (default: runs/<suite>-<date>-<time>)")
    add(
        "--resume",
        metavar="RUN",
        nargs="?",
        const="",
        help="go on with a run: its folder, or the one of --out, or the latest in runs/",
    )
    add("--dry-run", action="store_true", help="check the data, estimate costs, show the schedule, and stop")
    add("--quiet", action="store_true", help="print the run folder and the verdict only")
    add("--json", action="store_true", help="print the verdict as JSON, everything else on stderr")
    add("--checkpoint-seconds", metavar="S", type=float, default=20.0, help=argparse.SUPPRESS)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how the data is read."""
    data = parser.add_argument_group("data")
    add = data.add_argument
    add("--targets", metavar="A,B", help="columns to predict; colour=r+g+b makes one task of several columns")
    add("--task-kind", metavar="TASK=KIND", action="append", default=[], help="override an inferred kind, as in stars=regression")
    add("--labels", metavar="FILE", help="table with the labels of pictures")
    add("--text", metavar="COLUMN", help="column with the text to learn from")
    add("--group", metavar="COLUMN", help="column (patient, user, site) whose equal values stay on one side of every split")
    add("--image-size", metavar="PIXELS", type=int, help="side of the encoded pictures")


def _latest_run(verb: str = NAME) -> str | None:
    """Return the newest unfinished run in ``runs/``, the newest at all if every one is finished."""
    from graftwork.core.files import read_json

    runs = sorted(Path("runs").glob("*/run.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    states = {file: read_json(file) for file in runs}
    runs = [file for file in runs if states[file].get("verb", "fit") == verb]
    unfinished = [file for file in runs if states[file].get("state") != "done"]
    found = unfinished or runs
    return str(found[0].parent) if found else None


def run_folder_of(args: argparse.Namespace, verb: str = NAME) -> tuple[str | None, str | None]:
    """Return the source and the run folder; ``--resume`` may have swallowed the source, or name the folder."""
    from graftwork.core.errors import ConfigError

    source, out = args.source, args.out
    if args.resume is None:
        return source, out
    if args.resume:
        if (Path(args.resume) / "run.json").exists() or (out is None and source is not None):
            return source, args.resume
        if source is None and Path(args.resume).exists():
            return args.resume, out or _latest_run(verb)
        if source is None or out is None:
            raise ConfigError(f"There is no run to resume in {args.resume}. Give the folder that graftwork {verb} printed.")
        return source, args.resume
    if out is None:
        out = _latest_run(verb)
        if out is None:
            raise ConfigError(f"There is no run in runs/ to resume. Name its folder: graftwork {verb} --resume FOLDER.")
    return source, out


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.cli.live import make_display
    from graftwork.workflows.fit import fit

    source, out = run_folder_of(args)
    display = make_display(quiet=args.quiet, to_stderr=args.json)
    settings: dict[str, Any] = {
        name: getattr(args, name)
        for name in (
            "targets",
            "labels",
            "text",
            "group",
            "image_size",
            "time_limit",
            "steps",
            "seeds",
            "seed",
            "plans",
            "backbone",
        )
    }
    settings |= {
        name: getattr(args, name) for name in ("max_params", "max_latency", "max_memory", "workers", "checkpoint_seconds")
    }
    with display:
        result = fit(
            source,
            **settings,
            task_kinds=parse_assignments(args.task_kind, flag="--task-kind", plain=True),
            overrides=parse_assignments(args.set, flag="--set"),
            out=out,
            resume=args.resume is not None,
            on_event=display.handle,
            dry_run=args.dry_run,
        )
    if args.dry_run:
        print(f"Checked and estimated; nothing was trained. Start the race with: graftwork fit --resume {result.folder}")
        return 0
    _print_end(result, args)
    return 0


def _print_end(result: Any, args: argparse.Namespace) -> None:
    if args.json:
        import json

        print(json.dumps({"folder": str(result.folder), **result.result["verdict"]}, ensure_ascii=False, indent=2))
        return
    if not args.quiet:
        from graftwork.cli.live import terminal_width

        print(result.summary(terminal_width()))
    else:
        print("\n".join(result.sentences))
    print(f"report: {result.report}" if result.report.exists() else f"results: {result.folder}")
