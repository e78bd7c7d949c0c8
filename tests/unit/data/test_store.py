from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graftwork.core.errors import DataError, FileFormatError, StorageError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.store import is_stored_suite, load_suite, save_suite
from graftwork.data.suite import Suite, labelled_rows


def suite_of(number: int = 12, **more: object) -> Suite:
    fields: dict[str, object] = {
        "name": "s",
        "tasks": (TaskSpec(name="y/1", kind="regression", size=2), TaskSpec(name="c", kind="binary", size=1, classes=("n", "y"))),
        "inputs": {
            "numeric": np.random.default_rng(0).normal(size=(number, 3)).astype(np.float32),
            "categorical": np.zeros((number, 0), np.int64),
        },
        "targets": {"y/1": np.random.default_rng(1).normal(size=(number, 2)).astype(np.float32), "c": np.arange(number) % 2},
        "splits": {"train": np.arange(8), "val": np.arange(8, 10), "test": np.arange(10, number)},
        "groups": np.arange(number) // 2,
        "domain": np.zeros(number, np.int64),
        "domains": ("d",),
        "input_specs": table_input(3, encoder={"kind": "table", "columns": []}),
        "raw": {
            "text": ["ä", None],
            "preview": np.arange(6, dtype=np.uint8),
            "frame": {"x": np.array([1.5, np.nan]), "w": ["a", "b"]},
            "number": 2.0,
        },
        "notes": ("one", "two"),
        "credits": {"a": "b"},
        "sources": {"f.csv": "00"},
    }
    return Suite.of_arrays(**{**fields, **more})


def test_round_trip(tmp_path: Path) -> None:
    suite = suite_of()
    assert save_suite(suite, tmp_path / "deep" / "s") == tmp_path / "deep" / "s"
    other = load_suite(tmp_path / "deep" / "s")
    assert other.fingerprint() == suite.fingerprint()
    assert isinstance(other.inputs["numeric"], np.memmap)
    assert not other.inputs["numeric"].flags.writeable
    for name in ("name", "tasks", "domains", "input_specs", "notes", "credits", "sources"):
        assert getattr(other, name) == getattr(suite, name), name
    assert list(other.targets) == list(suite.targets)
    assert other.inputs["categorical"].shape == (12, 0)
    np.testing.assert_array_equal(other.groups, suite.groups)
    np.testing.assert_array_equal(other.raw["preview"], suite.raw["preview"])
    np.testing.assert_array_equal(other.raw["frame"]["x"], suite.raw["frame"]["x"])
    assert (other.raw["text"], other.raw["frame"]["w"], other.raw["number"]) == (["ä", None], ["a", "b"], 2.0)
    assert load_suite(tmp_path / "deep" / "s", memory_map=False).inputs["numeric"].flags.writeable


def test_nothing_but_the_suite_is_left(tmp_path: Path) -> None:
    save_suite(suite_of(), tmp_path / "s")
    save_suite(suite_of(name="again"), tmp_path / "s")
    assert os.listdir(tmp_path) == ["s"]
    assert load_suite(tmp_path / "s").name == "again"


