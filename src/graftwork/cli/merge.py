"""``graftwork merge``: combine tuned models without training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from graftwork.cli.common import add_component_argument, parse_assignments
from graftwork.cli.shared_flags import add_device_argument, add_flag, add_quiet_argument, add_seed_argument
from graftwork.core.plain_text import own_code

if TYPE_CHECKING:
    from graftwork.workflows.merge_report import MergeReport

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "merge"
HELP = "combine models that were tuned from one base, without training"
EXAMPLES = """examples:
  graftwork merge --base base.safetensors --models a.safetensors b.safetensors --out merged.safetensors
  graftwork merge --base base/ --models a/ b/ c/ --method ties --density 0.3 --lambda 1.2 --exclude 'classifier.*' --out merged.safetensors
  graftwork merge --base base/ --models a/ b/ --method task-arithmetic --lambda 0.4 --weights 1,0.5 --out merged.safetensors
  graftwork merge --base base/ --models a/ b/ --method ties --set trim=per-tensor --set zero_sign=positive --out merged.safetensors
  graftwork merge --models target/ donor/ --method fisher --suite suite.yaml --set trials=50 --out merged.safetensors
  graftwork merge --models a/ b/ --method slerp --set t=0.3 --out merged.safetensors
  graftwork merge --base base/ --models a/ b/ --method ties --suite suite.yaml --search lambda=0.4,0.8,1.2 --search density=0.2,0.5 --out m.safetensors
  graftwork merge --base base/ --models adapter_a/ run_b/delta/ c/ --method ties --out merged.safetensors      adapters, deltas, models
  graftwork merge --models adapter_a/ adapter_b/ --method ties --rank 16 --out adapter_ab/       adapters alone give an adapter
  graftwork merge --base base/ --models a/ b/ --method ties --shard-size 5GB --out merged/       a folder that transformers loads
  graftwork merge config.yml --out merged/                          a YAML file of mergekit, as it is
  graftwork merge --models a/ b/ --method averaging --align --repair --suite suite.yaml --out merged.safetensors
  graftwork merge --models a/ --method fisher --set result=fisher --suite a.yaml --out a.fisher.safetensors
  graftwork merge --models a/ b/ --method fisher --statistics fisher=a.fisher.safetensors,b.fisher.safetensors --out merged.safetensors
