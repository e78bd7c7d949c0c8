"""The scale benchmark: its data, its watch over a process, its peers and its rows, all in their smallest form."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import scale
from benchmarks._rows import as_rows, check_row
from benchmarks.scale.cases import CASES, Written
from benchmarks.scale.peers import PEERS
from benchmarks.scale.peers import main as run_peer
from benchmarks.scale.watch import Watched, memory_of, watch

DONE = Watched(seconds=3.0, cpu_seconds=2.0, peak_bytes=200 * 1024 * 1024, code=0, out="", error="")


@pytest.mark.parametrize("name", CASES)
def test_cases_are_complete_and_follow_from_their_seed(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    first, second = (case.make(tmp_path / part, quick=True) for part in ("a", "b"))
    assert first.source.exists()
    assert first.rows > 0
    for data, kinds in first.targets.items():
        assert not first.test[data][list(kinds)].isna().any().any()
        assert list(first.train[data]) == list(first.test[data])
        pd.testing.assert_frame_equal(first.train[data], second.train[data])
        for target, kind in kinds.items():
            assert (first.train[data][target].dtype.kind == "f") is (kind == "number")
    assert set(case.peers) <= set(PEERS)


def test_a_process_is_watched(tmp_path: Path) -> None:
    found = watch([sys.executable, "-c", "print('a'); x = bytearray(60_000_000); import time; time.sleep(0.4)"], folder=tmp_path)
    assert (found.code, found.out.strip()) == (0, "a")
    if Path("/proc/self/smaps_rollup").exists():
        assert found.peak_bytes > 50_000_000
        assert memory_of(os.getpid()) > 10_000_000


def _store(written: Written, folder: Path) -> None:
    targets = {data: dict(kinds) for data, kinds in written.targets.items()}
    (folder / "job.json").write_text(json.dumps({"targets": targets, "cores": 1}), encoding="utf-8")
    for number, data in enumerate(written.targets):
        written.train[data].to_parquet(folder / f"train-{number}.parquet", index=False)
        written.test[data].to_parquet(folder / f"test-{number}.parquet", index=False)


@pytest.mark.parametrize(("case", "peer"), [("rows", "linear"), ("rows", "lightgbm"), ("classes", "nearest"), ("texts", "tfidf")])
def test_peers_learn_something(case: str, peer: str, tmp_path: Path) -> None:
    if peer == "lightgbm":
        pytest.importorskip("lightgbm")
    written = CASES[case].make(tmp_path / "data", quick=True)
    _store(written, tmp_path)
    run_peer(peer, tmp_path)
    answers = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))["answers"]
    assert scale._loss(written, answers) < 0.97


def test_rows_say_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def ours(written: Written, folder: Path, limit: float) -> tuple[Watched, Mapping[str, Any]]:
        return DONE, {"loss": 0.5}

    def peer(name: str, written: Written, folder: Path) -> tuple[Watched, Mapping[str, Any]]:
        assert (folder / "train-0.parquet").exists()
        return DONE, {"loss": 0.8} if name == "linear" else {"failed": ["no"]}

    monkeypatch.setattr(scale, "_ours", ours)
    monkeypatch.setattr(scale, "_peer", peer)
    rows = as_rows(scale.measure_case(CASES["sets"], quick=True, limit=10.0))
    for row in rows:
        check_row(row)
    assert [row["unit"] for row in rows] == ["s", "MiB", "loss"]
    assert rows[2]["details"]["beside"] == "linear"
    assert rows[2]["ratio"] == pytest.approx(0.625)
    monkeypatch.setattr(scale, "_ours", lambda *_: (DONE, {"failed": ["out of memory"]}))
    with pytest.raises(RuntimeError, match="ended without a model: .*out of memory"):
        scale.measure_case(CASES["sets"], quick=True, limit=10.0)
