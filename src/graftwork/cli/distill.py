"""``graftwork distill``: put what teachers know into a smaller or different model."""

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

NAME = "distill"
HELP = "teach a small student what larger models know, and measure it against the same student alone"
EXAMPLES = """examples:
  graftwork distill reviews.csv --text body --targets stars --teacher minilm            the library's own small text trunk learns
  graftwork distill images/ --labels labels.csv --teacher efficientnet_lite0@96 vit-mini --student osnet_x0_25
  graftwork distill images/ --labels labels.csv --teacher runs/big --student conv-mini    a run of yours teaches
  graftwork distill table.csv --targets price --teacher predictions.csv                 pseudo labels, from graftwork predict
  graftwork distill images/ --teacher features.npy --way features,relations             features alone, a row for each of the data
  graftwork distill images/ --teacher vit-mini --way attention --tap backbone.stages.1=blocks.2
  graftwork distill images/ --teacher vit-mini --way attention,features --tap attention:backbone.a=blocks.2 --tap features:backbone.b=blocks.9
  graftwork distill photos/ --targets none --teacher runs/big --student conv-mini        no labels at all: teachers alone
  graftwork distill --resume runs/distill-reviews-20260101-120000                         go on after Ctrl-C or a crash

Rows without labels are taught as well. Both students, alone and taught, make the same steps on the same labelled rows; test rows
that no choice saw judge them. With --targets none there are no labels at all: the student learns what the teachers answer, and the
report says how near it came to each. The run folder gets model/ and model.onnx (graftwork predict RUN, graftwork serve RUN),
report.html and result.json: what the student kept of each teacher, which rows turn right and wrong, sizes and times.
"""


def _ways() -> str:
    """Return the ways, one line each; no objective is imported."""
    from graftwork.workflows.distill.ways import AUTO, WAYS

    lines = [f"  {AUTO:<10} outputs where a teacher answers a task of the data, else its own classes and its features (default)"]
    lines += [f"  {name:<10} {way.title}" for name, way in WAYS.items()]
    return "ways (--way; several are separated by commas):\n" + "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    # argparse formats the epilog with `%`.
    parser.epilog = f"{_ways()}\n{EXAMPLES}".replace("%", "%%")
    add_source_argument(parser)
    teaching = parser.add_argument_group("teachers and student")
    add = teaching.add_argument
    add(
        "--teacher",
        metavar="NAME",
        nargs="+",
        action="extend",
        help="run folder, folder of a model, name as in graftwork backbones, or file with predictions or features of the rows "
        "(CSV, npy, npz, safetensors); may repeat",
    )
    add("--student", metavar="NAME", help="trunk as in graftwork backbones, or package.module:Class (default: scratch)")
    add("--way", metavar="A,B", help="how it is taught, see below (default: auto)")
    add(
        "--weighting",
        metavar="HOW",
        help="of several teachers: relevance (how alike their features and the labels are), equal, or numbers as in 0.7,0.3 "
        "(default: relevance)",
    )
    add("--temperature", metavar="T", type=float, help="of softened outputs (default: 2)")
    add("--strength", metavar="X", type=float, help="factor on all terms of distillation (default: 1)")
    add(
        "--tap",
        metavar="STUDENT=TEACHER",
        action="append",
        help="paths of two modules that are compared in place of the features at the end, in all ways that compare modules or in one of "
        "them, as attention:STUDENT=TEACHER; may repeat",
    )
    add_data_arguments(parser)
    training = parser.add_argument_group("budget")
    add_flag(training, "--steps", "each training (default: 1000)")
    add_flag(training, "--time-limit", "for everything, in place of --steps, as in 90s, 10m or 1h30m")
    add_flag(training, "--seeds", "of each student (default: 3; with one nothing is asserted)")
    add_seed_argument(training)
    add_set_argument(training)
    add_workers_argument(training)
    add_device_arguments(training)
    output = add_run_arguments(parser, "runs/distill-<suite>-<date>-<time>")
    add_quiet_argument(output)
    add_json_argument(output, "the verdict, teachers and flips")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.workflows.distill import distill
    from graftwork.workflows.runs.display import make_display

    # What fit has besides: the student is named by a flag of its own, and there are two plans.
    args.plans = args.backbone = None
    source, out = run_folder_of(args, NAME)
    shared = shared_settings(args)
    for name in ("plans", "backbone"):
        del shared[name]
    display = make_display(quiet=args.quiet, to_stderr=args.json)
    with display:
        result = distill(
            source,
            **shared,
            teachers=args.teacher,
            student=args.student,
            ways=args.way,
            weighting=args.weighting,
            temperature=args.temperature,
            strength=args.strength,
            tap=args.tap,
            out=out,
            on_event=display.handle,
            progress=False,
        )
    keys = ("student", "verdict", "changes", "flips", "teachers")
    print_end(result, args, lambda: {key: result.result[key] for key in keys})
    return 0
