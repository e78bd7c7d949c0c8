"""Rows without any label: kept by every way of reading, found in the training split, and drawn where a plan asks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graftwork.data.loader import BatchStream
from graftwork.data.reading.ingest import open_suite
from graftwork.data.splits import resplit
from graftwork.data.suite import Suite, labelled_rows


def write_table(path: Path, rows: int, labels: str) -> None:
    lines = [f"{number % 7},{number % 5 / 10},{labels[number % len(labels)].strip()}" for number in range(rows)]
    path.write_text("\n".join(["first,second,kind", *lines]) + "\n")


def one_table(folder: Path) -> Suite:
    write_table(folder / "mixed.csv", 120, "uv  u v ")
    return open_suite(folder / "mixed.csv", targets="kind")


def two_data_sets(folder: Path) -> Suite:
    write_table(folder / "day.csv", 60, "uuvv")
    (folder / "night.csv").write_text("first,second\n" + "".join(f"{number % 6},{number % 4 / 10}\n" for number in range(40)))
    text = "datasets:\n- {name: day, source: day.csv, targets: [kind]}\n- {name: night, source: night.csv, targets: {}}\n"
    (folder / "suite.yaml").write_text(text)
    return open_suite(folder / "suite.yaml")


@pytest.mark.parametrize("source", [one_table, two_data_sets])
def test_unlabelled_rows_are_in_the_training_split_and_reach_a_step(tmp_path: Path, source: object) -> None:
    suite: Suite = source(tmp_path)  # type: ignore[operator]
    bare = np.flatnonzero(~labelled_rows(suite.targets["kind"]))
    assert len(bare) in (60, 40)
    for seed in (0, 1):
        train = resplit(suite, seed).splits["train"]
        assert set(bare) <= set(train)
        quotas = [{"rows": 8}, {"rows": 8, "role": "unlabelled"}]
        stream = BatchStream(suite, train, 8, 0, quotas=quotas)
        assert sorted(stream.unlabelled) == sorted(bare)
        drawn = np.concatenate([stream.rows_of(step)[8:] for step in range(-(-len(bare) // 8))])
        assert set(drawn) == set(bare)
    (note,) = [note for note in suite.notes if "have no label of any target" in note]
    assert note == (
        f"{len(bare)} rows have no label of any target; plans that learn from unlabelled rows use them for "
        f"training, others do not."
    )


def test_a_data_set_without_targets_is_a_domain(tmp_path: Path) -> None:
    suite = two_data_sets(tmp_path)
    assert suite.domains == ("day", "night")
    assert any("night (40 rows: no targets)" in note for note in suite.notes)
    stream = BatchStream(
        suite, suite.splits["train"], 8, 0, quotas=[{"rows": 8}, {"rows": 4, "role": "unlabelled", "domain": "night"}]
    )
    assert stream.batch(0).domain.tolist() == [0] * 8 + [1] * 4
