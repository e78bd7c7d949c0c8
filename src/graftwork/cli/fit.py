"""``graftwork fit``: which way of learning my tasks is best under my budget?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from graftwork.cli.common import parse_assignments, quiet_pipe
from graftwork.cli.run_flags import (
    add_data_arguments,
    add_device_arguments,
    add_run_arguments,
    print_end,
    run_folder_of,
    shared_settings,
)
from graftwork.cli.shared_flags import (
    add_flag,
    add_json_argument,
    add_quiet_argument,
    add_seed_argument,
    add_set_argument,
    add_source_argument,
    add_workers_argument,
)

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "fit"
HELP = "find the best way to learn your tasks: data in, model, report and verdict out"
EXAMPLES = """examples:
  graftwork fit                                            the demo: emoji pictures, four tasks
  graftwork fit table.csv --targets price,cut,colour       a table (csv, tsv, parquet, jsonl)
  graftwork fit images/ --labels labels.csv                pictures with a table of labels
  graftwork fit reviews.jsonl --text body --targets stars,topic --task-kind stars=regression
  graftwork fit patients.csv --targets risk,stay --group patient --time-limit 20m
  graftwork fit suite.yaml --max-params 2M --max-latency 10ms
  graftwork fit new-rows.csv --warm-start runs/table-20260101-120000    new rows, or more time for the same
  graftwork fit --resume runs/table-20260101-120000        go on after Ctrl-C or a crash

The run folder gets report.html, model/, model.onnx, plans/ (models of other finalists), result.json and log.jsonl. Ctrl-C keeps all
finished work.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    add_source_argument(parser)
    add_data_arguments(parser)
    budget = parser.add_argument_group("budget")
    add = budget.add_argument
    add_flag(budget, "--time-limit", "for everything up to the verdict, as in 90s, 10m or 1h30m (default: 5m; none with --steps)")
    add(
        "--preset",
        metavar="NAME",
        help="quick: few plans, one model; good; best: all plans, more seeds, folds and settings, give it time (default: good)",
    )
    add_flag(budget, "--steps", "each training, in place of what the time allows; repeats exactly")
    add_flag(budget, "--seeds", "of every finalist (default: 3; best: 5)")
    add(
        "--folds",
        metavar="N",
        type=int,
        help="compare by cross-validation in N folds; 0: one split (default: 5 below 2,000 rows; quick: 3, best: 8)",
    )
    add(
        "--weight",
        metavar="TASK=NUMBER",
        action="append",
        default=[],
        help="weight of a task in means over tasks, as in sold=2 (default: 1); may repeat",
    )
    add(
        "--prefer",
        choices=("score", "cost"),
        help="score: the best plan; cost: the cheapest plan that is not worse within the tolerance (default: score)",
    )
    add("--tolerance", metavar="PERCENT", help="how much worse a cheaper plan may be, in percent of the best score (default: 1)")
    add("--max-params", metavar="N", help="most parameters to store, as in 5M")
    add("--max-latency", metavar="TIME", help="longest time for one row, as in 20ms")
    add_flag(budget, "--max-memory", "of a process while training, as in 2GB")
    add_workers_argument(budget)
    add_device_arguments(budget)
    race = parser.add_argument_group("race")
    add = race.add_argument
    add_flag(race, "--plans", "those that fit the data and the time")
    add_flag(
        race,
        "--backbone",
        ", or several of which the best is chosen by scores on your rows; all takes what is installed, none leaves pretrained plans out",
    )
    add_seed_argument(race)
    add(
        "--single",
        action="store_true",
        default=None,
        help="hand over one model of one plan, for all tasks: no ensemble, no mixed plan, no average over other rows",
    )
    add("--no-refit", action="store_true", help="hand over a model as it was judged, without the test rows")
    add_set_argument(race, " for all plans")
    output = add_run_arguments(parser, "runs/<suite>-<date>-<time>")
    add = output.add_argument
    add(
        "--keep",
        choices=("finalists", "chosen"),
        help="whose models stay in the run folder, for predict and serve --plan NAME (default: those of all finalists)",
    )
    add(
        "--warm-start",
        metavar="RUN",
        help="begin from a finished run of the same tasks and columns: with more time, or on other rows; settings that are not given are "
        "those of that run, and what won there is tried first",
    )
    add("--dry-run", action="store_true", help="check the data, estimate costs, show the schedule, and stop before the race")
    add_quiet_argument(output)
    add_json_argument(output, "the verdict")


def _print_dry(folder: Path, *, as_json: bool) -> None:
    """Print what a dry run found: where it goes on, or estimates and schedule as JSON."""
    if not as_json:
        print(f"Checked and estimated; the race was not begun. Begin it with: graftwork fit --resume {folder}")
        return
    from graftwork.core.files import read_json

    state = read_json(folder / "run.json")
    print(
        json.dumps(
            {"folder": str(folder), **{key: state.get(key) for key in ("estimates", "schedule")}}, ensure_ascii=False, indent=2
        )
    )


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.workflows.fit import fit
    from graftwork.workflows.runs.display import make_display

    source, out = run_folder_of(args, NAME)
    display = make_display(quiet=args.quiet, to_stderr=args.json)
    names = ("max_params", "max_latency", "max_memory", "folds", "single", "tolerance", "prefer", "preset", "keep")
    own = {name: getattr(args, name) for name in names}
    own["weights"] = parse_assignments(args.weight, flag="--weight", plain=True)
    with display:
        result = fit(
            source,
            **shared_settings(args),
            **own,
            refit=not args.no_refit,
            out=out,
            on_event=display.handle,
            progress=False,
            dry_run=args.dry_run,
            warm_start=args.warm_start,
        )
    if args.dry_run:
        _print_dry(result.folder, as_json=args.json)
        return 0
    with quiet_pipe():  # whether there is a model does not depend on who reads
        print_end(result, args, lambda: result.result["verdict"])
    if not (result.folder / "model" / "config.json").is_file():
        # Whoever calls this from a script goes on to `predict`.
        print(
            f"graftwork fit: there is no model; the notes above say why. Try again with: graftwork fit --resume {result.folder}",
            file=sys.stderr,
        )
        return 1
    return 0
