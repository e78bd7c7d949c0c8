"""``graftwork merge``: combine tuned models without training."""

from __future__ import annotations

import argparse
import sys

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "merge"
HELP = "combine models that were tuned from one base, without training"
EXAMPLES = """examples:
  graftwork merge --base base.safetensors --models a.safetensors b.safetensors --out merged.safetensors
  graftwork merge --base base/ --models a/ b/ c/ --method ties --density 0.3 --lambda 1.2 --exclude 'classifier.*' --out merged.safetensors
  graftwork merge --base base/ --models a/ b/ --method task-arithmetic --lambda 0.4 --weights 1,0.5 --out merged.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--base", required=True, help="pretrained model: .safetensors file or model folder")
    parser.add_argument("--models", required=True, nargs="+", help="models tuned from it")
    parser.add_argument("--out", required=True, help="safetensors file to write")
    parser.add_argument("--method", default="ties", help="ties (default), task-arithmetic or averaging")
    parser.add_argument("--density", type=float, help="TIES: share of changes kept, above 0 and at most 1 (default 0.2)")
    parser.add_argument(
        "--lambda", dest="scaling", type=float, help="factor on the merged change (default 1 for ties, 0.4 for task-arithmetic)"
    )
    parser.add_argument("--weights", help="one weight per model, separated by commas")
    parser.add_argument(
        "--exclude", action="append", default=[], help="pattern of tensors that keep the base's values; may repeat"
    )
    parser.add_argument(
        "--buffers", choices=("mean", "base"), default="mean", help="running statistics of the models (default mean)"
    )
    parser.add_argument("--no-hashes", action="store_true", help="leave hashes of the inputs out of the lineage")
    parser.add_argument("--quiet", action="store_true", help="print the written path only")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.core.errors import ConfigError
    from graftwork.workflows.merge import merge

    try:
        weights = [float(item) for item in args.weights.split(",")] if args.weights else None
    except ValueError as error:
        raise ConfigError(f"--weights takes numbers separated by commas, such as 1,0.5; got {args.weights!r}.") from error
    live = sys.stderr.isatty() and not args.quiet

    def show(done: int, total: int) -> None:
        if live:
            print(f"\rmerging: {done} of {total} tensors", end="" if done < total else "\n", file=sys.stderr, flush=True)

    report = merge(
        args.base,
        args.models,
        args.out,
        method=args.method,
        density=args.density,
        scaling=args.scaling,
        weights=weights,
        exclude=args.exclude,
        buffers=args.buffers,
        hashes=not args.no_hashes,
        on_progress=show,
    )
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if report.not_finite:
        print(
            f"warning: NaN or infinity in {len(report.not_finite)} tensors: {', '.join(report.not_finite[:5])}", file=sys.stderr
        )
    if args.quiet:
        print(report.path)
        return 1 if report.not_finite else 0
    print(f"{report.path}: {report.num_models} models, {report.num_parameters:,} parameters merged in {report.seconds:.1f} s")
    if report.sign_conflict_share is not None:
        print(f"sign conflicts: {report.sign_conflict_share:.1%} of the entries that several models change")
    return 1 if report.not_finite else 0
