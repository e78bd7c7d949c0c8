"""Runs that are killed and disturbed at random moments and go on: in the end everything equals an undisturbed run, bit for bit.

    python -m tests.torture.kills --minutes 10 --seed 1 [--kinds fit,merge] [--ways kill,disk-full] [--keep FOLDER]
    python -m tests.torture.kills --kills 100 --json counts.json

Each round starts a command in an empty folder. Half of the rounds kill it one to eight times (SIGKILL to the main process and the
one that acts, or to one process alone, also to a worker that starts or waits); the others disturb it in another way of :data:`.TROUBLES`. Moments are drawn by what the
command is doing then (see ``inject``): as many while it trains, writes checkpoints, exports and reports as while it reads. Then
it goes on to its end, and all numbers, the model, its graph and written files are compared with those of an undisturbed run; what
was finished before must still be there; no process and no temporary file may be left. With ``--kills`` it goes on until so many
kills have hit a command that ran. Counts by kind and phase are printed at the end. Folders and logs of rounds that fail are kept in
a folder that is named in the beginning.
"""

from __future__ import annotations

import argparse
import atexit
import json
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .commands import KINDS, make_place
from .options import add_options, settle
from .processes import end_all
from .rounds import Round, Whole, undisturbed
from .troubles import TROUBLES

__all__ = ["Totals", "main", "with_kills"]


def with_kills(round_: Round, rng: random.Random) -> Counter[str]:
    """Kill one run up to eight times, let it end, and compare; return the kills by phase and by what was killed."""
    kills: Counter[str] = Counter()
    for number in range(rng.choice((1, 1, 2, 3, 5, 8))):
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

    rounds: Counter[str] = field(default_factory=Counter)
    kills: dict[str, Counter[str]] = field(default_factory=dict)
    """By kind of command, as :func:`with_kills` returns them."""
    troubles: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def note_kills(self, kind: str, found: Counter[str]) -> None:
        """Add the kills of a round."""
        self.kills[kind] = self.kills.get(kind, Counter()) + found

    def counts(self) -> dict[str, Any]:
        """Return all counts, for JSON."""
        by_phase = {kind: _with_word("in ", found) for kind, found in sorted(self.kills.items())}
        total: Counter[str] = sum(self.kills.values(), Counter())
        return {
            "rounds": dict(sorted(self.rounds.items())),
            "failed": self.failed,
            "kills": self.hits,
            "kills_by_kind": {kind: sum(found.values()) for kind, found in by_phase.items()},
            "kills_by_phase": _with_word("in ", total),
            "kills_by_kind_and_phase": by_phase,
            "kills_by_process": _with_word("of the ", total),
            "kills_too_late": total["came too late"],
            "troubles": dict(sorted(self.troubles.items())),
        }

    @property
    def hits(self) -> int:
        """Kills that hit a command while it ran."""
        return sum(number for found in self.kills.values() for number in _with_word("in ", found).values())

    def __str__(self) -> str:
        counts = self.counts()
        lines = [f"rounds {sum(self.rounds.values())}: {counts['rounds']}"] if self.rounds else []
        if self.kills:
            lines.append(f"kills {self.hits}, and {counts['kills_too_late']} too late: {counts['kills_by_phase']}")
            lines.append(f"  of {counts['kills_by_process']}")
            lines += [f"  {kind} {sum(found.values())}: {found}" for kind, found in counts["kills_by_kind_and_phase"].items()]
        if self.troubles:
            lines.append(f"troubles {sum(self.troubles.values())}: {counts['troubles']}")
        return "\n".join(lines)


def _with_word(word: str, found: Counter[str]) -> dict[str, int]:
    return {name.removeprefix(word): number for name, number in sorted(found.items()) if name.startswith(word)}


def _play(name: str, way: str, whole: Whole, rng: random.Random, label: str, totals: Totals, keep: Path) -> None:
    round_ = Round(KINDS[name], whole, whole.place.work / label)
    try:
        if way == "kill":
            totals.note_kills(name, with_kills(round_, rng))
        else:
            totals.troubles[f"{way}: {TROUBLES[way].make(round_, rng)}"] += 1
        totals.rounds[name] += 1
        if round_.problems:
            totals.failed.append(f"{label} ({way})")
            print(f"{label} FAILED ({way}):\n  " + "\n  ".join(round_.problems), flush=True)
            round_.keep(keep)
    finally:
        # A file system that was mounted must go as well.
        round_.remove()


def _go(args: argparse.Namespace, folder: Path, keep: Path, totals: Totals) -> None:
    """Play rounds until the time is over, or there were as many kills as were asked for."""
    names, ways, rng = args.kinds.split(","), args.ways.split(","), random.Random(args.seed)
    end = time.monotonic() + 60 * args.minutes
    place = make_place(folder, names)
    wholes: dict[str, Whole] = {}
    while time.monotonic() < end and (args.kills is None or totals.hits < args.kills):
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
            print(f"after {number + 1} rounds, {len(totals.failed)} failed\n{totals}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if a round failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, metavar="N", help="go on until N kills have hit, however long that takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the counts go")
    add_options(parser, minutes=None, minutes_help="how long it lasts (default: 10, or as long as --kills takes)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--ways", help=f"kill, and of {', '.join(TROUBLES)} (default: all; with --kills: kill)")
    args = parser.parse_args(argv)
    args.ways = args.ways or ("kill" if args.kills is not None else "kill," + ",".join(TROUBLES))
    if args.kills is not None and "kill" not in args.ways.split(","):
        parser.error("--kills needs kill among the --ways")
    if args.minutes is None:
        args.minutes = 10.0 if args.kills is None else math.inf
    settle(args, "kills")
    totals = Totals()
    atexit.register(end_all)
    try:
        with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as folder:
            _go(args, Path(folder), args.keep, totals)
    finally:
        print(f"seed {args.seed}: {sum(totals.rounds.values())} rounds, {len(totals.failed)} failed\n{totals}", flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps({"seed": args.seed, **totals.counts()}, indent=1) + "\n", encoding="utf-8")
    if totals.failed:
        print(f"failed rounds are in {args.keep}", file=sys.stderr)
    return 1 if totals.failed else 0


if __name__ == "__main__":
    # So that nothing stays, and the counts are printed, if this is ended early.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    raise SystemExit(main())
