from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graftwork.core.errors import FileFormatError, StorageError
from graftwork.core.files import (
    append_jsonl,
    atomic_path,
    cache_folder,
    check_writable_folder,
    hash_file,
    open_to_append,
    read_json,
    read_jsonl,
    remove_leftovers,
    write_json,
    write_text,
)


def test_failed_write_keeps_the_old_file_and_leaves_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError, match="boom"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("boom")
    assert read_json(target) == {"a": 1}
    assert os.listdir(tmp_path) == ["result.json"]


def test_full_disk_is_named_and_the_old_file_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "result.json"
    write_text(target, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk is full.*--resume"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_file_system_that_becomes_read_only_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file cannot be removed either, which must not hide why the file was not written."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink"):
            patch.setattr(os, name, refuse)
        with pytest.raises(StorageError, match=r"Cannot write .*result\.json: Read-only file system"):
            write_text(tmp_path / "result.json", "new")
    assert len(remove_leftovers(tmp_path)) == 1


def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("GRAFTWORK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(StorageError, match="has no home folder. Set GRAFTWORK_CACHE"):
        cache_folder("features")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("features") == tmp_path / "graftwork" / "features"
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "own"))
    assert cache_folder("features") == tmp_path / "own" / "features"


def test_nan_is_refused_because_it_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_broken_json_names_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(FileFormatError, match=r"x\.json is not valid JSON.*line 1"):
        read_json(tmp_path / "x.json")


def test_log_survives_a_torn_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_jsonl(log, {"n": 1})
    with open(log, "ab") as handle:
        handle.write(b'{"n": 2, "to')
    append_jsonl(log, {"n": 3})
    assert read_jsonl(log) == [{"n": 1}, {"n": 3}]


@pytest.mark.skipif(os.name != "posix", reason="makes links and pipes")
def test_nothing_is_appended_through_a_link_to_a_pipe_or_to_a_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine\n")
    (tmp_path / "link").symlink_to(tmp_path / "mine.txt")
    (tmp_path / "dangling").symlink_to(tmp_path / "new.txt")
    (tmp_path / "hard").hardlink_to(tmp_path / "mine.txt")
    os.mkfifo(tmp_path / "pipe")
    for name, what in {
        "link": "a symbolic link",
        "dangling": "a symbolic link",
        "hard": "other names",
        "pipe": "no plain file",
    }.items():
        for append in (open_to_append, lambda path: append_jsonl(path, {"a": 1})):
            with pytest.raises(StorageError, match=rf"{name} .*{what}.*Remove it, or put a copy"):
                append(tmp_path / name)
    with pytest.raises(StorageError, match="Is a directory"):
        open_to_append(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine\n"
    assert not (tmp_path / "new.txt").exists()
    with open_to_append(tmp_path / "hard", may_be_shared=True) as shared:
        assert shared.tell() == 5
    with open_to_append(tmp_path / "deep" / "log") as made:
        made.write(b"x")
    assert (tmp_path / "deep" / "log").read_bytes() == b"x"


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="the system has no such flag")
def test_a_link_that_comes_between_look_and_opening_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "new.txt")
    monkeypatch.setattr(os.path, "islink", lambda path: False)
    with pytest.raises(StorageError, match="Cannot write .*log"):
        append_jsonl(tmp_path / "log", {"a": 1})
    assert not (tmp_path / "new.txt").exists()


def test_writable_folder_check_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"is a file, not a folder.*--out"):
        check_writable_folder(tmp_path / "file")
    assert check_writable_folder(tmp_path / "a" / "b").is_dir()
    assert os.listdir(tmp_path / "a" / "b") == []


def test_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "abc")
    assert hash_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '"\\'])
def test_json_that_python_gives_up_on_is_named_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")


KILLED = """
import os, sys
from graftwork.core.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(b"x" * 1000)
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path: Path) -> None:
    own = [".notes.graftwork-abc.tmp", ".out.abcdefgh.tmp", "out.graftwork-abcdefgh.tmp"]
    for name in own:
        (tmp_path / name).write_text("the user's")
    (tmp_path / ".out.graftwork-abcdefgh.tmp").symlink_to(tmp_path / own[0])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "out")], **pipes) as process:  # type: ignore[call-overload]
        temporary = Path(process.stdout.readline().strip())
        assert temporary.stat().st_size == 1000
        assert remove_leftovers(tmp_path) == []
        assert temporary.exists()
        process.kill()
    assert temporary.exists()
    assert remove_leftovers(tmp_path) == [(temporary, 1000)]
    assert sorted(os.listdir(tmp_path)) == sorted([*own, ".out.graftwork-abcdefgh.tmp"])
    assert remove_leftovers(tmp_path) == []


def test_a_write_test_that_was_killed_is_swept_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a kill comes before it
        check_writable_folder(tmp_path)
    (left,) = tmp_path.iterdir()
    (tmp_path / ".notes.graftwork-abcdefgh.tmp").write_text("")  # of another file: whoever writes that one removes it
    check_writable_folder(tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_with_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 250), "x")
    assert (tmp_path / ("n" * 250)).read_text() == "x"


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x1e", "\x0b"])
def test_a_log_keeps_texts_with_any_line_separator(tmp_path: Path, letter: str) -> None:
    log = tmp_path / "log.jsonl"
    records = [{"text": f"a{letter}b"}, {"text": "c"}]
    for record in records:
        append_jsonl(log, record)
    assert read_jsonl(log) == records


def test_the_longest_name_of_letters_with_several_bytes_can_be_written(tmp_path: Path) -> None:
    for letter in ("\u00e4", "\u6f22", "\U0001f600"):
        path = tmp_path / (letter * (255 // len(letter.encode())))
        write_text(path, "whole")
        assert path.read_text() == "whole"
    assert len(os.listdir(tmp_path)) == 3
