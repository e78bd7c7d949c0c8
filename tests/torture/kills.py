"""Runs that are killed at random moments and go on: in the end everything equals an undisturbed run, bit for bit.

    python -m tests.torture.kills --minutes 10 --seed 1 [--kinds fit,merge] [--keep FOLDER]

Each round starts a command in an empty folder, kills it one to three times (SIGKILL to the whole process group, to the main
process alone, or to one worker) and lets it go on to its end. Then all numbers, the model, its graph and written files are
compared with those of an undisturbed run; what was finished before a kill must still be there; no process and no temporary file
may be left. Folders and logs of rounds that fail are kept in a folder that is named at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from .equal import contents, differences, leftovers

__all__ = ["KINDS", "Kind", "Place", "main", "undisturbed", "with_kills"]

TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a torture works."""

    data: Path
    """What the commands read."""
    work: Path
    """Where they write, each round in a folder of its own."""
    temporary: Path
    """Their folder for temporary files, and their cache."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of command."""

    name: str
    command: Callable[[Path, Path], list[str]]
    """Words after ``graftwork``, from the folder of the data and the folder to write into."""
    found: Callable[[Path], Mapping[str, Any]]
    """What is compared of the folder that was written into."""
    has_workers: bool = False


def _train(verb: str, workers: int) -> Callable[[Path, Path], list[str]]:
    def command(data: Path, out: Path) -> list[str]:
        words = [verb, str(data / "table.csv"), "--targets", "price,late", "--steps", "12", "--seeds", "1"]
        words += ["--plans", "separate,shared-trunk", "--backbone", "none", "--workers", str(workers), "--quiet"]
        return [
            *words,
            "--checkpoint-seconds",
            "0.1",
            "--out",
            str(out / "run"),
            "--resume",
            *(["--folds", "0"] if verb == "fit" else []),
        ]

    return command


def _merge(data: Path, out: Path) -> list[str]:
    models = [str(data / f"{name}.safetensors") for name in "abc"]
    return [
        "merge",
        "--base",
        str(data / "base.safetensors"),
        "--models",
        *models,
        "--out",
        str(out / "merged.safetensors"),
        "--quiet",
    ]


def _predict(data: Path, out: Path) -> list[str]:
    return ["predict", str(data / "run"), str(data / "rows.csv"), "--out", str(out / "predicted.csv")]


def _files(folder: Path) -> dict[str, Any]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("fit", _train("fit", 2), lambda out: contents(out / "run"), has_workers=True),
        Kind("fit-one", _train("fit", 1), lambda out: contents(out / "run"), has_workers=True),
        Kind("compare", _train("compare", 2), lambda out: contents(out / "run"), has_workers=True),
        Kind("merge", _merge, _files),
        Kind("predict", _predict, _files),
    )
}
"""All kinds by name."""


def make_place(folder: Path, kinds: Sequence[str], layers: int = 8) -> Place:
    """Write what the commands read; models to merge have ``layers`` tensors of 2 MB."""
    place = Place(folder / "data", folder / "work", folder / "tmp")
    for path in (place.data, place.work, place.temporary / "cache"):
        path.mkdir(parents=True)
    rng = np.random.default_rng(5)
    values = rng.normal(size=(160, 4))
    frame = pd.DataFrame(values, columns=list("abcd"))
    frame["place"] = np.array(["north", "south", "west"])[rng.integers(0, 3, 160)]
    signal_ = values[:, 0] + 0.5 * values[:, 1] * values[:, 2]
    frame["price"] = 10 + 3 * signal_ + 0.3 * rng.normal(size=160)
    frame["late"] = np.where(signal_ + 0.3 * rng.normal(size=160) > 0, "yes", "no")
    frame.to_csv(place.data / "table.csv", index=False)
    if "merge" in kinds:
        base = {f"layer{index}.weight": rng.normal(size=(512, 1024)).astype(np.float32) for index in range(layers)}
        save_file(base, place.data / "base.safetensors")
        for name in "abc":
            save_file(
                {key: value + 0.01 * rng.normal(size=value.shape).astype(np.float32) for key, value in base.items()},
                place.data / f"{name}.safetensors",
            )
    if "predict" in kinds:
        pd.concat([frame.drop(columns=["price", "late"])] * 400, ignore_index=True).to_csv(place.data / "rows.csv", index=False)
        words = [*_train("fit", 1)(place.data, place.data)]
        started = _start(place, words, folder / "run.txt")
        if started.wait(TIMEOUT) != 0:
            raise RuntimeError(f"the run to predict with failed: {(folder / 'run.txt').read_text()[-2000:]}")
    return place


def _start(place: Place, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(place.temporary),
        "GRAFTWORK_CACHE": str(place.temporary / "cache"),
    }
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "graftwork.cli.main", *words], stdout=out, stderr=out, env=environment, start_new_session=True
        )


