"""Metrics that users name: any source takes them, and names that fit nothing are refused."""

from __future__ import annotations

import shlex

import pandas as pd
import pytest

from graftwork.cli import fit as fit_verb
from graftwork.cli.common import VerbParser, parse_assignments
from graftwork.cli.run_flags import shared_settings
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.reading.ingest import open_suite
from graftwork.evaluation.metrics import check_metrics, default_metric
from graftwork.workflows.runs.begin import repeat_command
from graftwork.workflows.runs.settings import FitSettings


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": [float(n % 7) for n in range(60)],
            "sold": ["yes" if n % 3 else "no" for n in range(60)],
            "price": [n * 1.5 for n in range(60)],
        }
    )


def test_a_table_and_a_ready_suite_take_metrics() -> None:
    suite = open_suite(_frame(), targets="sold,price", metrics={"sold": "log_loss"})
    assert [default_metric(task) for task in suite.tasks] == ["log_loss", "rmse"]
    again = open_suite(suite, metrics={"price": "mae"})
    assert [default_metric(task) for task in again.tasks] == ["log_loss", "mae"]
    assert suite.fingerprint() != again.fingerprint()


def test_a_suite_file_takes_metrics_beside_its_own(tmp_path) -> None:
    _frame().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "suite.yaml").write_text(
        "name: s\ndatasets:\n  - name: t\n    source: t.csv\n    targets:\n      sold: {metric: f1_macro}\n      price: {metric: mae}\n"
    )
    suite = open_suite(tmp_path / "suite.yaml", metrics={"sold": "log_loss"})
    assert [default_metric(task) for task in suite.tasks] == ["log_loss", "mae"]


def test_a_metric_for_something_else_is_refused() -> None:
    with pytest.raises(DataError, match=r"--metric names 'solt', which is no task\. Did you mean 'sold'"):
        open_suite(_frame(), targets="sold,price", metrics={"solt": "log_loss"})
    with pytest.raises(ConfigError, match="cannot judge a regression task"):
        check_metrics(open_suite(_frame(), targets="sold,price", metrics={"price": "log_loss"}).tasks)


def test_the_repeated_command_gives_the_same_settings() -> None:
    settings = FitSettings.of_user(
        "t.csv",
        targets="a,b",
        weights={"a": 2.0},
        metrics={"a": "log_loss"},
        task_kinds={"b": "regression"},
        histories={"c": "item"},
        missing=["?", "-9"],
        overrides={"learning_rate": 0.1},
        steps=30,
        tolerance=2.0,
        prefer="cost",
        single=True,
        refit=False,
        folds=0,
    )
    parser = VerbParser(prog="graftwork fit")
    fit_verb.add_arguments(parser)
    args = parser.parse_args(shlex.split(repeat_command(settings))[2:])
    own = {
        name: getattr(args, name)
        for name in ("max_params", "max_latency", "max_memory", "folds", "single", "tolerance", "prefer")
    }
    own["weights"] = parse_assignments(args.weight, flag="--weight", plain=True)
    # What was not given is None on the command line, and has its default in the settings.
    asked = {name: value for name, value in shared_settings(args).items() if name != "resume" and value is not None}
    assert FitSettings.of_user(args.source, **asked, **own, refit=not args.no_refit) == settings
