"""A real ``graftwork fit`` process, killed at random moments and resumed, ends with the bits of an undisturbed run: with one worker
or two, other thread counts and hash seeds, from another working folder."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..torture.equal import contents, differences, numbers

pd = pytest.importorskip("pandas")
pytest.importorskip("torch")

NUM_KILLS = 4
"""`make torture` kills as often as you like."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small table with three targets."""
    generator = np.random.default_rng(5)
    x = generator.normal(size=(160, 4))
    signal_ = x[:, 0] + 0.5 * x[:, 1] * x[:, 2]
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["place"] = np.array(["north", "south", "west"])[generator.integers(0, 3, 160)]
    frame["price"] = 10 + 3 * signal_ + 0.3 * generator.normal(size=160)
    frame["late"] = np.where(signal_ + 0.3 * generator.normal(size=160) > 0, "yes", "no")
    path = tmp_path_factory.mktemp("data") / "small.csv"
    frame.to_csv(path, index=False)
    return path


def start(
    table: Path, out: Path, *more: str, workers: int = 2, cwd: Path | None = None, **environment: str
) -> subprocess.Popen[bytes]:
    words = [
        sys.executable,
        "-m",
        "graftwork.cli.main",
        "fit",
        str(table),
        "--targets",
        "price,late",
        "--steps",
        "16",
        "--seeds",
        "2",
        "--single",  # cross-validation is killed in test_folds
    ]
    words += [
        "--plans",
        "separate,shared-trunk,lightgbm",
        "--out",
        str(out),
        "--workers",
        str(workers),
        "--checkpoint-seconds",
        "0.2",
        *more,
    ]
    log = open(out.with_suffix(".txt"), "ab")  # noqa: SIM115
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(words, stdout=log, stderr=log, env=variables, cwd=cwd, start_new_session=True)


def result_of(out: Path) -> Any:
    return numbers(json.loads((out / "result.json").read_text(encoding="utf-8")))


def check_equal_bits(out: Path, expected: Path) -> None:
    """Check that two finished runs have the same results, models and graphs."""
    mine, other = contents(out), contents(expected)
    assert {"result.json", "model.onnx", "model/config.json", "plans/shared-trunk/model.onnx"} <= mine.keys()
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        if name == "result.json":
            for found in (value, other[name]):
                found["settings"].pop("workers")
        if isinstance(value, bytes):
            assert value == other[name], name
        else:
            assert differences(value, other[name]) == [], name


def workers_of(out: Path) -> list[int]:
    """Return the processes that still work in a folder (each has its log file open)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(out) in os.readlink(handle) for handle in (process / "fd").iterdir()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Folder and duration of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    started = time.monotonic()
    process = start(table, out)
    assert process.wait(timeout=900) == 0, out.with_suffix(".txt").read_text()
    return out, time.monotonic() - started


@pytest.mark.slow
def test_kills_change_nothing(table: Path, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    generator = random.Random(11)
    kills = runs = 0
    while kills < NUM_KILLS:
        out = tmp_path / f"run{runs}"
        runs += 1
        while True:
            # None of this may change a bit: not even in the middle of a run.
            workers, threads, hashes = (str(generator.randint(1, most)) for most in (2, 3, 1000))
            process = start(
                table, out, "--resume", workers=int(workers), cwd=tmp_path, OMP_NUM_THREADS=threads, PYTHONHASHSEED=hashes
            )
            try:
                process.wait(timeout=generator.uniform(0.03, 0.6) * seconds if kills < NUM_KILLS else 900)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
        assert process.returncode == 0, out.with_suffix(".txt").read_text()[-3000:]
        check_equal_bits(out, expected)
        assert (out / "report.html").exists()
    assert kills >= NUM_KILLS


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_no_worker_outlives_a_killed_run(table: Path, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(table, out)
    deadline = time.monotonic() + 120
    while len(workers_of(out)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers_of(out)) >= 3
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while workers_of(out) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(out) == []


@pytest.mark.slow
def test_ctrl_c_keeps_finished_work_and_resume_goes_on(table: Path, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(table, out)
    while not list(out.glob("jobs/rung1-*/result.json")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    text = out.with_suffix(".txt").read_text()
    assert "Go on with: graftwork fit --resume" in text
    finished = {path: path.read_bytes() for path in out.glob("jobs/*/result.json")}
    assert finished
    assert not (out / "result.json").exists()
    words = [sys.executable, "-m", "graftwork.cli.main", "fit", "--resume", str(out), "--quiet", "--checkpoint-seconds", "0.2"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=900)
    assert done.returncode == 0, done.stderr
    assert differences(result_of(out), result_of(undisturbed[0])) == []
    assert all(path.read_bytes() == content for path, content in finished.items())
