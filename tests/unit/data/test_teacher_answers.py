from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork.core.errors import FileFormatError
from graftwork.data.teacher_answers import TeacherAnswers, read_answers, store_answers

FEATURES = np.random.default_rng(0).standard_normal((23, 4)).astype(np.float32)


def ask(rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    return {"features": FEATURES[rows], "outputs/a/b": FEATURES[rows, :2], "maps/layer.1": FEATURES[rows].reshape(-1, 2, 2)}


def test_answers_are_computed_in_parts_once_and_read_mapped(tmp_path: Path) -> None:
    seen: list[int] = []

    def counted(rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        seen.append(len(rows))
        return ask(rows)

    entry = store_answers(tmp_path, "k", "big", 23, counted, batch_size=10)
    assert seen == [10, 10, 3]
    assert store_answers(tmp_path, "k", "big", 23, counted, batch_size=10) == entry
    assert seen == [10, 10, 3]
    answers = read_answers(entry)
    assert (answers.name, len(answers)) == ("big", 23)
    assert isinstance(answers.features, np.memmap)
    np.testing.assert_array_equal(answers.features, FEATURES)
    # Names with slashes, and places, come back as they were.
    np.testing.assert_array_equal(answers.outputs["a/b"], FEATURES[:, :2])
    assert answers.maps["layer.1"].shape == (23, 2, 2)
    assert answers.classes is None
    assert set(answers.arrays()) == {"features", "outputs/a/b", "maps/layer.1"}
    assert len(TeacherAnswers(name="nobody")) == 0


def test_what_is_not_finite_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="features of rows 20 to 22"):
        store_answers(
            tmp_path, "k", "big", 23, lambda rows: {"features": np.where(rows >= 21, np.nan, 0.0)[:, None]}, batch_size=10
        )
    assert not (tmp_path / "teacher-k" / "manifest.json").exists()


def test_a_lost_or_damaged_entry_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="missing or damaged .* graftwork distill with --resume"):
        read_answers(tmp_path / "nothing")
    entry = store_answers(tmp_path, "k", "big", 23, ask)
    next(entry.glob("a0-*.npy")).write_bytes(b"rubbish")
    with pytest.warns(RuntimeWarning, match="damaged"), pytest.raises(FileFormatError, match="missing or damaged"):
        read_answers(entry)
