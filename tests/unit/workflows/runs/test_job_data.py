"""The suite of a run, as jobs of one process share it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from graftwork.core.errors import FileFormatError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.store import save_suite
from graftwork.data.suite import Suite
from graftwork.workflows.runs.job_data import run_suite


def suite_of(value: float) -> Suite:
    return Suite.of_arrays(
        name="toy",
        input_specs=table_input(1),
        tasks=[TaskSpec(name="y", kind="regression", size=1)],
        inputs={"numeric": np.full((60, 1), value, np.float32), "categorical": np.zeros((60, 0), np.int64)},
        targets={"y": np.arange(60.0)[:, None]},
        splits={"train": np.arange(30), "val": np.arange(30, 45), "test": np.arange(45, 60)},
    )


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("rows", [0, 10])
def test_a_run_in_the_folder_of_an_older_one_has_its_own_data(tmp_path: Path, removed: bool, seed: int, rows: int) -> None:
    folder = tmp_path / "run" / "suite"
    save_suite(suite_of(1.0), folder)
    first = run_suite(folder, seed, rows=rows)
    assert first.inputs["numeric"][0, 0] == 1.0
    assert run_suite(folder, seed, rows=rows) is first, "read once"
    if removed:  # as people do who begin again
        shutil.rmtree(tmp_path / "run")
    save_suite(suite_of(2.0), folder)
    assert run_suite(folder, seed, rows=rows).inputs["numeric"][0, 0] == 2.0


def test_a_suite_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="is not a stored suite"):
        run_suite(tmp_path, 0)