"""
_NEEDS = " Looks at whole models: give data (--suite) and model folders of graftwork, or files beside the models (--statistics)."


def _methods() -> str:
    """Return the methods that cards and the built-in table describe, one paragraph each; nothing of them is imported."""
    import textwrap

    from graftwork.workflows.merge_methods import merge_methods

    lines = []
    for method in merge_methods().values():
        names = method.name + (f" (also {', '.join(method.aliases)})" if method.aliases else "")
        lines.append(f"  {names}")
        needs = _NEEDS if "ModelMerger" in method.seams else ""
        lines += textwrap.wrap(f"{method.summary}{needs}", 110, initial_indent="      ", subsequent_indent="      ")
    return "methods (--method; --set KEY=VALUE sets any keyword of their class):\n" + "\n".join(lines) + "\n"


class _HelpWithMethods(argparse.RawDescriptionHelpFormatter):
    """Puts the list of methods before the examples. The cards are read for it, so only where help is printed."""

    def add_text(self, text: str | None) -> None:
        super().add_text(f"{_methods()}\n{text}" if text is EXAMPLES else text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    parser.formatter_class = _HelpWithMethods
    parser.add_argument("config", nargs="?", metavar="FILE.yml", help="YAML file of mergekit; says models and method")
    parser.add_argument(
        "--base", metavar="MODEL", help="pretrained model: .safetensors file or model folder; some methods need none"
    )
    parser.add_argument(
        "--models",
        metavar="MODEL",
        nargs="+",
        default=[],
        help="models tuned from it, or changes of it: adapter folders of peft, delta files, delta folders of tune runs",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        required=True,
        help="where to: a name that ends in .safetensors becomes a file of the weights, any other a folder (a model as transformers "
        "loads it; of adapters without --base an adapter of peft)",
    )
    add_flag(parser, "--method", ", or package.module:Name (default: task-arithmetic)")
    parser.add_argument(
        "--density", metavar="SHARE", type=float, help="share of changes kept, above 0 and at most 1 (default: 0.2 for ties)"
    )
    parser.add_argument(
        "--lambda",
        dest="scaling",
        metavar="X",
        type=float,
        help="factor on the merged change (default: 1 for ties, 0.4 for task-arithmetic)",
    )
    parser.add_argument(
        "--rank",
        metavar="N",
        type=int,
        help="largest rank of an adapter folder that is written (default: exact, or the largest of the adapters)",
    )
    parser.add_argument(
        "--shard-size", metavar="SIZE", help="part the weights of a model folder into files of at most so much, such as 5GB"
    )
    parser.add_argument("--weights", metavar="W,W", help="one weight per model, separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the method; may repeat")
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="pattern of tensors that keep the base's values; may repeat",
    )
    parser.add_argument(
        "--buffers", choices=("mean", "base"), default="mean", help="running statistics of the models (default: mean)"
    )
    parser.add_argument(
        "--suite",
        metavar="FILE",
        help="data: suite.yaml or a saved suite. Methods that need rows see no test rows; each model is scored before and after",
    )
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="KEY=V,V,...",
        help="try these values of a setting on validation rows, and merge with the best; weights=20 tries 20 points; may repeat",
    )
    parser.add_argument(
        "--metric", metavar="NAME", default="", help="what scores and searches go by (default: each task's own metric)"
    )
    parser.add_argument(
        "--align",
        nargs="?",
        const="auto",
        metavar="A>B,A>C,...",
        help="put the models' units in the order of the base's (or first model's) before merging; pairs of layers, or none to trace "
        "the network",
    )
    parser.add_argument(
        "--repair", action="store_true", help="measure running statistics of BatchNorm on training rows after merging (--suite)"
    )
    parser.add_argument(
        "--statistics",
        action="append",
        default=[],
        metavar="KIND=FILE,FILE",
        help="files beside the models for methods that need them, one for each model; may repeat",
    )
    add_device_argument(parser, "networks work, of methods that need some", default="cpu")
    add_seed_argument(parser, "methods that draw numbers", default=0)
    parser.add_argument("--no-hashes", action="store_true", help="leave hashes of the inputs out of the lineage")
    add_quiet_argument(parser, "the written path")
    add_component_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from graftwork.core.errors import ConfigError
    from graftwork.workflows.merge import DEFAULT_METHOD, merge

    live = sys.stderr.isatty() and not args.quiet

    def show(done: int, total: int) -> None:
        if live:
            start = own_code("\r", sys.stderr)
            print(f"{start}merging: {done} of {total} tensors", end="" if done < total else "\n", file=sys.stderr, flush=True)

    if args.config:
        return _print(_run_file(args, show), args)
    if not args.models:
        raise ConfigError("Name the models with --models, or give a YAML file of mergekit.")
    try:
        weights = [float(item) for item in args.weights.split(",")] if args.weights else None
    except ValueError as error:
        raise ConfigError(f"--weights takes numbers separated by commas, such as 1,0.5; got {args.weights!r}.") from error
    settings = parse_assignments(args.set, flag="--set", plain=True)
    statistics = {
        kind: [file.strip() for file in files.split(",")]
        for kind, files in parse_assignments(args.statistics, flag="--statistics", plain=True).items()
    }
    report: MergeReport = merge(
        args.base,
        args.models,
        args.out,
        method=args.method or DEFAULT_METHOD,
        density=args.density,
        scaling=args.scaling,
        weights=weights,
        settings=settings,
        search=_searched(args.search),
        metric=args.metric,
        align=_pairs(args.align),
        repair=args.repair,
        from_text=True,
        rank=args.rank,
        shard_size=_shard_size(args),
        exclude=args.exclude,
        buffers=args.buffers,
        suite=args.suite,
        statistics=statistics,
        device=args.device,
        seed=args.seed,
        hashes=not args.no_hashes,
        on_progress=show,
    )
    return _print(report, args)


def _pairs(text: str | None) -> bool | list[tuple[str, str]]:
    """Return how models are aligned: not at all, by their network, or by pairs of layers.

    Raises:
        ConfigError: If a pair has not two layers.
    """
    from graftwork.core.errors import ConfigError

    if text is None or text == "auto":
        return text == "auto"
    found = [tuple(part.strip() for part in item.split(">")) for item in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in found):
        raise ConfigError(f"--align takes pairs of layers such as first>second,first>norm; got {text!r}.")
    return [(pair[0], pair[1]) for pair in found]


def _searched(items: list[str]) -> dict[str, list[str] | int]:
    """Return the values to be searched by setting, as texts; ``weights`` take a number of points, or points parted by ``;``."""
    found: dict[str, list[str] | int] = {}
    for key, text in parse_assignments(items, flag="--search", plain=True).items():
        # As the flags call it.
        name = "scaling" if key == "lambda" else key
        if name == "weights":
            found[name] = int(text) if text.strip().isdigit() else [part for part in text.split(";") if part.strip()]
        else:
            found[name] = [part.strip() for part in text.split(",") if part.strip()]
    return found


def _run_file(args: argparse.Namespace, show: Callable[[int, int], None]) -> MergeReport:
    """Merge as a YAML file says."""
    from graftwork.core.errors import ConfigError
    from graftwork.workflows.mergekit import merge_from_yaml

    flags = (
        "base", "models", "method", "density", "scaling", "weights", "set", "exclude", "suite", "search", "metric", "align", "repair", "statistics", "rank"
    )  # fmt: skip
    given = [f"--{'lambda' if flag == 'scaling' else flag}" for flag in flags if getattr(args, flag)]
    given += [f"--{flag}" for flag, default in (("buffers", "mean"), ("device", "cpu")) if getattr(args, flag) != default]
    if given:
        raise ConfigError(f"{args.config} says models and method; leave {', '.join(given)} out, or leave out the file.")
    return merge_from_yaml(
        args.config, args.out, hashes=not args.no_hashes, shard_size=_shard_size(args), seed=args.seed, on_progress=show
    )


def _shard_size(args: argparse.Namespace) -> int | None:
    from graftwork.workflows.quantities import parse_bytes

    return parse_bytes(args.shard_size) if args.shard_size else None


def _print(report: MergeReport, args: argparse.Namespace) -> int:
    """Print what was done; the exit code is 1 if the result is not finite."""
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if report.not_finite:
        print(
            f"warning: NaN or infinity in {len(report.not_finite)} tensors: {', '.join(report.not_finite[:5])}", file=sys.stderr
        )
    if args.quiet:
        print(report.path)
        # The file is written all the same: NaN may have been in the models.
        return 1 if report.not_finite else 0
    models = f"{report.num_models} {'model' if report.num_models == 1 else 'models'}"
    print(f"{report.path}: {models}, {report.num_parameters:,} parameters merged in {report.seconds:.1f} s")
    if report.trials:
        best = max(report.trials, key=lambda trial: trial.change)
        chosen = ", ".join(f"{key}={value}" for key, value in best.settings.items())
        print(f"searched {len(report.trials)} settings on validation rows: {chosen} (mean change {best.change:+.2f} %)")
    if report.scores:
        print(_score_table(report))
    if report.sign_conflict_share is not None:
        print(f"sign conflicts: {report.sign_conflict_share:.1%} of the entries that several models change")
    return 1 if report.not_finite else 0


def _score_table(report: MergeReport) -> str:
    """Return the models' scores before and after."""
    import shutil

    from graftwork.cli.tables import format_table

    rows = [
        [
            score.task,
            score.metric,
            score.model,
            f"{score.before:.4g}",
            "" if score.after is None else f"{score.after:.4g}",
            f"{score.num_rows:,}",
        ]
        for score in report.scores
    ]
    header = ["task", "metric", "model", "before", "merged", f"{report.scored_on} rows"]
    return format_table(header, rows, width=shutil.get_terminal_size().columns, stretch=2, right=(3, 4, 5))
