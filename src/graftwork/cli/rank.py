"""``graftwork rank``: which source model should my tasks start from?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from graftwork.cli.common import add_component_argument, parse_assignments, quiet_pipe
from graftwork.cli.run_flags import add_data_arguments

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "rank"
HELP = "judge which pretrained model to start from, without training any"
EXAMPLES = """examples:
  graftwork rank                                                  the demo suite, all installed image backbones
  graftwork rank images/ --labels labels.csv --sources all
  graftwork rank reviews.jsonl --text body --targets stars --sources minilm,models/bert-tiny
  graftwork rank images/ --sources efficientnet_lite0@96,efficientnet_lite0@160,timm:resnet18
  graftwork rank table.csv --targets price --sources runs/         models of your own runs
  graftwork rank suite.yaml --rows all --scores logme,probe --json

Every source computes features of a sample of the training rows once; they are stored and used again. Scores have intervals from
half-samples of the rows, and an untrained trunk is ranked along as a control. The folder gets report.html and result.json.
"""
_DATA = (
    "targets", "labels", "text", "group", "time", "categories", "image_size", "image_column", "ignore", "missing", "split_labels",
    "strict",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "source", nargs="?", help="table, folder of pictures, suite.yaml, or name of an embedded suite (default: emoji)"
    )
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
        help="all, or of logme,hscore,hscore-plain,leep,nce,transrate,gbc,knn,probe (default: the usual five)",
    )
    add("--rows", metavar="N", default="2000", help="most training rows to judge on, or all (default: 2000)")
    add("--draws", metavar="N", type=int, default=30, help="half-samples for intervals and stability, at least 10 (default: 30)")
    add("--seed", metavar="N", type=int, default=0, help="draws rows, halves and the untrained trunk (default 0)")
    add_data_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="FOLDER", help="folder of the result (default: runs/rank-<suite>-<date>-<time>)")
    output.add_argument("--quiet", action="store_true", help="print the recommendation only")
    output.add_argument("--json", action="store_true", help="print the result as JSON, everything else on stderr")
    add_component_argument(output)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.workflows.rank import rank

    result = rank(
        args.source,
        sources=args.sources,
        scores=args.scores,
        rows=args.rows,
        draws=args.draws,
        seed=args.seed,
        out=args.out,
        **{name: getattr(args, name) for name in _DATA},
        task_kinds=parse_assignments(args.task_kind, flag="--task-kind", plain=True),
        metrics=parse_assignments(args.metric, flag="--metric", plain=True),
        class_weights=parse_assignments(args.class_weight, flag="--class-weight", plain=True),
        histories=parse_assignments(args.history, flag="--history", plain=True),
        on_event=None if args.quiet else _say,
        command=" ".join(["graftwork", "rank", *sys.argv[2:]]) if len(sys.argv) > 1 and sys.argv[1] == NAME else None,
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


def _say(event: Mapping[str, Any]) -> None:
    """Print what happens on stderr; features of a source as a line that is written over."""
    kind = event["event"]
    if kind == "rows":
        print(
            f"{event['rows']:,} rows, tasks: {', '.join(event['tasks'])}; sources: {', '.join(event['sources'])}", file=sys.stderr
        )
    elif kind == "features" and sys.stderr.isatty():
        print(
            f"\r{event['source']}: features of {event['done']:,} of {event['rows']:,} rows", end="", file=sys.stderr, flush=True
        )
    elif kind == "source":
        lead = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{lead}{event['source']}: judged in {event['seconds']:.1f} s", file=sys.stderr)
    elif kind == "passed_over":
        print(f"\n{event['name']} is passed over: {event['reason']}", file=sys.stderr)
