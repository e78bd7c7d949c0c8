"""``graftwork validate``: check a file before anything runs, every problem at once."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from graftwork.cli.common import add_component_argument

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "validate"
HELP = "check a suite.yaml, or a TOML file with plans or a card: every problem with its line"
EXAMPLES = """examples:
  graftwork validate suite.yaml
  graftwork validate my_plans.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    parser.add_argument("files", nargs="+", metavar="FILE", help="suite.yaml, or TOML file with [[plans]] or a card")
    add_component_argument(parser)


def _problems(file: str) -> list[str]:
    from pathlib import Path

    from graftwork.core.errors import ConfigError, FileFormatError

    path = Path(file)
    if not path.is_file():
        raise FileFormatError(f"{file} {'is a folder' if path.is_dir() else 'does not exist'}. Give a suite.yaml or a TOML file.")
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        from graftwork.data.reading.suite_yaml import validate_suite_yaml

        return [str(problem) for problem in validate_suite_yaml(path)] or _metric_problems(path)
    if suffix != ".toml":
        raise ConfigError(
            f"{file}: only .yaml, .yml and .toml files can be checked; data files are checked by graftwork fit --dry-run."
        )
    import tomllib

    from graftwork.workflows.plan_check import refuse_foreign_components

    try:
        is_card = "slug" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return [f"{file}: not valid TOML: {error}"]
    try:
        if is_card:
            from graftwork.core.cards import read_card

            plans = read_card(path).parse_plans()
        else:
            from graftwork.workflows.portfolio import read_plan_file

            plans = [entry.plan for entry in read_plan_file(path)]
        refuse_foreign_components(plans, file)
    except ConfigError as error:
        return [str(error)]
    return []


def _metric_problems(path: Path) -> list[str]:
    from graftwork.data.reading.suite_yaml import read_suite_yaml
    from graftwork.evaluation.metrics import metric_problem

    targets = [target for entry in read_suite_yaml(path).datasets for target in entry.targets if target.metric]
    problems = (metric_problem(target.name, target.metric, target.kind) for target in targets)
    return [f"{path}: {problem}" for problem in problems if problem]


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    failed = 0
    for file in args.files:
        problems = _problems(file)
        failed += bool(problems)
        for problem in problems:
            print(problem, file=sys.stderr)
        found = f"{len(problems)} problem{'s' * (len(problems) > 1)}" if problems else "fine"
        print(f"{file}: {found}")
    return 2 if failed else 0
