"""Commands that are given twice: the seeds are equal, what must not matter is not, and every bit is the same in the end.

    python -m tests.torture.repeat --minutes 10 --seed 1 [--kinds fit,predict,gloo] [--keep FOLDER]

Each round draws a command with its settings, and runs it twice: with one worker or two, 1 to 4 threads asked for, another
``PYTHONHASHSEED``, from another working folder, with an empty cache or a filled one. All numbers, the model, its graph and written
files are compared bit by bit. A round of ``gloo`` trains once in one process and once in two that share every batch; their weights
are equal up to the rounding of sums in another order.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from .commands import KINDS, Kind, Place, make_place, trained
from .equal import differences, hashed, leftovers
from .options import add_options, settle
from .processes import end_all, orphans, start

__all__ = ["GLOO", "REPEATED", "Surroundings", "draw_command", "main", "repeat", "repeat_gloo"]

GLOO = "gloo"
REPEATED = (
    *("fit", "fit-text", "fit-pictures", "compare", "compare-text", "compare-pictures", "compare-frozen", "reproduce"),
    *("tune", "distill", "rank", "merge", "merge-yaml", "predict", "predict-text", "predict-pictures", GLOO),
)
"""Names of :data:`.KINDS`, and :data:`GLOO`."""
_DRAWN = ("fit", "compare")
"""Commands whose settings are drawn too."""
_SHARING = ("shared-trunk", "mmoe", "uncertainty", "pcgrad", "upgrad", "constant")
_PLANS = {
    "table": (*_SHARING, "linear", "lightgbm", "extra-trees", "random-forest", "knn"),
    "text": _SHARING,
    "pictures": _SHARING,
}
_TOLERANCE = {"rtol": 1e-3, "atol": 2e-5}
"""Of weights after some steps in two processes: sums are rounded in another order."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What must not change a bit."""

    workers: int
    threads: int
    hashes: int
    cwd: Path
    new_cache: bool

    @classmethod
    def draw(cls, rng: random.Random, folder: Path) -> Surroundings:
        """Draw them; the working folder is made."""
        cwd = folder / rng.choice(("here", "there", "a b", "é"))
        cwd.mkdir(parents=True, exist_ok=True)
        return cls(rng.randint(1, 2), rng.randint(1, 4), rng.randrange(2**32), cwd, rng.random() < 0.5)

    def __str__(self) -> str:
        cache = "an empty cache" if self.new_cache else "the cache of all"
        return f"{self.workers} workers, {self.threads} threads, hash seed {self.hashes}, in {self.cwd.name!r}, {cache}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A command with its settings, of one worker and of two."""

    one: Kind
    two: Kind
    words: str
    """The settings, for people."""

    def of(self, workers: int) -> Kind:
        """Return the command with so many workers."""
        return self.one if workers == 1 else self.two


def draw_command(rng: random.Random, name: str) -> Drawn:
    """Return a command whose settings are drawn, where it has some.

    Args:
        rng: Decides.
        name: One of :data:`REPEATED`.
    """
    kind, verb = KINDS[name], name.partition("-")[0]
    if verb not in _DRAWN or name == "compare-frozen":
        return Drawn(KINDS.get(f"{name}-one", kind), kind, name)
    plans = ",".join(("separate", *rng.sample(_PLANS[kind.data], rng.randint(1, 2))))
    more = ["--seed", str(rng.randrange(10_000)), "--seeds", str(rng.randint(1, 2)), "--steps", str(rng.randint(4, 10))]
    more += ["--folds", "3"] if verb == "fit" and kind.data == "table" and rng.random() < 0.2 else []
    more += ["--set", f"batch_size={rng.choice((16, 32, 48))}", "--checkpoint-seconds", str(rng.choice((0.05, 0.5, 60)))]
    one, two = (Kind(name, trained(verb, kind.data, workers, *more, plans=plans), kind.found, kind.data) for workers in (1, 2))
    return Drawn(one, two, f"{name} {plans} {' '.join(more)}")


def _once(drawn: Drawn, place: Place, out: Path, where: Surroundings) -> dict[str, Any]:
    """Run a command; return what is compared.

    Raises:
        RuntimeError: If it fails, or leaves something.
    """
    kind = drawn.of(where.workers)
    out.mkdir()
    temporary = place.temporary
    if where.new_cache:
        temporary = out.with_suffix(".tmp-folder")
        (temporary / "cache").mkdir(parents=True)
    variables = {"OMP_NUM_THREADS": str(where.threads), "PYTHONHASHSEED": str(where.hashes)}
    log = out.with_suffix(".txt")
    command = start(kind.command(place.data, out), log, temporary, environment=variables, cwd=where.cwd)
    code = command.wait()
    left = [*orphans(command), *leftovers(out, temporary)]
    if code != 0 or left:
        raise RuntimeError(f"exit code {code}, left {left}: {command.said()[-3000:]}")
    found = hashed(kind.found(out))
    # What was asked is kept with the answer.
    found.get("result.json", {}).get("settings", {}).pop("workers", None)
    return found


