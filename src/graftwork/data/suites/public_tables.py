"""What suites of public tables share: how many rows there are, the sample, the split, and the suite around the encoded
columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_rows", "sample_rows", "table_suite"]


def check_rows(name: str, rows: int, most: int, what: str) -> None:
    """Refuse a number of rows that the table does not have.

    Args:
        name: Name of the suite.
        rows: How many are asked for.
        most: How many there are.
        what: What a row is, in the plural.

    Raises:
        ConfigError: If ``rows`` is not from 10 to ``most``.
    """
    if not 10 <= rows <= most:
        raise ConfigError(f"The suite {name} has {most:,} {what}; `rows` must be from 10 to that, got {rows:,}.")


def sample_rows(table: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """Return ``rows`` rows drawn without replacement, numbered anew."""
    # pandas takes seeds of 32 bits.
    return table.sample(n=rows, random_state=Seeds(seed).integer("sample") % 2**32).reset_index(drop=True)


def table_suite(
    name: str,
    table: pd.DataFrame,
    *,
    features: Sequence[str],
    tasks: Sequence[TaskSpec],
    targets: Mapping[str, NDArray[Any]],
    credits: Mapping[str, str],
    seed: int,
) -> Suite:
    """Return a suite whose rows are split 60/20/20 at random; the encoder is fitted on the training rows.

    Args:
        name: Name of the suite.
        table: ``N`` rows.
        features: Columns that models see.
        tasks: The tasks.
        targets: Their labels, ``N`` rows each.
        credits: Where the data come from, and their licence.
        seed: Draws the split.
    """
    rows = len(table)
    order = Seeds(seed).numpy("split").permutation(rows)
    splits = {
        "train": np.sort(order[: rows * 6 // 10]),
        "val": np.sort(order[rows * 6 // 10 : rows * 8 // 10]),
        "test": np.sort(order[rows * 8 // 10 :]),
    }
    encoder = TableEncoder.fit(table, list(features), rows=splits["train"])
    return Suite.of_arrays(
        name=name,
        input_specs={"table": encoder.spec()},
        tasks=tasks,
        inputs=encoder.transform(table),
        targets=dict(targets),
        splits=splits,
        credits=credits,
    )
