from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from graftwork.core.errors import CheckpointError
from graftwork.domains.tabular.checkpoint_files import (
    named_damage,
    read_arrays,
    read_index,
    read_named_text,
    write_arrays,
    write_index,
    write_named_text,
)
from graftwork.interfaces.learner import LearnerContext


class Owner:
    """Stands for a context: whose checkpoint it is."""

    def identity(self) -> dict[str, Any]:
        return {"seed": 1}

    def check_identity(self, saved: Any, folder: Path, *, any_horizon: bool = False) -> None:
        if saved != self.identity():
            raise CheckpointError(f"The checkpoint in {folder} was written for another seed.")


OWNER = cast(LearnerContext, Owner())


def test_files_are_named_by_what_they_hold_and_read_back(tmp_path: Path) -> None:
    arrays = {"weights": np.arange(6.0).reshape(2, 3), "turned": np.arange(6.0).reshape(2, 3).T}
    name, text = write_arrays(tmp_path, "model", arrays), write_named_text(tmp_path, "txt", "tree")
    assert write_arrays(tmp_path, "model", {"weights": np.zeros(1)}) != name  # the file of before stays
    for key, value in read_arrays(tmp_path, name).items():
        np.testing.assert_array_equal(value, arrays[key])
    assert read_named_text(tmp_path, text) == "tree"
    write_index(tmp_path / "index.json", "trees-1", OWNER, {"file": name})
    assert read_index(tmp_path / "index.json", "trees-1", OWNER)["file"] == name


def test_damage_and_strangers_are_named(tmp_path: Path) -> None:
    name, text = write_arrays(tmp_path, "model", {"weights": np.ones(3)}), write_named_text(tmp_path, "txt", "tree")
    write_index(tmp_path / "index.json", "trees-1", OWNER, {})
    with pytest.raises(CheckpointError, match="has format 'trees-1'; this version reads 'trees-2'"):
        read_index(tmp_path / "index.json", "trees-2", OWNER)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1] + b"x")
    (tmp_path / text).write_text("another tree")
    for read in (lambda: read_arrays(tmp_path, name), lambda: read_named_text(tmp_path, text)):
        with pytest.raises(CheckpointError, match="is damaged. Remove"):
            read()
    with pytest.raises(CheckpointError, match="There is no whole checkpoint of trees in"), named_damage("trees", tmp_path):
        read_index(tmp_path / "nothing.json", "trees-1", OWNER)


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    inside.mkdir()
    name = write_arrays(outside, "model", {"weights": np.ones(3)})
    with pytest.raises(FileNotFoundError):
        read_arrays(inside, f"../outside/{name}")
