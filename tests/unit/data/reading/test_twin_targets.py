"""Targets that repeat one another are named before anything is trained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from graftwork import open_suite

N = 300


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    total = rng.normal(90, 12, N).round(1)
    grade = rng.integers(0, 3, N)
    return pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "total": total,
            "copy": total,
            "in_thousands": total / 1000,
            "fahrenheit": 32 - 1.8 * total,
            "near": total + 0.05 * rng.normal(size=N),
            "grade": grade,
            "mark": np.array(["good", "poor", "fair"])[grade],
            "other": rng.integers(0, 3, N),
        }
    )


def notes(frame: pd.DataFrame, targets: str) -> list[str]:
    found = open_suite(frame[["x", *targets.split(",")]], targets=targets).notes
    return [note for note in found if "say the same" in note]


def test_numbers_in_other_units_are_one_target(frame: pd.DataFrame) -> None:
    (found,) = notes(frame, "total,near,copy,in_thousands,fahrenheit")
    assert found == (
        "Targets 'total', 'copy', 'in_thousands' and 'fahrenheit' say the same: means over tasks count it 4 times, and what one of "
        "them teaches the others is no news. Leave all but one out, or weigh them with --weight."
    )


def test_classes_under_other_names_are_one_target(frame: pd.DataFrame) -> None:
    (found,) = notes(frame, "grade,mark,other")
    assert found.startswith("Targets 'grade' and 'mark' say the same: means over tasks count it 2 times")


def test_targets_that_differ_are_not_called_the_same(frame: pd.DataFrame) -> None:
    assert notes(frame, "total,near,other") == []
    changed = frame.assign(mark=np.where(np.arange(N) == 7, "good", frame["mark"]))
    changed.loc[7, "grade"] = 1
    assert notes(changed, "grade,mark") == []
    few = frame.assign(copy=frame["copy"].where(np.arange(N) < 60))
    assert notes(few, "total,copy") == [], "the other has labels where this one has none"


def test_many_sets_are_one_line(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    for number in range(4):
        frame[f"a{number}"] = rng.normal(size=N)
        frame[f"b{number}"] = 2 * frame[f"a{number}"]
    targets = ",".join(f"{letter}{number}" for number in range(4) for letter in "ab")
    (found,) = notes(frame, targets)
    assert found.startswith(
        "4 sets of targets say the same each, so that means over tasks count them several times: 'a0' and 'b0'"
    )