def test_an_older_suite_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_of()
    save_suite(suite, tmp_path / "s")
    with pytest.raises(TypeError, match="arrays and JSON values only; got object"):
        save_suite(suite_of(raw={"bad": object()}), tmp_path / "s")
    monkeypatch.setattr("graftwork.data.store.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="No space left on device.*Free space"):
        save_suite(suite_of(name="new"), tmp_path / "s")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["s"]
    assert load_suite(tmp_path / "s").fingerprint() == suite.fingerprint()


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(StorageError, match=r"is not empty and is not a stored suite.*it holds thesis\.txt.*folder that is empty"):
        save_suite(suite_of(), tmp_path)
    with pytest.raises(StorageError, match="is a file, not a folder"):
        save_suite(suite_of(), tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "x"
    (tmp_path / "empty").mkdir()
    save_suite(suite_of(), tmp_path / "empty")
    assert is_stored_suite(tmp_path / "empty")


@pytest.mark.parametrize("name", ["notes.txt", "data.npy", "more"])
def test_a_suite_is_not_replaced_together_with_other_files(tmp_path: Path, name: str) -> None:
    save_suite(suite_of(), tmp_path / "s")
    (tmp_path / "s" / name).mkdir()
    with pytest.raises(StorageError, match=f"holds '{name}' beside a stored suite, so it is not replaced"):
        save_suite(suite_of(name="new"), tmp_path / "s")
    assert (tmp_path / "s" / name).exists()


def test_a_folder_with_some_other_suite_json_is_not_a_suite(tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text('{"tests": []}')
    with pytest.raises(StorageError, match=r"it holds suite\.json"):
        save_suite(suite_of(), tmp_path)
    assert (tmp_path / "suite.json").read_text() == '{"tests": []}'


def test_damaged_suites(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no suite.json"):
        load_suite(tmp_path)
    folder = save_suite(suite_of(), tmp_path / "s")
    first = folder / json.loads((folder / "suite.json").read_text())["arrays"]["inputs/numeric"]
    whole = first.read_bytes()
    first.write_bytes(whole[:-8])
    with pytest.raises(FileFormatError, match="damaged.*make the suite again"):
        load_suite(folder)
    first.write_bytes(b"\x80\x04\x95garbage")
    with pytest.raises(FileFormatError, match="damaged"):
        load_suite(folder)
    first.unlink()
    with pytest.raises(FileFormatError, match="missing or damaged"):
        load_suite(folder)
    (folder / "suite.json").write_text('{"format": "graftwork-suite-0"}')
    with pytest.raises(FileFormatError, match="format 'graftwork-suite-0'; this version reads 'graftwork-suite-1'"):
        load_suite(folder)


def test_suite_record() -> None:
    suite = suite_of()
    assert len(suite) == 12
    assert suite.task("c").kind == "binary"
    assert suite.with_tasks(("c",)).task_names == ("c",)
    assert suite.task("y/1").center == pytest.approx(suite.targets["y/1"][:8].mean(axis=0))
    assert suite.fingerprint() != suite_of(name="t").fingerprint()
    with pytest.raises(DataError, match="no task 'd'; the tasks are y/1, c"):
        suite.task("d")
    with pytest.raises(DataError, match="same number of rows"):
        suite_of(inputs={"numeric": np.zeros((3, 1), np.float32)})
    assert labelled_rows(np.array([[np.nan, 1.0], [np.nan, np.nan]])).tolist() == [True, False]


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_arrays_outside_of_the_folder_are_not_read(tmp_path: Path, kind: str) -> None:
    folder = save_suite(suite_of(), tmp_path / "s")
    state = json.loads((folder / "suite.json").read_text())
    name = next(iter(state["arrays"]))
    outside = tmp_path / "outside.npy"
    os.replace(folder / state["arrays"][name], outside)
    if kind == "link":
        (folder / state["arrays"][name]).symlink_to(outside)
    else:
        state["arrays"][name] = "../outside.npy" if kind == "parent" else str(outside)
    (folder / "suite.json").write_text(json.dumps(state))
    with pytest.raises(FileFormatError, match=r"names the array file '.*', which is not in .*Make the suite again"):
        load_suite(folder)


KILLED = """
import os, runpy, sys
from pathlib import Path
suite_of = runpy.run_path(sys.argv[1])["suite_of"]
from graftwork.data.store import load_suite, save_suite
for number in range(40):
    folder = Path(sys.argv[2]) / f"place-{number}" / "s"
    save_suite(suite_of(), folder)
    child = os.fork()
    if not child:
        left = number
        def dying(call):
            def replaced(*arguments, **more):
                global left
                if not left:
                    os._exit(1)
                left -= 1
                return call(*arguments, **more)
            return replaced
        for name in ("replace", "rename", "unlink", "rmdir", "fsync"):
            setattr(os, name, dying(getattr(os, name)))
        save_suite(suite_of(name="new"), folder)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), load_suite(folder).name)
    save_suite(suite_of(name="last"), folder)
    assert load_suite(folder).name == "last"
    assert len(os.listdir(folder)) == 1 + len(list(folder.glob("*.npy"))) == 12, os.listdir(folder)
"""


def test_a_kill_at_any_moment_leaves_a_whole_suite(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, __file__, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "1 s", "killed at once"
    assert "1 new" in lines, "killed while the old one was removed"
    assert lines[-1] == "0 new", "not killed"


@pytest.mark.parametrize("key", ["arrays", "order", "tasks", "raw", "notes", "input_specs", "inputs/numeric"])
@pytest.mark.parametrize("is_gone", [True, False])
def test_a_damaged_list_of_contents_is_named(tmp_path: Path, key: str, is_gone: bool) -> None:
    folder = save_suite(suite_of(), tmp_path / "s")
    state = json.loads((folder / "suite.json").read_text())
    part = state["arrays"] if key == "inputs/numeric" else state
    if is_gone:
        del part[key]
    else:
        part[key] = 7
    (folder / "suite.json").write_text(json.dumps(state))
    if key == "raw" and not is_gone:
        assert load_suite(folder).raw == 7, "any JSON value can be the raw part"
        return
    with pytest.raises(FileFormatError, match="damaged|input|array"):
        load_suite(folder)
