"""A small share of the torture: some damaged files of every kind, and some kills."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from .files import torture
from .kills import KINDS, make_place, undisturbed, with_kills
from .mutations import LANGUAGES, mutated
from .subjects import SUBJECTS, Subject, build, copy_of
from .watch import TooSlowError, watched

COUNT = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build(folder, ["separate"])
    return folder


@pytest.mark.parametrize("name", SUBJECTS)
def test_whole_files_are_read_and_damaged_ones_end_in_named_errors(base: Path, tmp_path: Path, name: str) -> None:
    subject = SUBJECTS[name]
    copy_of(base / subject.folder, tmp_path / "whole")
    subject.read(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    found = torture(subject, base, tmp_path, tmp_path / "faults", count=COUNT, seed=7)
    assert found["right"] + found["refused"] == COUNT, found


def test_a_fault_is_found_counted_and_kept(base: Path, tmp_path: Path) -> None:
    def bad(folder: Path) -> None:
        raise KeyError("an entry")

    faults = tmp_path / "faults"
    found = torture(Subject("bad", "cache", ("entry/*",), "bytes", bad), base, tmp_path, faults, count=2, seed=1)
    assert (found["fault"], found["KeyError: 'an entry'"]) == (2, 2)
    assert "KeyError" in (faults / "bad-1-0" / "fault.txt").read_text()
    assert (faults / "bad-1-0" / "entry" / "manifest.json").exists()


def test_what_is_done_elsewhere_is_seen(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    with watched(inside, cpu_seconds=60) as trespass:
        (inside / "file").write_text("x")
        outside.write_text("x")
    assert trespass.found == [f"wrote {outside}"]
    with watched(inside, cpu_seconds=60) as trespass:
        outside.read_text()
    assert trespass.found == [f"read {outside}"]
    with pytest.raises(TooSlowError), watched(inside, cpu_seconds=0.05):
        while True:
            pass


@pytest.mark.parametrize("language", LANGUAGES)
def test_equal_seeds_damage_equally(language: str) -> None:
    text = b'{"a": 1, "b": [1, 2]}\n{"a": 2}' if language == "jsonl" else b'{"a": [1, {"b": "x"}], "c": null}'
    found = [mutated(random.Random(seed), text, language) for seed in range(40)]
    assert found == [mutated(random.Random(seed), text, language) for seed in range(40)]
    assert sum(content != text for content in found) > 30


def test_killed_merges_leave_what_an_undisturbed_one_leaves(tmp_path: Path) -> None:
    place = make_place(tmp_path, ["merge"], layers=2)
    expected, seconds = undisturbed(KINDS["merge"], place)
    for number in range(2):
        kills, problems = with_kills(KINDS["merge"], place, expected, seconds, random.Random(number), f"merge-{number}")
        assert problems == []
        assert set(kills) <= {"group"}
