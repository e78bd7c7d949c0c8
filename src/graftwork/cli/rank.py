"""``graftwork rank``: which source model should my tasks start from?"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.cli.common import add_component_argument, parse_assignments, quiet_pipe
from graftwork.cli.run_flags import add_data_arguments
from graftwork.cli.shared_flags import (
    add_device_argument,
    add_json_argument,
    add_out_argument,
    add_quiet_argument,
    add_seed_argument,
    add_source_argument,
)
from graftwork.core.plain_text import own_code

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "rank"
HELP = "judge which pretrained model to start from, without training any"
EXAMPLES = """examples:
  graftwork rank                                                  the demo suite, all installed image backbones
  graftwork rank images/ --labels labels.csv --sources all
  graftwork rank reviews.jsonl --text body --targets stars --sources minilm,models/bert-tiny
  graftwork rank images/ --sources efficientnet_lite0@96,efficientnet_lite0@160,timm:resnet18
  graftwork rank table.csv --targets price --sources runs/         models of your own runs
  graftwork rank suite.yaml --rows 2000 --scores logme,probe --json   a sample of the rows, for a first look
  graftwork rank images/ --labels labels.csv --data more-images/   which classes of a source data set are worth keeping
  graftwork rank table.csv --targets a,b,c --data tasks --target-task a   which other tasks to label next
  graftwork rank --transfer-table                                  how well scores order sources whose results are known
  graftwork rank --transfer-table tables                          the same for networks of tables

