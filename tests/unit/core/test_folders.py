"""Folders of ours and of the user: what is refused, what is claimed, what is removed."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core import folders
from graftwork.core.errors import ConfigError, StorageError
from graftwork.core.files import atomic_path
from graftwork.core.folders import FolderKind, check_contents, check_folder, check_output_file, claim_folder, is_own, remove_own

KIND = FolderKind(marker="run.json", format="toy-1", noun="a toy run", lock=".lock")


def mark(folder: Path, content: object = None) -> None:
    (folder / "run.json").write_text(json.dumps({"format": "toy-1"} if content is None else content))


def test_absent_and_empty_folders_are_free_and_stay_as_they_are(tmp_path: Path) -> None:
    assert not check_folder(tmp_path / "absent", KIND)
    assert not (tmp_path / "absent").exists()
    assert not check_folder(tmp_path, KIND)
    assert list(tmp_path.iterdir()) == []


def test_the_error_names_folder_entries_and_remedy(tmp_path: Path) -> None:
    for name in ("b", "a", "run-1"):
        (tmp_path / name).mkdir()
    for number in range(6):
        (tmp_path / f"file{number}").touch()
    (tmp_path / "\x1b[31mred").touch()
    with pytest.raises(ConfigError) as caught:
        check_folder(tmp_path, KIND)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path} is not empty and is not a toy run (it has no run.json of the format toy-1): it holds ")
    assert "'\\x1b[31mred', a/, b/, file0, file1 and 5 more" in text
    assert text.endswith(f"Give --out a folder that is empty or does not exist yet, for example {tmp_path / 'run-2'}.")


@pytest.mark.parametrize("content", [{"format": "toy-2"}, {"format": ["toy-1"]}, [], "toy-1", None, {"window": 1}])
def test_a_file_that_only_has_the_name_is_no_marker(tmp_path: Path, content: object) -> None:
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert not is_own(tmp_path, KIND)
    with pytest.raises(ConfigError, match=r"it holds run\.json"):
        check_folder(tmp_path, KIND)


def test_markers_that_cannot_be_trusted(tmp_path: Path) -> None:
    mark(tmp_path)
    assert is_own(tmp_path, KIND)
    assert check_folder(tmp_path, KIND)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "run.json").symlink_to(tmp_path / "run.json")
    assert not is_own(tmp_path / "linked", KIND)
    (tmp_path / "run.json").write_text("[" * 100_000)
    assert not is_own(tmp_path, KIND)
    (tmp_path / "run.json").write_bytes(b'{"format": "toy-1"')
    assert not is_own(tmp_path, KIND)
    assert not is_own(tmp_path / "nowhere", KIND)


def test_earlier_markers_are_known_by_all_their_keys(tmp_path: Path) -> None:
    kind = FolderKind(marker="run.json", format="toy-2", noun="x", earlier_keys=frozenset({"a", "b"}))
    mark(tmp_path, {"b": 1, "a": 2})
    assert is_own(tmp_path, kind)
    for other in ({"a": 1}, {"a": 1, "b": 2, "c": 3}, {}):
        mark(tmp_path, other)
        assert not is_own(tmp_path, kind)


def test_what_a_kill_left_before_the_marker_counts_as_nothing(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "run.json") as half_written:
        names = (".lock", ".write-test-abc", half_written.name)
        half_written.touch()
    (tmp_path / "run.json").unlink()
    for name in names:
        (tmp_path / name).touch()
    claim = claim_folder(tmp_path, KIND)
    claim.release()
    assert claim.is_new
    (tmp_path / ".lock").write_text("of another program")
    with pytest.raises(ConfigError, match=r"it holds \.lock"):
        check_folder(tmp_path, KIND)


def test_files_links_and_hidden_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, reason in {"file": "is a file, not a folder", "dangling": "is a link that leads nowhere"}.items():
        with pytest.raises(StorageError, match=f"{name} {reason}.*--out"):
            claim_folder(tmp_path / name, KIND)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the administrator may list everything")
def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o300)
    with pytest.raises(StorageError, match="Cannot list"):
        check_folder(tmp_path / "closed", KIND)


def test_a_claim_is_discarded_with_what_came_into_it(tmp_path: Path) -> None:
    claim = claim_folder(tmp_path / "runs" / "new", KIND)
    assert claim.is_new
    mark(claim.path)
    (claim.path / "jobs" / "a").mkdir(parents=True)
    claim.discard(["jobs", "run.json", ".lock", "absent"])
    claim.release()
    claim.release()
    assert not (tmp_path / "runs" / "new").exists()


def test_a_folder_that_was_there_before_stays(tmp_path: Path) -> None:
    claim = claim_folder(tmp_path, KIND)
    mark(tmp_path)
    claim.discard(["run.json", ".lock"])
    claim.release()
    assert list(tmp_path.iterdir()) == []


def test_what_others_put_into_a_claimed_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").touch()
    claim = claim_folder(tmp_path / "new", KIND)
    mark(claim.path)
    (claim.path / "notes.txt").touch()
    (claim.path / "jobs").symlink_to(tmp_path / "elsewhere")
    (claim.path / "logs").mkdir()
    (claim.path / "logs" / "link").symlink_to(tmp_path / "elsewhere")
    claim.discard(["jobs", "logs", "run.json", ".lock"])
    claim.release()
    assert {path.name for path in claim.path.iterdir()} == {"notes.txt", "jobs"}
    assert (tmp_path / "elsewhere" / "mine.txt").exists()


def test_nothing_is_discarded_of_a_folder_with_a_marker_or_of_another_folder(tmp_path: Path) -> None:
    mark(tmp_path)
    claim = claim_folder(tmp_path, KIND)
    assert not claim.is_new
    claim.discard(["run.json"])
    claim.release()
    assert (tmp_path / "run.json").exists()
    claim = claim_folder(tmp_path / "new", KIND)
    claim.path.rename(tmp_path / "moved")
    claim.path.mkdir()
    (claim.path / "jobs").mkdir()
    claim.discard(["jobs"])
    claim.release()
    assert (claim.path / "jobs").exists()


def test_two_claims_of_one_folder(tmp_path: Path) -> None:
    first = claim_folder(tmp_path / "new", KIND)
    with pytest.raises(ConfigError, match=r"Another process is working in .*new.*--out"):
        claim_folder(tmp_path / "new", KIND)
    first.release()
    claim_folder(tmp_path / "new", KIND).release()


@pytest.mark.parametrize("fault", [FileNotFoundError(2, "gone"), FileExistsError(17, "was there")])
def test_a_folder_that_goes_while_it_is_claimed_is_made_again(
    fault: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = folders.check_writable_folder, []

    def once(folder: Path) -> Path:
        calls.append(folder)
        if len(calls) == 1:
            raise StorageError("Cannot write.") from fault
        return real(folder)

    monkeypatch.setattr(folders, "check_writable_folder", once)
    claim = claim_folder(tmp_path / "new", KIND)
    assert len(calls) == 2
    assert claim.is_new
    claim.release()


def test_a_folder_that_cannot_be_written_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def refuse(folder: Path) -> Path:
        calls.append(folder)
        raise StorageError("Cannot write.") from PermissionError(13, "denied")

    monkeypatch.setattr(folders, "check_writable_folder", refuse)
    with pytest.raises(StorageError):
        claim_folder(tmp_path / "new", KIND)
    assert len(calls) == 1


def _claim_and_begin(folder: str, answers: multiprocessing.Queue[bool]) -> None:
    try:
        claim = claim_folder(folder, KIND)
    except ConfigError:
        answers.put(False)
        return
    holder = claim.path.parent / "holder"
    try:
        holder.touch(exist_ok=False)  # fails if another process holds a lock on this folder as well
        assert claim.is_new
        mark(claim.path)
        time.sleep(0.02)
        holder.unlink()
        claim.discard(["run.json", ".lock"])  # it never began to train: the next one may have the folder
        answers.put(True)
    finally:
        claim.release()


def test_processes_that_begin_at_once_never_share_a_lock(tmp_path: Path) -> None:
    """Each discards its run, lock file included, while others wait for the lock on it."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=_claim_and_begin, args=(str(tmp_path / "new"), answers)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert any(answers.get(timeout=60) for _ in processes)
    # A lock file may stay: one that another process had made is not removed. It keeps nobody away.
    assert {path.name for path in tmp_path.rglob("*")} <= {"new", ".lock"}
    assert not check_folder(tmp_path / "new", KIND)


