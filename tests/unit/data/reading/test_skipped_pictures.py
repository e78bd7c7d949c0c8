"""A few pictures that cannot be read are skipped; many are an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graftwork import open_suite
from graftwork.core.errors import DataError

pillow = pytest.importorskip("PIL.Image")


def folder_with(tmp_path: Path, bad: list[int], *, rows: int = 120) -> Path:
    rng = np.random.default_rng(0)
    names = [f"p{row:03d}.png" for row in range(rows)]
    for row, name in enumerate(names):
        if row in bad:
            (tmp_path / name).write_bytes(b"\x89PNG no picture")
        else:
            pillow.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / name)
    pd.DataFrame({"file": names, "kind": np.arange(rows) % 3, "size": rng.normal(size=rows)}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    return tmp_path


def test_a_bad_picture_is_skipped_with_its_row(tmp_path: Path) -> None:
    suite = open_suite(folder_with(tmp_path, [17]), targets="kind,size", image_size=8)
    assert len(suite) == 120
    assert sum(map(len, suite.splits.values())) == 119
    assert all(17 not in rows for rows in suite.splits.values())
    assert suite.targets["kind"][17] == -1
    assert np.isnan(suite.targets["size"][17]).all()
    note = next(note for note in suite.notes if "skipped" in note)
    assert note.startswith("1 row is skipped, since its picture cannot be read:")
    assert "p017.png" in note


def test_many_bad_pictures_and_strict_runs_are_errors(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [3])
    with pytest.raises(DataError, match="1 of 120 pictures cannot be decoded"):
        open_suite(folder, targets="kind", image_size=8, strict=True)
    (folder / "p005.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 120 pictures cannot be decoded"):
        open_suite(folder, targets="kind", image_size=8)


def test_a_table_of_pictures(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, [40])
    suite = open_suite(folder / "labels.csv", targets="kind", image_column="file", image_size=8)
    assert sum(map(len, suite.splits.values())) == 119
    assert (suite.inputs["image"][40] == 255).all(), "the row stays, empty and without a label"


def test_a_suite_file_may_be_strict(tmp_path: Path) -> None:
    folder_with(tmp_path, [40])
    text = "datasets:\n  - source: labels.csv\n    image_column: file\n    targets: [kind]\n"
    (tmp_path / "suite.yaml").write_text(f"image_size: 8\n{text}", encoding="utf-8")
    assert sum(map(len, open_suite(tmp_path / "suite.yaml").splits.values())) == 119
    (tmp_path / "suite.yaml").write_text(f"image_size: 8\nstrict: true\n{text}", encoding="utf-8")
    with pytest.raises(DataError, match="1 of 120 pictures cannot be decoded"):
        open_suite(tmp_path / "suite.yaml")
