"""Cells of targets with several labels, split when asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftwork import open_suite
from graftwork.core.errors import DataError

LABELS = ("cat", "dog", "owl", "yak")


def frame_of(sign: str, rows: int = 120) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    flags = rng.random((rows, 4)) < 0.5
    flags[~flags.any(axis=1), 0] = True
    cells = [sign.join(name for name, is_in in zip(LABELS, row, strict=True) if is_in) for row in flags]
    return pd.DataFrame({"x": rng.normal(size=rows), "tags": cells, "kind": rng.choice(["new_york", "rome"], rows)}), flags


@pytest.mark.parametrize("sign", [";", ",", "_", "|", " and "])
def test_cells_are_split_at_the_sign(sign: str) -> None:
    frame, flags = frame_of(sign)
    suite = open_suite(frame.drop(columns="kind"), targets="tags", split_labels=sign)
    assert suite.tasks[0].kind == "multilabel"
    assert suite.tasks[0].classes == LABELS
    assert np.array_equal(suite.targets["tags"], flags)
    assert f"its cells are split at {sign!r}, as asked" in suite.notes[0]


@pytest.mark.parametrize("sign", [";", ",", "_", "|"])
def test_auto_finds_the_sign_and_leaves_names_alone(sign: str) -> None:
    frame, flags = frame_of(sign)
    suite = open_suite(frame, targets="tags,kind", split_labels="auto")
    assert [task.kind for task in suite.tasks] == ["multilabel", "binary"]
    assert np.array_equal(suite.targets["tags"], flags)


def test_nothing_is_split_unless_asked() -> None:
    frame, _ = frame_of("_")
    assert open_suite(frame, targets="tags").tasks[0].kind == "multiclass"
    with pytest.raises(DataError, match="no target has a tenth of its cells"):
        open_suite(frame, targets="tags", split_labels="/")
    numbers = frame.assign(y=["1,5", "2,5"] * 60)
    assert open_suite(numbers, targets="y,tags", split_labels="_").tasks[0].kind != "multilabel"


def test_a_suite_file_says_it(tmp_path: Path) -> None:
    frame, flags = frame_of("_")
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "suite.yaml").write_text("split_labels: _\ndatasets:\n  - source: t.csv\n    targets: [tags]\n", encoding="utf-8")
    assert np.array_equal(open_suite(tmp_path / "suite.yaml").targets["tags"], flags)


@given(st.lists(st.one_of(st.none(), st.sets(st.sampled_from("abcd"), min_size=1)), min_size=40, max_size=60))
def test_known_cells_come_back(cells: list[set[str] | None]) -> None:
    several = sum(cell is not None and len(cell) > 1 for cell in cells)
    known = [cell for cell in cells if cell is not None]
    labels = sorted(set().union(*known)) if known else []
    if several < 0.1 * len(known) or len(known) < 25 or len(labels) < 2:
        return
    frame = pd.DataFrame(
        {"y": [None if cell is None else "_".join(sorted(cell)) for cell in cells], "x": np.arange(len(cells)) % 7.0}
    )
    suite = open_suite(frame, targets="y", split_labels="_")
    for row, cell in zip(suite.targets["y"], cells, strict=True):
        assert np.isnan(row).all() if cell is None else [labels[index] for index in np.flatnonzero(row)] == sorted(cell)
