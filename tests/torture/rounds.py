"""One command in one folder: what an undisturbed one leaves, what a disturbed one must leave, and how a moment is drawn."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .commands import Kind, Place
from .equal import differences, hashed, leftovers
from .inject.sitecustomize import phase_of
from .processes import Command, is_calm, orphans, start

__all__ = ["Change", "Round", "Whole", "undisturbed"]

_TRAINS = ("rung", "final", "control", "whole", "first")
_WEIGHTS = {"training": 3, "checkpoint": 2, "job": 2, "export": 3, "report": 2}
"""How often a phase is drawn, where that is not once."""
LEAST_GAP = 0.02
"""Seconds between two changes of a job from which it counts as training."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a file, as the hook in ``inject`` notes it."""

    process: int
    role: str
    moment: float
    phase: str
    number: int
    name: str
    gap: float = 0.0
    """Seconds until the next change of the same process."""

    @property
    def trains(self) -> bool:
        """Whether a training goes on after it."""
        parts = self.name.split("/")
        job = parts[parts.index("jobs") + 1] if "jobs" in parts[:-1] else ""
        return self.role == "worker" and self.gap > LEAST_GAP and (job.startswith(_TRAINS) or parts[0] == "work")


@dataclass(frozen=True, slots=True)
class Whole:
    """What a command leaves that nobody disturbs."""

    place: Place
    found: Mapping[str, Any]
    seconds: float
    size: int
    """Bytes that it leaves."""
    changes: tuple[Change, ...]

    def draw(self, rng: random.Random, do: str | int, mark: Path) -> dict[str, Any]:
        """Draw a phase, then a moment in it; see ``Act`` in ``inject``."""
        by_phase: dict[str, list[Change]] = {}
        for change in self.changes:
            by_phase.setdefault(change.phase, []).append(change)
            if change.trains:
                by_phase.setdefault("training", []).append(change)
        names = sorted(by_phase)
        phase = rng.choices(names, [_WEIGHTS.get(name, 1) for name in names])[0]
        if phase == "training":
            # Long gaps more often than short ones, or nearly all would be those between two writes.
            change = rng.choices(by_phase[phase], [change.gap for change in by_phase[phase]])[0]
            delay = rng.uniform(0, change.gap)
        else:
            change = rng.choice(by_phase[phase])
            # While it writes what it is there for, at any time.
            delay = rng.choice((0.0, rng.uniform(0, change.gap if phase == "output" else min(change.gap, 0.1))))
        return {
            "phase": change.phase,
            "number": change.number,
            "role": change.role,
            "delay": delay,
            "do": do,
            "mark": str(mark),
        }


def _read_trace(file: Path) -> tuple[Change, ...]:
    found: dict[int, list[Change]] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        process, role, moment, phase, number, _, name = line.split("\t", 6)
        found.setdefault(int(process), []).append(Change(int(process), role, float(moment), phase, int(number), name))
    changes = []
    for ordered in found.values():
        for change, after in zip(ordered, [*ordered[1:], None], strict=True):
            gap = after.moment - change.moment if after else 0.0
            changes.append(Change(change.process, change.role, change.moment, change.phase, change.number, change.name, gap))
    return tuple(changes)


def undisturbed(kind: Kind, place: Place) -> Whole:
    """Run a command that nobody disturbs."""
    out = place.work / f"{kind.name}-whole"
    out.mkdir()
    trace = out.with_suffix(".trace")
    started = time.monotonic()
    spec = {"root": str(out), "trace": str(trace), "act": None}
    command = start(kind.command(place.data, out), out.with_suffix(".txt"), place.temporary, spec=spec)
    code = command.wait()
    if code != 0:
        raise RuntimeError(f"{kind.name} failed without a disturbance ({code}): {command.said()[-3000:]}")
    seconds = time.monotonic() - started
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    whole = Whole(place, hashed(kind.found(out)), seconds, size, _read_trace(trace))
    shutil.rmtree(out)
    return whole


