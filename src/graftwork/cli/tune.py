"""``graftwork tune``: adapt one backbone cheaply."""

from __future__ import annotations

import argparse

from graftwork.cli.common import parse_assignments
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

NAME = "tune"
HELP = "adapt one pretrained backbone: a delta, its ledger, and what the other methods would have cost"
EXAMPLES = """examples:
  graftwork tune minilm reviews.csv --text body --targets stars,topic              auto chooses by measured cost
  graftwork tune minilm reviews.csv --text body --targets stars --method lora --tuner r=4
  graftwork tune efficientnet_lite0 images/ --labels labels.csv --max-trainable 1% --max-memory 500MB
  graftwork tune efficientnet_lite0 emoji --method bn-only --steps 200
  graftwork tune --resume runs/tune-reviews-20260101-120000          go on after Ctrl-C or a crash

The run folder gets delta/ (what was learned: load it with graftwork.load_tuned), model/ and model.onnx (graftwork predict RUN,
graftwork serve RUN), report.html and result.json. `graftwork backbones` lists backbones.
"""


def _methods() -> str:
    """Return the methods, one line each; no tuner is imported."""
    from graftwork.workflows.tune.methods import AUTO, METHODS, card_methods

    lines = [f"  {AUTO:<10} of the methods that fit the limits the one that gets furthest in the same seconds (default)"]
    for method in METHODS:
        also = f" (also {', '.join(method.aliases)})" if method.aliases else ""
        lines.append(f"  {method.name:<10} {method.title}{also}")
    lines += ["named only, from cards (`graftwork show` tells more):"]
    lines += [f"  {method.name:<21} {method.title}" for method in card_methods().values()]
    return "methods (--method; --tuner KEY=VALUE sets any keyword of their tuner):\n" + "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    # argparse formats the epilog with `%`.
    parser.epilog = f"{_methods()}\n{EXAMPLES}".replace("%", "%%")
    parser.add_argument(
        "backbone",
        metavar="BACKBONE",
        nargs="?",
        help="pretrained backbone (see graftwork backbones; default: the best for the data)",
    )
    add_source_argument(parser)
    add_data_arguments(parser)
    method = parser.add_argument_group("method and limits")
    add = method.add_argument
    add_flag(method, "--method", ", or package.module:Class of a tuner (default: auto)")
    add("--tuner", metavar="KEY=VALUE", action="append", default=[], help="keyword of the method's tuner, as in r=4; may repeat")
    add("--max-trainable", metavar="N", help="most numbers that learn: a count such as 5M, or a share such as 1%%")
    add_flag(method, "--max-memory", "of a step besides the model, as in 500MB")
    add_flag(method, "--steps", "the training (default: 500)")
    add_seed_argument(method)
    add_set_argument(method)
    add_workers_argument(method, "one")
    add_device_arguments(method)
    output = add_run_arguments(parser, "runs/tune-<suite>-<date>-<time>")
    add_quiet_argument(output)
    add_json_argument(output, "ledger, scores and costs")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.workflows.runs.display import make_display
    from graftwork.workflows.tune import tune

    tuner = parse_assignments(args.tuner, flag="--tuner")
    # What fit and compare have besides; a tuning has one seed and one plan.
    args.time_limit = args.seeds = args.plans = None
    source, out = run_folder_of(args, NAME)
    shared = shared_settings(args)
    for name in ("time_limit", "seeds", "plans"):
        del shared[name]
    display = make_display(quiet=args.quiet, to_stderr=args.json)
    with display:
        result = tune(
            source=source,
            **shared,
            method=args.method,
            settings=tuner,
            max_trainable=args.max_trainable,
            max_memory=args.max_memory,
            out=out,
            on_event=display.handle,
            progress=False,
        )
    keys = ("method", "backbone", "ledger", "scores", "costs", "delta")
    print_end(result, args, lambda: {key: result.result[key] for key in keys})
    return 0
