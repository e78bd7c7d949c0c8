"""``graftwork compare``: several plans on one suite under one budget, side by side."""

from __future__ import annotations

import argparse

from graftwork.cli.run_flags import (
    add_data_arguments,
    add_device_arguments,
    add_run_arguments,
    print_end,
    run_folder_of,
    shared_settings,
)

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "compare"
HELP = "train several plans on one suite with one budget: leaderboard, significance, costs, who helps whom"
EXAMPLES = """examples:
  graftwork compare table.csv --targets price,cut --plans shared-trunk,mmoe,uncertainty
  graftwork compare emoji --plans all --seeds 3 --steps 400        every plan that fits the data
  graftwork compare scenes --plans shared-trunk,grouped --time-limit 60s   the same seconds for each training
  graftwork compare suite.yaml --plans +pcgrad --engine ray        spread over a Ray cluster (RAY_ADDRESS)
  graftwork compare --resume runs/compare-table-20260101-120000    go on after Ctrl-C or a crash

Separate models are always in: everything is measured against them. The run folder gets report.html, result.json and log.jsonl.
Ctrl-C keeps all finished work. `graftwork fit` finds a plan under a time limit; `compare` gives all of them the same chance.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    parser.add_argument("source", nargs="?", help="table, folder of pictures, suite.yaml, or an embedded suite (default: emoji)")
    add_data_arguments(parser)
    budget = parser.add_argument_group("plans and budget")
    add = budget.add_argument
    add("--plans", metavar="NAMES", help="a,b or all or +name (besides the defaults) or file.toml (default: the plans of fit)")
    add("--seeds", metavar="N", type=int, help="seeds of every plan (default 3)")
    add("--steps", metavar="N", type=int, help="steps of each training (default 500); repeats exactly")
    add("--time-limit", metavar="TIME", help="time of each training in place of steps, as in 30s or 5m")
    add("--backbone", metavar="NAME", help="pretrained backbone (see graftwork backbones); none leaves pretrained plans out")
    add("--max-groups", metavar="N", type=int, help="most groups of tasks that the report suggests (default 3)")
    add("--seed", metavar="N", type=int, help="root seed of splits, initialisation and batches (default 0)")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="training setting for all plans")
    machines = parser.add_argument_group("machines")
    add = machines.add_argument
    add("--engine", choices=("local", "ray"), help="processes here (default), or a Ray cluster (extra: graftwork[ray])")
    add("--workers", metavar="N", type=int, help="trainings at the same time (default: one for each core)")
    add_device_arguments(machines)
    add = add_run_arguments(parser, "runs/compare-<suite>-<date>-<time>").add_argument
    add("--quiet", action="store_true", help="print the result in words and the path of the report only")
    add("--json", action="store_true", help="print the leaderboard as JSON, everything else on stderr")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.workflows.compare import compare
    from graftwork.workflows.runs.display import make_display

    source, out = run_folder_of(args, NAME)
    display = make_display(quiet=args.quiet, to_stderr=args.json)
    with display:
        result = compare(
            source,
            **shared_settings(args),
            engine=args.engine,
            max_groups=args.max_groups,
            out=out,
            on_event=display.handle,
            progress=False,
        )
    keys = ("budget", "leaderboard", "overall", "grouping", "verdict")
    print_end(result, args, lambda: {key: result.result[key] for key in keys})
    return 0
