"""A small share of the torture: some damaged files of every kind, and some kills."""

from __future__ import annotations

import argparse
import io
import itertools
import mmap
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from . import processes
from .__main__ import main as everything
from .commands import KINDS, Place, make_place
from .equal import contents, differences, hashed
from .files import torture, turns
from .inject.sitecustomize import PHASES, phase_of
from .kills import Totals, with_kills
from .mutations import LANGUAGES, mutated
from .options import settle
from .processes import Command, orphans
from .repeat import Surroundings, draw_command, repeat
from .rounds import Change, Round, Whole, undisturbed
from .subjects import SUBJECTS, Subject, copy_of
from .troubles import TROUBLES
from .watch import Outside, TooSlowError, watched
from .wholes import build

COUNT = 3
UNMENDED: frozenset[str] = frozenset()
"""Kinds in which the torture finds faults that are not mended yet; here they would fail by chance."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build(folder, plans=["separate"])
    return folder


@pytest.mark.parametrize("name", [name for name in SUBJECTS if name not in UNMENDED])
def test_whole_files_are_read_and_damaged_ones_end_in_named_errors(base: Path, tmp_path: Path, name: str) -> None:
    subject = SUBJECTS[name]
    if not (base / subject.folder).exists():
        pytest.skip("the package that makes such files is not installed")
    copy_of(base / subject.folder, tmp_path / "whole")
    subject.read(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    (tmp_path / "work").mkdir()
    found = torture(subject, base, tmp_path / "work", tmp_path / "faults", count=COUNT, seed=7)
    assert found["right"] + found["refused"] == COUNT, found


def test_a_fault_is_found_counted_and_kept(base: Path, tmp_path: Path) -> None:
    def bad(folder: Path) -> None:
        raise KeyError("an entry")

    faults, work = tmp_path / "faults", tmp_path / "work"
    work.mkdir()
    found = torture(Subject("bad", "cache", ("entry/*",), "bytes", bad), base, work, faults, count=2, seed=1)
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


def _graph() -> bytes:
    from onnx import TensorProto, helper

    one = helper.make_tensor_value_info("a", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    made = helper.make_graph([helper.make_node("Add", ["a", "w"], ["b"])], "x", [one], [other], [weight])
    return bytes(helper.make_model(made).SerializeToString())


def _parquet() -> bytes:
    content = io.BytesIO()
    pd.DataFrame({"a": range(9), "b": list("abcabcabc")}).to_parquet(content)
    return content.getvalue()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")
def test_what_a_compiled_library_opens_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.npy").write_bytes(b"x" * 8)
    outside = Outside(folder)
    os.stat(folder / "secret.npy")
    assert outside.touched() == []
    # os.open has an audit event, and the kernel says it besides
    os.close(os.open(folder / "secret.npy", os.O_RDONLY))
    assert outside.touched() == ["secret.npy"]
    assert outside.touched() == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_equal_seeds_damage_equally(language: str) -> None:
    texts = {"jsonl": b'{"a": 1, "b": [1, 2]}\n{"a": 2}', "onnx": _graph(), "parquet": _parquet()}
    text = texts.get(language, b'{"a": [1, {"b": "x"}],\n"c": null}\n')
    found = [mutated(random.Random(seed), text, language) for seed in range(40)]
    assert found == [mutated(random.Random(seed), text, language) for seed in range(40)]
    assert sum(content != text for content in found) > 30


def test_moments_are_drawn_by_what_a_command_is_doing() -> None:
    names = {
        "run/suite/000.npy": "reading", "run/jobs/final-a-s0/result.json": "job", "run/jobs/final-a-s0/checkpoint-3/checkpoint.json": "checkpoint",
        "run/jobs/final-a-s0/.checkpoint.json.graftwork-x.tmp": "checkpoint", "run/jobs/export-a/result.json": "export", "run/model.new/x": "export",
        "run/.model.onnx.graftwork-x.tmp": "export", "run/plans/a/model/x": "export", "run/report.html": "report", "run/result.json": "report",
        "run/run.json": "state", "run/log.jsonl": "state", "work/done/a.json": "job", "work/state.json": "state", ".merged.safetensors.x.tmp": "output",
    }  # fmt: skip
    assert {name: phase_of(name) for name in names} == names
    assert set(names.values()) | {"training"} == set(PHASES)
    changes = [Change(1, "main", 0.1 * index, "reading", index, f"run/suite/{index}", 0.1) for index in range(500)]
    changes += [Change(2, "worker", 9.0, "checkpoint", 0, "run/jobs/final-a-s0/checkpoint.json", 2.0)]
    whole = Whole(Place(Path(), Path(), Path()), {}, 1.0, 1, tuple(changes))
    acts = [whole.draw(random.Random(seed), "group", Path("mark")) for seed in range(300)]
    assert sum(act["phase"] == "reading" for act in acts) < 150
    assert sum(act["role"] == "worker" and act["delay"] > 0.2 for act in acts) > 60, "while it trains"


@pytest.mark.parametrize("way", ["refused", "file-limit", "closed-pipe", "frozen"])
def test_commands_that_are_disturbed_say_why_and_go_on(tmp_path: Path, way: str) -> None:
    whole = undisturbed(KINDS["merge"], make_place(tmp_path, ["merge"], layers=2))
    round_ = Round(KINDS["merge"], whole, tmp_path / "work" / way)
    assert TROUBLES[way].make(round_, random.Random(3))
    assert round_.problems == []


def test_who_is_stuck_is_told_from_who_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TURN", 1.0)
    monkeypatch.setattr(processes, "LEAST_WORK", 0.05)
    hook = {**os.environ, "PYTHONPATH": str(Path(processes.__file__).parent / "inject")}

    def begun(code: str, tag: str) -> Command:
        log = tmp_path / tag
        with open(log, "wb") as out:
            words = [sys.executable, "-c", code]
            return Command(subprocess.Popen(words, stderr=out, env={**hook, "GRAFTWORK_TORTURE_TAG": tag}), tag, log)

    slow = begun("import time; end = time.process_time() + 1\nwhile time.process_time() < end: pass", uuid.uuid4().hex)
    assert slow.wait(0.05) == 0
    stuck = begun("import threading; threading.Event().wait()", uuid.uuid4().hex)
    time.sleep(1.0)  # it imports first
    assert stuck.wait(0.05) is None
    assert "threading.py" in stuck.said()
    assert orphans(stuck) == []


def test_killed_merges_leave_what_an_undisturbed_one_leaves(tmp_path: Path) -> None:
    whole = undisturbed(KINDS["merge"], make_place(tmp_path, ["merge"], layers=2))
    assert {change.phase for change in whole.changes} == {"output"}
    for number in range(2):
        round_ = Round(KINDS["merge"], whole, tmp_path / "work" / f"merge-{number}")
        kills = with_kills(round_, random.Random(number))
        assert round_.problems == []
        assert kills


def test_what_grows_by_too_much_is_a_fault(base: Path, tmp_path: Path) -> None:
    def large(folder: Path) -> None:
        # Fresh pages, whatever the process has freed before, there for long enough to be seen.
        with mmap.mmap(-1, 128 << 20) as pages:
            for place in range(0, 128 << 20, mmap.PAGESIZE):
                pages[place] = 1
            time.sleep(0.3)

    work = tmp_path / "work"
    work.mkdir()
    subject = Subject("large", "cache", ("entry/*",), "bytes", large)
    assert torture(subject, base, work, tmp_path / "faults", count=1, seed=1)["right"] == 1
    found = torture(subject, base, work, tmp_path / "faults", count=1, seed=1, most=32 << 20)
    assert (found["fault"], found["Too much memory"]) == (1, 1)
    assert "32 are allowed" in (tmp_path / "faults" / "large-1-0" / "fault.txt").read_text()


def test_what_lies_in_folders_of_a_run_is_compared(tmp_path: Path) -> None:
    names = (
        "model/config.json",
        "model/trunk/weights.safetensors",
        "configurations/0.onnx",
        "plans/a/model/b/c.bin",
        "plans/a/configurations/1.onnx",
    )
    for name in (*names, "run.json", "model/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    before = contents(tmp_path)
    assert set(before) == set(names)
    for name in names[1:]:
        (tmp_path / name).write_bytes(b"another")
        assert len(differences(hashed(contents(tmp_path)), hashed(before))) == 1, name
        (tmp_path / name).write_bytes(b"{}")


def test_without_a_small_file_system_no_disk_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = undisturbed(KINDS["merge"], make_place(tmp_path, ["merge"], layers=2))
    run = subprocess.run

    def nobody(words: Any, **more: Any) -> Any:
        return run(["false"], **more) if words[0] == "mount" else run(words, **more)

    monkeypatch.setattr(subprocess, "run", nobody)
    round_ = Round(KINDS["merge"], whole, tmp_path / "work" / "round")
    assert TROUBLES["disk-full"].make(round_, random.Random(3)).startswith("not mounted, a file limit in its place: ")
    assert round_.problems == []


def test_kills_are_counted_by_kind_and_phase() -> None:
    totals = Totals()
    totals.note_kills("fit", Counter({"in training": 2, "of the worker": 2, "in job": 1, "of the group": 1, "came too late": 1}))
    totals.note_kills("fit", Counter({"in training": 1, "of the worker": 1}))
    totals.note_kills("merge", Counter({"in output": 1, "of the group": 1}))
    counts = totals.counts()
    assert (totals.hits, counts["kills"], counts["kills_too_late"]) == (5, 5, 1)
    assert counts["kills_by_kind"] == {"fit": 4, "merge": 1}
    assert counts["kills_by_phase"] == {"job": 1, "output": 1, "training": 3}
    assert counts["kills_by_kind_and_phase"]["fit"] == {"job": 1, "training": 3}
    assert counts["kills_by_process"] == {"group": 2, "worker": 3}
    assert "kills 5, and 1 too late" in str(totals)


def test_seeds_are_drawn_and_printed_before_anything_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = set()
    for _ in range(3):
        args = argparse.Namespace(seed=None, keep=tmp_path)
        settle(args, "files")
        assert capsys.readouterr().out.startswith(f"files: seed {args.seed};")
        seeds.add(args.seed)
    assert len(seeds) > 1


def test_all_attacks_run_whatever_one_of_them_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def run(words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        started.append(words[2:])
        return subprocess.CompletedProcess(words, int(words[2].endswith("files")))

    monkeypatch.setattr(subprocess, "run", run)
    assert everything(["--count", "5", "--minutes", "2", "--seed", "4", "--keep", str(tmp_path)]) == 1
    assert [words[0] for words in started] == [f"tests.torture.{name}" for name in ("files", "kills", "repeat", "server")]
    assert started[0][1:] == ["--count", "5", "--seed", "4", "--keep", str(tmp_path / "files")]
    assert started[3][1:5] == ["--minutes", "2.0", "--seed", "4"]
    assert capsys.readouterr().out.startswith("torture: seed 4;")


def test_files_come_in_turns_where_minutes_are_given() -> None:
    args = argparse.Namespace(minutes=1.0, kinds="a,b,c", first=5, count=300, seed=1)
    given = list(itertools.islice(turns(args), 9))
    assert sorted(given[:3]) == [("a", 5, 25), ("b", 5, 25), ("c", 5, 25)]
    assert sorted(given[6:]) == [("a", 55, 25), ("b", 55, 25), ("c", 55, 25)]
    assert list(turns(argparse.Namespace(**{**vars(args), "minutes": 0.0}))) == []
    assert list(turns(argparse.Namespace(**{**vars(args), "minutes": None}))) == [("a", 5, 300), ("b", 5, 300), ("c", 5, 300)]


def test_a_repeat_is_equal_and_one_with_other_bits_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place(tmp_path, ["merge"], layers=2)
    problems, words = repeat("merge", place, random.Random(2), "merge", tmp_path / "keep")
    assert problems == [], words
    assert not (tmp_path / "keep").exists()
    given = iter(range(9))
    monkeypatch.setitem(KINDS, "merge", replace(KINDS["merge"], found=lambda out: {"number": next(given)}))  # type: ignore[arg-type]
    problems, _ = repeat("merge", place, random.Random(2), "other", tmp_path / "keep")
    assert problems == ["/number: 0 != 1"]
    assert (tmp_path / "keep" / "other-0" / "merged.safetensors").exists()


def test_repeats_draw_settings_and_surroundings(tmp_path: Path) -> None:
    words = {draw_command(random.Random(seed), "fit").words for seed in range(20)}
    assert len(words) == 20
    drawn = draw_command(random.Random(1), "fit-text")
    one, two = (drawn.of(workers).command(tmp_path, tmp_path) for workers in (1, 2))
    assert [pair for pair in zip(one, two, strict=True) if pair[0] != pair[1]] == [("1", "2")]
    drawn_by_seed = [Surroundings.draw(random.Random(seed), tmp_path) for seed in range(20)]
    for field in ("workers", "threads", "hashes", "cwd", "new_cache"):
        assert len({getattr(where, field) for where in drawn_by_seed}) > 1, field