def repeat(name: str, place: Place, rng: random.Random, label: str, keep: Path) -> tuple[list[str], str]:
    """Run a drawn command twice; return what differs, and what was done in words. Folders of faults are kept."""
    drawn = draw_command(rng, name)
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    outs = [place.work / f"{label}-{number}" for number in range(2)]
    settings = [Surroundings.draw(rng, place.work / "folders") for _ in outs]
    try:
        found = [_once(drawn, place, out, where) for out, where in zip(outs, settings, strict=True)]
        if not found[0]:
            problems.append("nothing was found to compare")
        problems += differences(*found)[:10]
    except RuntimeError as error:
        problems.append(str(error))
    for out in outs:
        if problems and out.is_dir():
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copytree(out, keep / out.name, dirs_exist_ok=True)
            shutil.copy(out.with_suffix(".txt"), keep / f"{out.name}.txt")
        for folder in (out, out.with_suffix(".tmp-folder")):
            shutil.rmtree(folder, ignore_errors=True)
    return problems, f"{drawn.words} ({'; '.join(map(str, settings))})"


def draw_gloo(rng: random.Random) -> dict[str, Any]:
    """Return settings of a training that two processes can share."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "training"))
    from parts_models import DROPOUT, PARALLEL, parts_of

    name = rng.choice(sorted(PARALLEL))
    accumulate = rng.choice(parts_of(PARALLEL[name]()))
    training = {
        # Parts of all processes must have equally many rows where dropout is drawn.
        "batch_size": 4 * rng.randint(3, 12),
        "accumulate": accumulate,
        "learning_rate": rng.choice((1e-3, 3e-3, 1e-2)),
        "dropout": rng.choice((0.0, 0.1, 0.3, 0.5)) if name in DROPOUT else 0.0,
    }
    numbers = {"seed": rng.randrange(1_000), "steps": rng.randint(1, 4), "holes": rng.choice((0.0, 0.2, 0.4))}
    return {"balancer": name, "training": training, **numbers}


def repeat_gloo(folder: Path, rng: random.Random, label: str, keep: Path) -> tuple[list[str], str]:
    """Train in one process and in two; return what differs, and the settings."""
    asked, script = draw_gloo(rng), str(Path(__file__).with_name("gloo_run.py"))
    settings = folder / f"{label}.json"
    settings.write_text(json.dumps(asked), encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    problems: list[str] = []
    weights: list[dict[str, Any]] = []
    for way in ([], launch):
        out = folder / f"{label}-{len(way)}.safetensors"
        done = subprocess.run(
            [sys.executable, *way, script, str(settings), str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode != 0:
            problems.append(f"{'two processes' if way else 'one process'}: {done.stderr[-3000:]}")
        else:
            weights.append(load_file(out))
        out.unlink(missing_ok=True)
    if len(weights) == 2:
        one, two = weights
        problems += [f"{key} in one of them alone" for key in sorted(one.keys() ^ two.keys())]
        for key in sorted(one.keys() & two.keys()):
            if not np.allclose(one[key], two[key], **_TOLERANCE):
                problems.append(f"{key}: differs by {np.abs(one[key] - two[key]).max():.3g}")
    if problems:
        keep.mkdir(parents=True, exist_ok=True)
        shutil.copy(settings, keep / settings.name)
    return problems, json.dumps(asked)


def _go(args: argparse.Namespace, folder: Path, totals: Counter[str]) -> None:
    """Play rounds until the time is over, at least one."""
    names, end = args.kinds.split(","), time.monotonic() + 60 * args.minutes
    place = make_place(folder, [name for name in names if name != GLOO])
    number = 0
    while not number or time.monotonic() < end:
        rng = random.Random(f"{args.seed}/{number}")
        name = rng.choice(names)
        label = f"{name}-{args.seed}-{number}"
        problems, words = (
            repeat_gloo(place.work, rng, label, args.keep) if name == GLOO else repeat(name, place, rng, label, args.keep)
        )
        totals[name] += 1
        number += 1
        if problems:
            totals["failed"] += 1
            print(f"{label} FAILED: {words}\n  " + "\n  ".join(problems), flush=True)
        else:
            print(f"{label}: equal, {words}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if something differed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, minutes=10.0)
    parser.add_argument("--kinds", default=",".join(REPEATED), help=f"of {', '.join(REPEATED)}")
    args = parser.parse_args(argv)
    settle(args, "repeat")
    totals: Counter[str] = Counter()
    atexit.register(end_all)
    try:
        with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as folder:
            _go(args, Path(folder), totals)
    finally:
        failed = totals.pop("failed", 0)
        print(f"seed {args.seed}: {sum(totals.values())} repeats, {failed} differ: {dict(sorted(totals.items()))}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # So that nothing stays, and the counts are printed, if this is ended early.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    raise SystemExit(main())
