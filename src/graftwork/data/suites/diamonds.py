"""Diamonds: 53,940 stones with their size, to tell price and three grades; a large public table of mixed targets.

Read from the file ``diamonds.csv`` of the package ``plotnine`` (MIT), which took it from R's ggplot2 (MIT); no code of the
package runs.

Features are weight and measures alone: ``carat``, ``x``, ``y``, ``z`` (millimetres), ``depth`` (height by width, per cent) and
``table`` (width of the top face by width, per cent). Targets are never features of each other: with the grades as inputs the
price would be nearly given away, and the price tells of the grades. Even so weight explains most of the price, and ``depth`` is
``2 z / (x + y)``, while cut is graded by such proportions: these are honest relations and not leaks. Stones that stand in the
table twice, in all columns, are kept once, so that none is on both sides of a split; measures of 0 are missing values.
"""

from __future__ import annotations

import numpy as np

from graftwork.core.optional import package_folder
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.data.suites.public_tables import check_rows, sample_rows, table_suite

__all__ = ["diamonds"]

_FEATURES = ["carat", "depth", "table", "x", "y", "z"]
_GRADES = {
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": ("J", "I", "H", "G", "F", "E", "D"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}
"""From worst to best."""
_DISTINCT = 53_794


def diamonds(*, rows: int = 20_000, seed: int = 0) -> Suite:
    """Diamonds, a real table of up to 53,794 stones: price and three grades, from weight and measures.

    They are split 60/20/20 at random.

    Args:
        rows: Number of stones, from 10 to 53,794 (all distinct ones).
        seed: Draws the sample and the split.

    Raises:
        ConfigError: If ``rows`` is out of range.
        MissingDependencyError: If the package is not installed; the message says what to type.
    """
    import pandas as pd

    check_rows("diamonds", rows, _DISTINCT, "distinct stones")
    folder = package_folder("plotnine", install="pip install --no-deps plotnine==0.15.9", purpose="The diamonds suite") / "data"
    table = sample_rows(pd.read_csv(folder / "diamonds.csv").drop_duplicates(), rows, seed)
    table[["x", "y", "z"]] = table[["x", "y", "z"]].where(table[["x", "y", "z"]] > 0)
    # `codes` are -1 where a grade is none of the list, which is a missing label.
    grades = {name: pd.Categorical(table[name], categories=levels).codes.astype(np.int64) for name, levels in _GRADES.items()}
    return table_suite(
        "diamonds",
        table,
        features=_FEATURES,
        tasks=[
            TaskSpec(name="price", kind="regression", size=1),
            *(TaskSpec(name=name, kind="ordinal", size=len(levels), classes=levels) for name, levels in _GRADES.items()),
        ],
        targets={"price": table["price"].to_numpy(np.float32)[:, None], **grades},
        credits={"diamonds": "MIT; data of ggplot2, as shipped with plotnine"},
        seed=seed,
    )