def undisturbed(kind: Kind, place: Place) -> tuple[Mapping[str, Any], float]:
    """Return what a run leaves that nobody disturbs, and how many seconds it took."""
    out = place.work / f"{kind.name}-whole"
    out.mkdir()
    started = time.monotonic()
    process = _start(place, kind.command(place.data, out), out.with_suffix(".txt"))
    if process.wait(TIMEOUT) != 0:
        raise RuntimeError(f"{kind.name} failed without a kill: {out.with_suffix('.txt').read_text()[-2000:]}")
    return kind.found(out), time.monotonic() - started


def with_kills(
    kind: Kind, place: Place, expected: Mapping[str, Any], seconds: float, rng: random.Random, name: str
) -> tuple[Counter[str], list[str]]:
    """Kill one run up to three times, let it end, and compare.

    Returns:
        Kills by kind, and what is wrong in the end.
    """
    out = place.work / name
    out.mkdir()
    log, kills, problems = out.with_suffix(".txt"), Counter[str](), list[str]()
    finished: dict[Path, bytes] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        process = _start(place, kind.command(place.data, out), log)
        moment = rng.uniform(0.02, 1.0) * seconds
        try:
            process.wait(moment)
            break  # it was faster
        except subprocess.TimeoutExpired:
            how = rng.choice(("group", "group", "main", "worker") if kind.has_workers else ("group",))
            done = _kill(process, how, rng)
            kills[done] += 1
            if done == "worker":
                break  # the run has to go on by itself
            process.wait()
            problems += _orphans(process.pid, out)
            finished |= {file: file.read_bytes() for file in out.glob("run/jobs/*/result.json")}
    else:
        process = _start(place, kind.command(place.data, out), log)
    try:
        code = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return kills, [*problems, "it did not end"]
    if code:
        return kills, [*problems, f"exit code {code}: {log.read_text(errors='replace')[-1500:]}"]
    found = kind.found(out)
    problems += differences(_shown(found), _shown(expected))[:10]
    # The export of the model is made again where a kill cut it; all other jobs are made once.
    lost = [
        file
        for file, content in finished.items()
        if "export" not in str(file) and (not file.exists() or file.read_bytes() != content)
    ]
    problems += [f"finished before the kill, and changed: {file}" for file in lost]
    problems += _orphans(process.pid, out)
    problems += [f"left: {path}" for path in leftovers(out, place.temporary)]
    return kills, problems


def _shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return bytes as their hashes, so that differences can be read."""
    import hashlib

    return {name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value for name, value in found.items()}


def _kill(process: subprocess.Popen[bytes], how: str, rng: random.Random) -> str:
    if how == "worker":
        children = _children(process.pid)
        if children:
            try:
                os.kill(rng.choice(children), signal.SIGKILL)
                return "worker"
            except ProcessLookupError:
                pass
        how = "group"  # none is there yet
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if how == "group" else process.kill()
    return how


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _orphans(group: int, out: Path) -> list[str]:
    """Return the processes of a group that are still there ten seconds after its leader ended."""
    deadline = time.monotonic() + 10
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                state, _, session, *_ = path.joinpath("stat").read_text().rpartition(")")[2].split()
                if int(session) == group and state != "Z":
                    found.append(path.name)
            except (OSError, ValueError):
                continue
        if not found or time.monotonic() > deadline:
            return [f"processes {found} outlive the run in {out}"] if found else []
        time.sleep(0.1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if a round failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--keep", type=Path, help="where failed rounds go (default: a new temporary folder)")
    args = parser.parse_args(argv)
    names, rng, end = args.kinds.split(","), random.Random(args.seed), time.monotonic() + 60 * args.minutes
    keep = args.keep or Path(tempfile.mkdtemp(prefix="graftwork-kills-"))
    rounds, kills, failed = Counter[str](), Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as folder:
        place = make_place(Path(folder), names)
        expected = {name: undisturbed(KINDS[name], place) for name in names}
        print(", ".join(f"{name} takes {seconds:.0f} s" for name, (_, seconds) in expected.items()), flush=True)
        while time.monotonic() < end:
            name = rng.choice(names)
            label = f"{name}-{args.seed}-{sum(rounds.values())}"
            made, problems = with_kills(KINDS[name], place, *expected[name], rng, label)
            rounds[name] += 1
            kills += made
            if problems:
                failed += 1
                print(f"{label} FAILED after {dict(made)}:\n  " + "\n  ".join(problems), flush=True)
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copytree(place.work / label, keep / label, dirs_exist_ok=True)
                shutil.copy(place.work / f"{label}.txt", keep / f"{label}.txt")
            shutil.rmtree(place.work / label)
    print(f"seed {args.seed}: rounds {dict(rounds)}, kills {dict(kills)} ({sum(kills.values())}), {failed} failed", flush=True)
    if failed:
        print(f"failed rounds are in {keep}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