@given(st.text(alphabet="ab./", max_size=12))
def test_names_never_lead_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    outer = tmp_path_factory.mktemp("outer")
    (outer / "a").touch()
    (outer / "b").mkdir()
    folder = outer / "own"
    (folder / "a").mkdir(parents=True)
    is_inside = not any(part in ("", ".", "..") for part in name.split("/"))
    if is_inside:
        assert remove_own(folder, name)
    else:
        with pytest.raises(ValueError, match="must lead to something below"):
            remove_own(folder, name)
    assert (folder / "a").exists() == (name != "a")
    assert {path.name for path in outer.iterdir()} == {"a", "b", "own"}


def test_links_on_the_way_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    own = tmp_path / "own"
    own.mkdir()
    (own / "jobs").symlink_to(tmp_path / "mine")
    assert not remove_own(own, "jobs/file")
    assert not remove_own(own, "jobs")
    assert (tmp_path / "mine" / "file").exists()
    (own / "deep").mkdir()
    (own / "deep" / "link").symlink_to(tmp_path / "mine")
    assert remove_own(own, "deep")
    assert (tmp_path / "mine" / "file").exists()
    assert remove_own(own, "absent/at/all")


def test_a_marked_folder_with_links_or_special_files_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    import socket

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    for number, (name, place) in enumerate(
        {
            "log.jsonl": lambda path: path.symlink_to(outside / "mine.txt"),
            ".lock": lambda path: path.symlink_to(outside / "new"),
            "jobs": lambda path: path.symlink_to(outside),
            "deep/er/delta": lambda path: path.symlink_to(outside),
            "logs/worker-1.log": lambda path: path.symlink_to("../run.json"),
            "circle": lambda path: path.symlink_to(path),
            "pipe": os.mkfifo,
            "deep/socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
        }.items()
    ):
        folder = tmp_path / f"run{number}"
        (folder / name).parent.mkdir(parents=True)
        mark(folder)
        place(folder / name)
        before = sorted(folder.rglob("*"))
        for refuse in (check_folder, claim_folder, check_contents):
            with pytest.raises(ConfigError) as caught:
                refuse(folder, KIND)
            assert str(caught.value).startswith(f"{folder / name} is a ")
            assert "A toy run holds none" in str(caught.value)
            assert "put a copy of what is meant in its place, or remove it" in str(caught.value)
        assert sorted(folder.rglob("*")) == before
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"mine.txt": "mine"}