@dataclass
class Round:
    """One command that is disturbed."""

    kind: Kind
    whole: Whole
    out: Path
    problems: list[str] = field(default_factory=list)
    finished: dict[Path, bytes] = field(default_factory=dict)
    mounted: bool = False

    def __post_init__(self) -> None:
        self.out.mkdir()

    @property
    def log(self) -> Path:
        """What all commands of the round print."""
        return self.out.with_suffix(".txt")

    @property
    def words(self) -> list[str]:
        """The command."""
        return self.kind.command(self.whole.place.data, self.out)

    def start(self, *, act: Mapping[str, Any] | None = None, words: list[str] | None = None, **more: Any) -> Command:
        """Start the command, or go on with it."""
        spec = {"root": str(self.out), "trace": None, "act": dict(act)} if act else None
        return start(words or self.words, self.log, self.whole.place.temporary, spec=spec, **more)

    def fault(self, words: str) -> None:
        """Note what is wrong."""
        self.problems.append(words)

    def was_hit(self, act: Mapping[str, Any]) -> str | None:
        """Return the phase in which something was done; None if the command ended before."""
        mark = Path(act["mark"])
        if not mark.exists():
            return None
        last = mark.read_text(encoding="utf-8")
        mark.unlink()
        if act["delay"] > 0 and Change(0, act["role"], 0, "", 0, last, 1.0).trains:
            return "training"
        return phase_of(last)

    def note_finished(self) -> None:
        """Remember what is finished: it must stay as it is."""
        for file in (*self.out.glob("run/jobs/*/result.json"), *self.out.glob("work/done/*.json")):
            # The export of the model is made again where a kill cut it; all other jobs are made once.
            if "export" not in file.parent.name:
                self.finished[file] = file.read_bytes()

    def check_orphans(self, command: Command) -> None:
        """A command that has ended has no processes."""
        # A cluster of Ray takes its time.
        self.problems += orphans(command, 180.0 if "ray" in self.kind.name else 15.0)

    def check_refused(self, command: Command, code: int | None, *, may_end: bool = True) -> bool:
        """A disturbed command ends well, or says why it does not; return whether it ended well."""
        if code is None:
            self.fault("it did not end")
        elif code == 0 and not may_end:
            self.fault(f"exit code 0: {command.said()[-1500:]}")
        elif code != 0 and not is_calm(command.said()):
            self.fault(f"exit code {code} without a reason: {command.said()[-3000:]}")
        self.check_orphans(command)
        self.note_finished()
        return code == 0

    def go_on(self) -> None:
        """Let the command come to its end, and compare."""
        command = self.start()
        self.check_end(command, command.wait())

    def check_end(self, command: Command, code: int | None) -> None:
        """Compare what a command left that has come to its end."""
        if code != 0:
            self.fault(f"exit code {code} at last: {command.said()[-3000:]}")
            return
        self.check_equal()
        changed = [str(file) for file, content in self.finished.items() if not file.exists() or file.read_bytes() != content]
        self.problems += [f"finished before, and changed: {file}" for file in changed]
        self.check_orphans(command)
        self.problems += [f"left: {path}" for path in leftovers(self.out, self.whole.place.temporary)]

    def check_equal(self) -> None:
        """Compare what is there with what an undisturbed command leaves."""
        try:
            found = hashed(self.kind.found(self.out))
        except (OSError, ValueError) as error:
            self.fault(f"what is left cannot be read: {error!r}")
            return
        self.problems += differences(found, self.whole.found)[:10]

    def keep(self, folder: Path) -> None:
        """Copy folder and log."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.out.is_dir():
            shutil.copytree(self.out, folder / self.out.name, dirs_exist_ok=True)
        if self.log.exists():
            shutil.copy(self.log, folder / self.log.name)

    def remove(self) -> None:
        """Remove folder and log."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.out)], check=False)
        shutil.rmtree(self.out, ignore_errors=True)
        self.log.unlink(missing_ok=True)
