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
    add_source_argument(parser)
    add_data_arguments(parser)
    budget = parser.add_argument_group("plans and budget")
    add_flag(budget, "--plans", "those of graftwork fit")
    add_flag(budget, "--seeds", "of every plan (default: 3)")
    add_flag(budget, "--steps", "each training; repeats exactly (default: 500)")
    add_flag(budget, "--time-limit", "for each training, in place of --steps, as in 90s, 10m or 1h30m")
    add_flag(budget, "--backbone", ", one for each kind of input; none leaves pretrained plans out")
    budget.add_argument("--max-groups", metavar="N", type=int, help="most groups of tasks that the report suggests (default: 3)")
    add_seed_argument(budget)
    add_set_argument(budget, " for all plans")
    machines = parser.add_argument_group("machines")
    machines.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="local: processes here; ray: a Ray cluster, pip install 'graftwork[ray]' (default: local)",
    )
    add_workers_argument(machines)
    add_device_arguments(machines)
    output = add_run_arguments(parser, "runs/compare-<suite>-<date>-<time>")
    add_quiet_argument(output)
    add_json_argument(output, "the leaderboard")


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
