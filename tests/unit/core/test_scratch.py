"""Temporary folders: gone at the end, swept after a kill, and nothing of anybody else's with them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from graftwork.core.scratch import remove_scratch, scratch_folder, sweep, temporary_folder

pytest.importorskip("fcntl")

KILLED = """
import os, signal, sys
from pathlib import Path
from graftwork.core.files import atomic_path
from graftwork.core.scratch import scratch_folder, temporary_folder
place = Path(sys.argv[1])
with scratch_folder("test") as scratch, temporary_folder(place / "suite") as folder, atomic_path(place / "model") as file:
    for path in (scratch / "x", folder / "x"):
        path.write_text("x")
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_folder_is_gone_at_the_end(own_temporary: Path) -> None:
    with scratch_folder("test") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        assert folder.parent == own_temporary
        assert remove_scratch() == [], "a folder in use is locked"
    assert list(own_temporary.iterdir()) == []


def test_what_a_killed_process_left_is_swept(own_temporary: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(place)], check=False, timeout=60)
    assert len(list(own_temporary.iterdir())) == 1
    assert len(list(place.iterdir())) == 2
    with scratch_folder("other") as folder:
        assert list(own_temporary.iterdir()) == [folder]
    sweep(place)
    assert list(place.iterdir()) == []


def test_folders_of_others_stay(own_temporary: Path, tmp_path: Path) -> None:
    kept = [
        own_temporary / name
        for name in ("graftwork-mine", "graftwork-test-abcdefgh", "graftwork-test-ABCDEFGH.scratch", "x.scratch")
    ]
    for folder in kept:
        folder.mkdir()
        (folder / "file").write_text("of the user")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("of the user")
    link = own_temporary / "graftwork-test-abcdefgh.scratch"
    link.symlink_to(outside)
    assert remove_scratch() == []
    assert link.is_symlink()
    assert (outside / "file").exists()
    assert all((folder / "file").exists() for folder in kept)
    for name in (".suite.graftwork-abc.tmp", ".suite.tmp", "suite.graftwork-abcdefgh.tmp"):
        (outside / name).mkdir()
    os.symlink(own_temporary, outside / ".suite.graftwork-abcdefgh.tmp")
    sweep(outside)
    assert len(list(outside.iterdir())) == 5


def test_a_temporary_folder_in_use_stays(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "suite") as folder:
        sweep(tmp_path)
        assert folder.is_dir()
    assert not folder.exists()
