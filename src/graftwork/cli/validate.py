"""``graftwork validate``: check a file before anything runs, every problem at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graftwork.cli.common import add_component_argument

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "validate"
HELP = "check a suite.yaml, a TOML file with plans or a card, or a run folder: every problem at once"
EXAMPLES = """examples:
  graftwork validate suite.yaml
  graftwork validate my_plans.toml
  graftwork validate runs/received          the plans of a run that somebody else made
"""

MOST_SHOWN = 100
"""Problems of one file that are printed: a damaged list may hold any number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    parser.add_argument("files", nargs="+", metavar="FILE", help="suite.yaml, TOML file with [[plans]] or a card, or run folder")
    add_component_argument(parser)


def _problems(file: str) -> list[str]:
    from pathlib import Path

    from graftwork.core.errors import ConfigError, FileFormatError

    path = Path(file)
    if os.path.isfile(path / "run.json"):
        return _run_problems(path)
    if not os.path.isfile(path):
        what = "is a folder without run.json" if os.path.isdir(path) else "does not exist"
        raise FileFormatError(f"{file} {what}. Give a suite.yaml, a TOML file or the folder of a run.")
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        from graftwork.data.reading.suite_yaml import validate_suite_yaml

        # Metrics last: they need tasks that could be read.
        return [str(problem) for problem in validate_suite_yaml(path)] or _metric_problems(path)
    if suffix != ".toml":
        raise ConfigError(
            f"{file}: only .yaml, .yml and .toml files can be checked; data files are checked by graftwork fit --dry-run."
        )
    from graftwork.core.toml_text import read_toml

    try:
        is_card = "slug" in read_toml(path)
    except ValueError as error:
        return [f"{file}: not valid TOML: {error}"]
    try:
        if is_card:
            from graftwork.core.cards import read_card

            tables: Sequence[Any] = read_card(path).plans
        else:
            from graftwork.workflows.portfolio import read_plan_tables

            tables = read_plan_tables(path)
    except ConfigError as error:
        return [str(error)]
    return _plan_problems(file, tables)


def _plan_problems(file: str, tables: Sequence[Any]) -> list[str]:
    from graftwork.workflows.portfolio import plan_table_problems

    return [f"{file}: {problem}" for problem in plan_table_problems(tables)]


def _run_problems(folder: Path) -> list[str]:
    """Return what is wrong with the plans that a run folder and its model name; nothing of it is run."""
    from graftwork.core.files import read_json

    problems: list[str] = []
    for file, keys in (("run.json", ("plans", "extra_plans")), ("model/config.json", ("plan",))):
        if not (folder / file).is_file():
            continue
        state = read_json(folder / file)
        if not isinstance(state, dict):
            problems.append(f"{folder / file}: it must hold an object; got {type(state).__name__}")
            continue
        held = [state[key] for key in keys if key in state]
        # A run holds lists of plans, a model a single one.
        tables = [table for item in held for table in (item if isinstance(item, list) else [item])]
        problems += _plan_problems(str(folder / file), tables)
    return problems


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
        for problem in problems[:MOST_SHOWN]:
            print(problem, file=sys.stderr)
        if len(problems) > MOST_SHOWN:
            print(f"{file}: and {len(problems) - MOST_SHOWN:,} more", file=sys.stderr)
        found = f"{len(problems)} problem{'s' * (len(problems) > 1)}" if problems else "fine"
        print(f"{file}: {found}")
    return 2 if failed else 0
