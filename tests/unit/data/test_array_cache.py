"""The array cache: computed once, whole or absent, safe between processes."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from graftwork.core.errors import StorageError
from graftwork.data.array_cache import NewArray, cached_arrays, filled_arrays

ARRAYS = {"numbers": np.arange(12, dtype=np.float32).reshape(3, 4), "names": np.array([1, 2, 3], dtype=np.int64)}


def test_computed_once_and_read_back(tmp_path: Path) -> None:
    calls = []
    for _ in range(3):
        found = cached_arrays(tmp_path / "cache", "key", lambda: calls.append(1) or ARRAYS)
        assert set(found) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
            assert not found[name].flags.writeable
    assert len(calls) == 1
    cached_arrays(tmp_path / "cache", "other", lambda: calls.append(1) or ARRAYS)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "manifest", "manifest keys"])
def test_damage_is_noticed_and_mended(tmp_path: Path, damage: str) -> None:
    cached_arrays(tmp_path, "key", lambda: ARRAYS)
    file = next((tmp_path / "key").glob("numbers-*.npy"))
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "remove":
        file.unlink()
    else:
        (tmp_path / "key" / "manifest.json").write_text("{" if damage == "manifest" else '{"arrays": []}')
    with pytest.warns(RuntimeWarning, match="damaged .* computed again"):
        found = cached_arrays(tmp_path, "key", lambda: ARRAYS)
    np.testing.assert_array_equal(found["numbers"], ARRAYS["numbers"])
    np.testing.assert_array_equal(cached_arrays(tmp_path, "key", dict)["numbers"], ARRAYS["numbers"])


def test_a_killed_writer_leaves_no_entry(tmp_path: Path) -> None:
    def interrupted() -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_arrays(tmp_path, "key", interrupted)
    (tmp_path / "key").mkdir()  # files without a manifest are what a kill between two writes leaves
    (tmp_path / "key" / "numbers-0.npy").write_bytes(b"half")
    np.testing.assert_array_equal(cached_arrays(tmp_path, "key", lambda: ARRAYS)["numbers"], ARRAYS["numbers"])


def test_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'bad' holds Python objects"):
        cached_arrays(tmp_path, "key", lambda: {"bad": np.array([{}], dtype=object)})
    assert not (tmp_path / "key" / "manifest.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="message of the lock, which Windows has not")
def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="GRAFTWORK_CACHE"):
        cached_arrays(tmp_path / "file" / "cache", "key", lambda: ARRAYS)


def _ask(folder: str, log: str, barrier: object, answers: object) -> None:
    def compute() -> dict[str, np.ndarray]:
        with open(log, "a") as out:
            out.write("computed\n")
        return {"numbers": np.full(200_000, os.getpid(), dtype=np.int64)}

    barrier.wait()  # type: ignore[attr-defined]
    found = cached_arrays(folder, "key", compute)["numbers"]
    answers.put((int(found.min()), int(found.max())))  # type: ignore[attr-defined]


@pytest.mark.skipif(os.name == "nt", reason="without flock both compute")
def test_processes_that_ask_at_once_share_one_computation(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_ask, args=(str(tmp_path / "cache"), str(tmp_path / "log"), barrier, answers)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(timeout=60)
    assert len(found) == 1
    low, high = found.pop()
    assert low == high
    assert (tmp_path / "log").read_text() == "computed\n"


def test_a_manifest_that_names_other_arrays_is_not_believed(tmp_path: Path) -> None:
    arrays = {"one": np.arange(3), "two": np.arange(4.0)}
    cached_arrays(tmp_path, "entry", lambda: arrays)
    manifest = tmp_path / "entry" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["arrays"] = {"one": content["arrays"]["two"]}
    manifest.write_text(json.dumps(content))
    with pytest.warns(RuntimeWarning, match="list of arrays is not what was written"):
        found = cached_arrays(tmp_path, "entry", lambda: arrays)
    assert set(found) == {"one", "two"}
    assert np.array_equal(found["one"], arrays["one"])


def test_something_in_the_place_of_an_entry_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "entry").write_text("a file of the user")
    with pytest.raises(StorageError, match="has the place of one.*Remove it"):
        cached_arrays(tmp_path, "entry", lambda: {"one": np.arange(3)})
    assert (tmp_path / "entry").read_text() == "a file of the user"


def test_half_written_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "entry").mkdir()
    left = tmp_path / "entry" / ".one-0123.npy.graftwork-abcdefgh.tmp"
    left.write_bytes(b"half")
    cached_arrays(tmp_path, "entry", lambda: {"one": np.arange(3)})
    assert not left.exists()


def test_arrays_are_filled_in_place_and_read_back(tmp_path: Path) -> None:
    calls = []

    def fill(new: NewArray) -> None:
        calls.append(1)
        numbers, flags = new("numbers", (5, 3), np.float32), new("flags", (5,), bool)
        assert not numbers.any(), "new arrays hold zeros"
        for row in range(5):
            numbers[row], flags[row] = row, row % 2

    for _ in range(2):
        found = filled_arrays(tmp_path / "cache", "key", fill)
        np.testing.assert_array_equal(found["numbers"], np.arange(5)[:, None] * np.ones((1, 3)))
        np.testing.assert_array_equal(found["flags"], [False, True, False, True, False])
        assert isinstance(found["numbers"], np.memmap)
        assert not found["numbers"].flags.writeable
    assert len(calls) == 1
    # What either way writes, the other one reads.
    np.testing.assert_array_equal(cached_arrays(tmp_path / "cache", "key", dict)["flags"], found["flags"])


def test_a_filling_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(new: NewArray) -> None:
        new("numbers", (1000,), np.float64)
        raise FloatingPointError("no number")

    with pytest.raises(FloatingPointError, match="no number"):
        filled_arrays(tmp_path, "key", broken)
    assert not (tmp_path / "key").exists()
    with pytest.raises(ValueError, match="'bad' holds Python objects"):
        filled_arrays(tmp_path, "key", lambda new: new("bad", (2,), object) and None)


def test_a_file_in_the_place_of_an_entry_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("mine")
    with pytest.raises(StorageError, match="no cache entry"):
        filled_arrays(tmp_path, "key", lambda new: None)