Every source computes features of the training rows once; they are stored and used again, and scores stream over them. Scores have
intervals from half-samples of the rows, and an untrained trunk is ranked along as a control. The folder gets report.html and result.json.
"""
_DATA = (
    "targets", "labels", "text", "group", "time", "categories", "image_size", "image_column", "ignore", "missing", "split_labels",
    "strict",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    add_source_argument(parser)
    ranking = parser.add_argument_group("ranking")
    add = ranking.add_argument
    add(
        "--sources",
        metavar="NAMES",
        default="all",
        help="all (installed pretrained backbones), names as in graftwork backbones, folders of models or runs; separated by commas "
        "(default: all)",
    )
    add(
        "--scores",
        metavar="NAMES",
        help="all, or of logme,hscore,hscore-plain,leep,nce,transrate,gbc,sfda,ped,ped-sfda,knn,probe (default: the usual five)",
    )
    add(
        "--rows",
        metavar="N",
        help="most training rows to judge on, or all (default: all; 2000 with --data): scores stream over stored features, so memory "
        "does not grow with the rows",
    )
    add("--draws", metavar="N", type=int, default=30, help="half-samples for intervals and stability, at least 10 (default: 30)")
    add(
        "--sets",
        metavar="N",
        type=int,
        help="also choose a set of N sources for an ensemble (OSBORN, E-LEEP), of those with classes",
    )
    add_seed_argument(ranking, "the rows, the half-samples and the untrained trunk", default=0)
    add_device_argument(ranking, "features are computed")
    add(
        "--transfer-table",
        nargs="?",
        const="full",
        metavar="SIZE",
        help="judge the scores instead: train a pool of small sources, fine-tune each on every target, and compare (full, of pictures: "
        "about a quarter of an hour once, goes on where it was stopped; tables: two minutes; small and small-tables: seconds); later "
        "reports on such data show it",
    )
    data = parser.add_argument_group("source data")
    data.add_argument(
        "--data",
        metavar="SOURCE",
        help="judge source data instead: a data set, whose classes are ranked by votes of the target's rows; or the word tasks, for which "
        "of the suite's other tasks to label next",
    )
    data.add_argument("--data-labels", metavar="TABLE", help="labels of the source's pictures")
    data.add_argument("--target-task", metavar="NAME", help="with --data tasks: the task that counts (default: the first)")
    data.add_argument("--budget", metavar="N", type=int, help="with --data tasks: labels to share out (default: 1000)")
    add_data_arguments(parser)
    output = parser.add_argument_group("output")
    add_out_argument(output, "run folder", "runs/rank-<suite>-<date>-<time>")
    add_quiet_argument(output)
    add_json_argument(output, "the result")
    add_component_argument(output)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    if args.transfer_table:
        return _judge_scores(args)
    if args.data:
        return _judge_data(args)
    _refuse_without_data(args)
    from graftwork.workflows.rank import rank

    result = rank(
        args.source,
        sources=args.sources,
        scores=args.scores,
        rows=args.rows,
        draws=args.draws,
        set_size=args.sets,
        seed=args.seed,
        out=args.out,
        device=args.device or "auto",
        **{name: getattr(args, name) for name in _DATA},
        task_kinds=parse_assignments(args.task_kind, flag="--task-kind", plain=True),
        metrics=parse_assignments(args.metric, flag="--metric", plain=True),
        class_weights=parse_assignments(args.class_weight, flag="--class-weight", plain=True),
        histories=parse_assignments(args.history, flag="--history", plain=True),
        on_event=None if args.quiet else _say,
        command=shlex.join(["graftwork", *sys.argv[1:]]) if len(sys.argv) > 1 and sys.argv[1] == NAME else None,
    )
    with quiet_pipe():
        if args.json:
            print(json.dumps({"folder": str(result.folder), **result.result}, ensure_ascii=False, indent=2))
        elif args.quiet:
            print("\n".join(result.sentences))
            print(result.where)
        else:
            from graftwork.cli.tables import terminal_width

            print(result.summary(terminal_width()))
            print(result.where)
    return 0


def _refuse_without_data(args: argparse.Namespace) -> None:
    from graftwork.core.errors import ConfigError

    given = [flag for flag in ("data_labels", "target_task", "budget") if getattr(args, flag) is not None]
    if given:
        raise ConfigError(f"--{given[0].replace('_', '-')} belongs to --data.")


def _judge_data(args: argparse.Namespace) -> int:
    """Judge classes of a source data set, or source tasks."""
    from graftwork.cli.tables import terminal_width
    from graftwork.core.errors import ConfigError
    from graftwork.data.options import DataOptions
    from graftwork.workflows.rank import rank_data
    from graftwork.workflows.rank.data import TASKS
    from graftwork.workflows.rank.start import row_limit

    if args.scores is not None or args.sets is not None:
        raise ConfigError("--data counts votes or weighs tasks; leave --scores and --sets out.")
    if args.budget is not None and args.data != TASKS:
        raise ConfigError("--budget is about source tasks; use it with --data tasks.")
    options = DataOptions.of_user(
        **{name: getattr(args, name) for name in _DATA},
        task_kinds=parse_assignments(args.task_kind, flag="--task-kind", plain=True),
        metrics=parse_assignments(args.metric, flag="--metric", plain=True),
        class_weights=parse_assignments(args.class_weight, flag="--class-weight", plain=True),
        histories=parse_assignments(args.history, flag="--history", plain=True),
    )
    found = rank_data(
        args.source,
        data=args.data,
        data_labels=args.data_labels,
        target_task=args.target_task,
        budget=1000 if args.budget is None else args.budget,
        sources=args.sources,
        rows=2000 if args.rows is None else row_limit(args.rows),
        draws=args.draws,
        options=options,
        out=args.out,
        seed=args.seed,
        device=args.device or "auto",
        command=shlex.join(["graftwork", *sys.argv[1:]]) if len(sys.argv) > 1 and sys.argv[1] == NAME else None,
    )
    with quiet_pipe():
        if args.json:
            print(json.dumps({"folder": str(found.folder), **found.result}, ensure_ascii=False, indent=2))
        else:
            print("\n".join(found.sentences) if args.quiet else found.summary(terminal_width()))
            print(found.where)
    return 0


def _judge_scores(args: argparse.Namespace) -> int:
    """Build the transfer table and print how well scores order its sources."""
    from graftwork.cli.tables import format_table, terminal_width
    from graftwork.core.errors import ConfigError
    from graftwork.core.files import cache_folder
    from graftwork.workflows.rank import transfer_table

    if args.source is not None:
        raise ConfigError(f"--transfer-table uses generated data; leave {args.source!r} out.")
    if args.device not in (None, "auto", "cpu"):
        raise ConfigError(f"--transfer-table trains its small networks on the CPU; leave --device {args.device} out.")

    def say(done: int, rows: int, what: str) -> None:
        print(f"{done} of {rows} rows; next: {what}", file=sys.stderr)

    found = transfer_table(
        args.transfer_table, scores=args.scores or "all", folder=args.out, on_progress=None if args.quiet else say, seed=args.seed
    )
    place = Path(args.out) if args.out is not None else cache_folder("transfer-table", args.transfer_table)
    with quiet_pipe():
        if args.json:
            print(json.dumps(found, indent=2))
            return 0
        rows = [
            [
                line["title"],
                *(f"{line[key]:.2f}" for key in ("tau", "low", "high")),
                str(line["sources"]),
                f"{1000 * line['seconds']:.1f} ms",
            ]
            for line in found["scores"]
        ]
        header = ["score", "tau", "low", "high", "sources", "one score"]
        print(format_table(header, rows, width=terminal_width(), stretch=0, right=(1, 2, 3, 4, 5)))
        print(f"\n{found['sentence']}")
        again = ", ".join(f"{row['source']} on {row['target']}" for row in found["audit"])
        print(f"Made again and found equal: {again}.")
        print(f"Report: {place / 'report.html'}")
    return 0


def _say(event: Mapping[str, Any]) -> None:
    """Print what happens on stderr; features of a source as a line that is written over."""
    kind = event["event"]
    if kind == "rows":
        print(
            f"{event['rows']:,} rows, tasks: {', '.join(event['tasks'])}; sources: {', '.join(event['sources'])}", file=sys.stderr
        )
    elif kind == "features" and sys.stderr.isatty():
        minutes = event["seconds"] / event["done"] * (event["rows"] - event["done"]) / 60
        left = f", about {minutes:.0f} min left (--rows 2000 takes a sample)" if minutes >= 2 else ""
        print(
            f"{_cleared()}{event['source']}: features of {event['done']:,} of {event['rows']:,} rows{left}",
            end="",
            file=sys.stderr,
            flush=True,
        )
    elif kind == "source":
        print(f"{_cleared()}{event['source']}: judged in {event['seconds']:.1f} s", file=sys.stderr)
    elif kind == "passed_over":
        print(f"{_cleared()}{event['name']} is passed over: {event['reason']}", file=sys.stderr)


def _cleared() -> str:
    """Return what takes back the line that is written over."""
    return own_code("\r\x1b[K", sys.stderr) if sys.stderr.isatty() else ""