def test_a_link_in_the_place_of_the_marker_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").symlink_to(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"run\.json is a link"):
        check_contents(tmp_path / "run", KIND)


def test_a_folder_that_the_user_linked_is_claimed_and_one_without_a_marker_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mark(tmp_path / "disk")
    (tmp_path / "disk" / "jobs").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    claim_folder(tmp_path / "run", KIND).release()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "link").symlink_to(tmp_path)
    check_contents(tmp_path / "project", KIND)
    check_contents(tmp_path / "absent", KIND)


@pytest.mark.skipif(os.name != "posix", reason="no such locks elsewhere")
def test_a_lock_that_becomes_a_link_after_the_check_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(tmp_path)
    (tmp_path / ".lock").symlink_to(tmp_path.parent / "made-by-a-lock")
    monkeypatch.setattr(folders, "check_contents", lambda folder, kind: None)
    with pytest.raises(StorageError, match=r"\.lock is a symbolic link"):
        claim_folder(tmp_path, KIND)
    assert not (tmp_path.parent / "made-by-a-lock").exists()


def test_an_output_is_never_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, copy = tmp_path / "t.csv", tmp_path / "copy.csv"
    source.touch()
    copy.touch()
    (tmp_path / "link.csv").symlink_to(source)
    (tmp_path / "hard.csv").hardlink_to(source)
    for out in ("t.csv", "./t.csv", str(source), "link.csv", "hard.csv", f"../{tmp_path.name}/t.csv"):
        with pytest.raises(ConfigError, match=re.escape(f"{Path(out)} is also an input")):
            check_output_file(out, [tmp_path / "absent", source])
    assert check_output_file("copy.csv", [source]) == Path("copy.csv")
    assert check_output_file("new.csv", [source, tmp_path / "new.csv"]) == Path("new.csv")
    with pytest.raises(ConfigError, match="is a folder"):
        check_output_file(tmp_path, [])
