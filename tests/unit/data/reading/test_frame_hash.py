from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from graftwork.data.reading.frame_hash import hash_frame

FRAME = pd.DataFrame(
    {
        "n": [1.5, np.nan, 3.0],
        "i": [1, 2, 3],
        "b": [True, False, True],
        "w": pd.Series(["a", None, "\ud800"], dtype=object),
        "d": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
        "c": pd.Categorical(["x", "y", "x"]),
        "m": [1, "1", [2]],
        "j": pd.array([1, None, 3], dtype="Int64"),
    }
)


def test_equal_frames_have_equal_hashes_whatever_their_index() -> None:
    assert hash_frame(FRAME) == hash_frame(FRAME.copy().set_index(pd.Index([7, 8, 9])))
    assert len(hash_frame(FRAME)) == 64
    assert hash_frame(FRAME.iloc[:0]) == hash_frame(FRAME.iloc[:0].copy())


@pytest.mark.parametrize(
    ("column", "row", "value"), [("n", 0, 1.25), ("i", 1, 9), ("b", 2, False), ("w", 1, "b"), ("m", 0, "1"), ("j", 1, 2)]
)
def test_every_cell_counts(column, row, value) -> None:
    other = FRAME.copy()
    changed = [value if number == row else cell for number, cell in enumerate(other[column].tolist())]
    other[column] = pd.Series(changed, dtype=other[column].dtype)
    assert hash_frame(other) != hash_frame(FRAME)


def test_names_and_order_count() -> None:
    assert hash_frame(FRAME.rename(columns={"n": "o"})) != hash_frame(FRAME)
    assert hash_frame(FRAME.iloc[::-1]) != hash_frame(FRAME)
    assert hash_frame(FRAME[["i", "n"]]) != hash_frame(FRAME[["n", "i"]])
