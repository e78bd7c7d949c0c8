"""Runs that are killed and disturbed at random moments and go on: in the end everything equals an undisturbed run, bit for bit.

    python -m tests.torture.kills --minutes 10 --seed 1 [--kinds fit,merge] [--ways kill,disk-full] [--keep FOLDER]

Each round starts a command in an empty folder. Half of the rounds kill it one to three times (SIGKILL to the main process and the
one that acts, or to one process alone, also to a worker that starts or waits); the others disturb it in another way of :data:`.TROUBLES`. Moments are drawn by what the
command is doing then (see ``inject``): as many while it trains, writes checkpoints, exports and reports as while it reads. Then
it goes on to its end, and all numbers, the model, its graph and written files are compared with those of an undisturbed run; what
was finished before must still be there; no process and no temporary file may be left. Folders and logs of rounds that fail are
kept in a folder that is named at the end.
"""

from __future__ import annotations

import argparse
import atexit
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .commands import KINDS, make_place
from .processes import end_all
from .rounds import Round, Whole, undisturbed
from .troubles import TROUBLES

__all__ = ["main", "with_kills"]


def with_kills(round_: Round, rng: random.Random) -> Counter[str]:
    """Kill one run up to three times, let it end, and compare; return the kills by phase and by what was killed."""
    kills: Counter[str] = Counter()
    for number in range(rng.choice((1, 1, 2, 3))):
        how = rng.choice(("group", "group", "self"))
        act = round_.whole.draw(rng, how, round_.out.with_suffix(f".mark{number}"))
        any_time = rng.random()
        if any_time < 0.15:  # also before it has changed anything
            how, act, command = "group", None, round_.start()
            hit = "any time" if command.kill_after(rng.uniform(0, round_.whole.seconds)) else None
        elif any_time < 0.3 and round_.kind.workers:  # also while it starts, and has nothing to do
            how, act, command = "worker", None, round_.start()
            seconds = rng.choice((rng.uniform(0, 3.0), rng.uniform(0, round_.whole.seconds)))
            hit = "any time" if command.kill_worker_after(seconds, rng) else None
        else:
            command = round_.start(act=act)
        code = command.wait()
        hit = round_.was_hit(act) if act else hit
        if hit is None:
            kills["came too late"] += 1
            if code:
                round_.fault(f"exit code {code} without a kill: {command.said()[-1500:]}")
            break
        killed = how if act is None or how == "group" else act["role"]
        kills[f"of the {killed}"] += 1
        kills[f"in {hit}"] += 1
        if code is None:
            round_.fault("it did not end after a kill")
        if code is not None and code < 0:
            round_.check_orphans(command)
        elif round_.kind.workers == "retried" or (code == 0 and how == "worker"):
            break  # a worker's death costs a try, nothing else; or it had done all that it had to
        elif code == 0 or "--resume" not in command.said():
            round_.fault(f"a worker died, exit code {code}: {command.said()[-1500:]}")
        round_.note_finished()
    else:
        command = round_.start()
        code = command.wait()
    round_.check_end(command, code)
    return kills


@dataclass
class Totals:
    """What has been done so far."""

    rounds: Counter[str]
    kills: Counter[str]
    troubles: Counter[str]
    failed: int = 0

    def __str__(self) -> str:
        parts = {"rounds": self.rounds, "kills": self.kills, "troubles": self.troubles}
        lines = [f"{name} {sum(found.values())}: {dict(sorted(found.items()))}" for name, found in parts.items() if found]
        return "\n".join(lines)


def _play(name: str, way: str, whole: Whole, rng: random.Random, label: str, totals: Totals, keep: Path) -> None:
    round_ = Round(KINDS[name], whole, whole.place.work / label)
    try:
        if way == "kill":
            totals.kills += with_kills(round_, rng)
        else:
            totals.troubles[f"{way}: {TROUBLES[way].make(round_, rng)}"] += 1
        totals.rounds[name] += 1
        if round_.problems:
            totals.failed += 1
            print(f"{label} FAILED ({way}):\n  " + "\n  ".join(round_.problems), flush=True)
            round_.keep(keep)
    finally:
        # A file system that was mounted must go as well.
        round_.remove()


def _go(args: argparse.Namespace, folder: Path, keep: Path, totals: Totals) -> None:
    """Play rounds until the time is over."""
    names, ways, rng, end = (
        args.kinds.split(","),
        args.ways.split(","),
        random.Random(args.seed),
        time.monotonic() + 60 * args.minutes,
    )
    place = make_place(folder, names)
    wholes: dict[str, Whole] = {}
    while time.monotonic() < end:
        name = rng.choice(names)
        if name not in wholes:
            wholes[name] = whole = undisturbed(KINDS[name], place)
            print(f"{name} takes {whole.seconds:.0f} s and changes files {len(whole.changes)} times", flush=True)
        fitting = [way for way in ways if way == "kill" or TROUBLES[way].fits(KINDS[name])]
        others = [way for way in fitting if way != "kill"]
        way = "kill" if "kill" in fitting and (not others or rng.random() < 0.5) else rng.choice(others or ["kill"])
        number = sum(totals.rounds.values())
        _play(name, way, wholes[name], rng, f"{name}-{args.seed}-{number}", totals, keep)
        if number % 10 == 9:
            print(f"after {number + 1} rounds, {totals.failed} failed\n{totals}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if a round failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--ways", default="kill," + ",".join(TROUBLES), help=f"kill, and of {', '.join(TROUBLES)}")
    parser.add_argument("--keep", type=Path, help="where failed rounds go (default: a new temporary folder)")
    args = parser.parse_args(argv)
    keep = args.keep or Path(tempfile.mkdtemp(prefix="graftwork-kills-"))
    totals = Totals(Counter(), Counter(), Counter())
    atexit.register(end_all)
    try:
        with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as folder:
            _go(args, Path(folder), keep, totals)
    finally:
        print(f"seed {args.seed}: {sum(totals.rounds.values())} rounds, {totals.failed} failed\n{totals}", flush=True)
    if totals.failed:
        print(f"failed rounds are in {keep}", file=sys.stderr)
    return 1 if totals.failed else 0


if __name__ == "__main__":
    # So that nothing stays, and the counts are printed, if this is ended early.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    raise SystemExit(main())
