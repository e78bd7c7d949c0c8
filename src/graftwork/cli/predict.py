"""``graftwork predict``: use the model that a run chose, or that of another finalist."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from graftwork.cli.common import add_component_argument
from graftwork.cli.shared_flags import add_flag, add_out_argument

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "predict"
HELP = "predict new rows, pictures or texts with the model of a run"
EXAMPLES = """examples:
  graftwork predict runs/table-20260101-120000 new.csv --out predictions.csv
  graftwork predict runs/table-20260101-120000 new.csv --interval 90
  graftwork predict runs/emoji-20260101-120000 pictures/ --tasks category,ink
  graftwork predict runs/table-20260101-120000 new.csv --explain 5 --out why.csv
  graftwork predict runs/table-20260101-120000 new.csv --plan lightgbm       another finalist than the chosen one
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("source", metavar="DATA", help="table, folder of pictures, picture, or text table")
    add_flag(parser, "--plan")
    parser.add_argument("--tasks", metavar="A,B", help="tasks to compute; the others cost nothing (default: all)")
    add_out_argument(parser, "file to write: csv, parquet or jsonl", "print as csv")
    parser.add_argument("--probabilities", "--proba", action="store_true", help="add a column for the probability of every class")
    parser.add_argument(
        "--interval",
        metavar="PERCENT",
        help="add columns NAME_low and NAME_high for numbers: of new rows, as many in a hundred lie between them, as in 90",
    )
    parser.add_argument(
        "--escape-formulas",
        action="store_true",
        help="write texts that a spreadsheet would take for a formula (=, +, -, @) with an apostrophe in front; csv only",
    )
    parser.add_argument(
        "--explain",
        metavar="N",
        nargs="?",
        const="all",
        help="write in place of predictions how much each column moves the prediction of each row, by replacing one column at a time "
        "with those of 30 training rows; N keeps the N columns with the largest effects (default: all)",
    )
    add_flag(parser, "--threads", "ONNX Runtime")
    add_component_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from pathlib import Path

    from graftwork.core.errors import ConfigError
    from graftwork.core.files import atomic_path, remove_leftovers
    from graftwork.serving.formula_cells import escape_formulas
    from graftwork.serving.predict import Predictor
    from graftwork.serving.predictions_file import check_predictions_file, check_replaced_predictions

    suffix = Path(args.out).suffix.lower() if args.out else ".csv"
    if suffix not in (".csv", ".parquet", ".jsonl"):
        raise ConfigError(f"--out takes a .csv, .parquet or .jsonl file; got {args.out!r}.")
    if args.escape_formulas and suffix != ".csv":
        raise ConfigError(f"--escape-formulas is for csv files, which spreadsheets open; got --out {args.out!r}. Leave it out.")
    # Before the model is loaded: nothing is computed that could not be written.
    if args.out:
        check_predictions_file(args.out, args.run, args.source)
    tasks = [name.strip() for name in args.tasks.split(",") if name.strip()] if args.tasks else None
    predictor = Predictor(args.run, plan=args.plan, threads=args.threads)
    if args.out:
        check_replaced_predictions(args.out, predictor.tasks)
    if args.explain is not None:
        from graftwork.serving.explain import explain

        frame = explain(predictor, args.source, tasks, most=_most(args))
    else:
        frame = predictor.predict(args.source, tasks, probabilities=args.probabilities, interval=_share(args.interval))
    for note in frame.attrs.get("notes", []):
        print(f"note: {note}", file=sys.stderr)
    if args.escape_formulas:
        frame = escape_formulas(frame)
    if not args.out:
        frame.to_csv(sys.stdout)
        return 0
    remove_leftovers(Path(args.out).parent)  # of predictions that were killed
    with atomic_path(args.out) as path:
        if suffix == ".csv":
            frame.to_csv(path)
        elif suffix == ".parquet":
            _with_plain_types(frame).to_parquet(path)
        else:
            # JSON lines have no index; names of rows go into a column.
            frame.reset_index().to_json(path, orient="records", lines=True, force_ascii=False)
    print(f"{args.out}: {len(frame)} rows, {len(frame.columns)} columns", file=sys.stderr)
    return 0


def _with_plain_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with texts in columns that hold numbers beside texts, which a column of Parquet cannot: those of effects."""
    mixed = [
        name for name in frame.columns if frame[name].dtype == object and len({type(value) for value in frame[name].dropna()}) > 1
    ]
    return frame.assign(**{name: frame[name].map(str, na_action="ignore") for name in mixed})


def _most(args: argparse.Namespace) -> int | None:
    """Return how many columns ``--explain`` shows; None for all.

    Raises:
        ConfigError: If it is no number of at least 1, or flags are given that add columns to predictions.
    """
    from graftwork.core.errors import ConfigError

    # The table of effects has a line for each column: there is no place for what they add.
    clashing = [flag for flag, given in (("--interval", args.interval), ("--probabilities", args.probabilities)) if given]
    if clashing:
        raise ConfigError(f"--explain writes effects in place of predictions, without {' and '.join(clashing)}. Run it apart.")
    if args.explain == "all":
        return None
    if not args.explain.isdigit() or int(args.explain) < 1:
        raise ConfigError(
            f"--explain takes the number of columns to show, as in 5; got {args.explain!r}. Put it behind the run and the source."
        )
    return int(args.explain)


def _share(text: str | None) -> float | None:
    """Return a share for ``90``, ``90%`` or ``0.9``.

    Raises:
        ConfigError: If it is no number, not between 0 and 100 %, or ``1``, which may mean one percent or all.
    """
    from graftwork.core.errors import ConfigError
    from graftwork.evaluation.conformal import check_level

    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise ConfigError(f"--interval takes percent, as in 90; got {text!r}.") from None
    if text.strip() in ("1", "1.0"):
        raise ConfigError(
            f"--interval {text} may mean 1 % of the rows or all of them. Write 1% or 0.01; no interval holds all rows."
        )
    share = number if number < 1 and not text.strip().endswith("%") else number / 100
    check_level(share)
    return share
