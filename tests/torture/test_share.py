"""A small share of the torture: some damaged files of every kind, and some kills."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from . import processes
from .commands import KINDS, Place, make_place
from .files import torture
from .inject.sitecustomize import PHASES, phase_of
from .kills import with_kills
from .mutations import LANGUAGES, mutated
from .processes import Command, orphans
from .rounds import Change, Round, Whole, undisturbed
from .subjects import SUBJECTS, Subject, copy_of
from .troubles import TROUBLES
from .watch import Outside, TooSlowError, watched
from .wholes import build

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
