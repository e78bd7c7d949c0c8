"""What happens to a command besides kills: no space, no rights, folders that go, signals, other data, two of them at once.

Each trouble disturbs one round's command, checks that it ends well or says why it does not, and lets it go on; :meth:`.Round.check_end`
compares. It returns in a word or two what came of it, which is counted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .clock import clock_library
from .commands import Kind
from .processes import Command, is_calm
from .rounds import Round

__all__ = ["TROUBLES", "Trouble"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One way to disturb a command."""

    make: Callable[[Round, random.Random], str]
    """Disturbs the command of a round, lets it go on and checks; returns what came of it."""
    fits: Callable[[Kind], bool] = lambda kind: True
    """Whether commands of a kind can be disturbed so."""


def _ended(round_: Round, command: Command, *, may_end: bool = True) -> str:
    ended = round_.check_refused(command, command.wait(), may_end=may_end)
    return "ended well" if ended else "refused"


def disk_full(round_: Round, rng: random.Random) -> str:
    """The folder lies on a file system that is too small; later there is more space."""
    size = int(rng.uniform(0.02, 1.2) * round_.whole.size) + 8192
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(round_.out)]
    round_.mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    if not round_.mounted:  # nobody but root may
        return f"not mounted, a file limit in its place: {file_limit(round_, rng)}"
    word = _ended(round_, round_.start())
    subprocess.run(["mount", "-o", "remount,size=2g", str(round_.out)], check=True)
    round_.go_on()
    return word


def file_limit(round_: Round, rng: random.Random) -> str:
    """No file may be larger than some bytes."""
    size = int(10 ** rng.uniform(2.5, 6))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    # Into a pipe: the log is a file as well.
    command = round_.start(preexec_fn=limit, stdout=subprocess.DEVNULL)
    word = _ended(round_, command)
    round_.go_on()
    return word


_REFUSALS = (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE)


def refused(round_: Round, rng: random.Random) -> str:
    """From some moment on, the system refuses every change of a file: read-only, no rights, no space, an error of the disk."""
    act = round_.whole.draw(rng, rng.choice(_REFUSALS), round_.out.with_suffix(".mark"))
    word = _ended(round_, round_.start(act=act | {"delay": 0.0}))
    hit = round_.was_hit(act)
    round_.go_on()
    return f"in {hit}, {word}" if hit else "came too late"


def vanishes(round_: Round, rng: random.Random) -> str:
    """The folder that is written into is removed; then a new one begins."""
    act = round_.whole.draw(rng, "vanish", round_.out.with_suffix(".mark"))
    word = _ended(round_, round_.start(act=act))
    hit = round_.was_hit(act)
    shutil.rmtree(round_.out, ignore_errors=True)
    round_.out.mkdir()
    round_.finished.clear()
    round_.go_on()
    return f"in {hit}, {word}" if hit else "came too late"


def no_home(round_: Round, rng: random.Random) -> str:
    """There is no home folder: the variable is not set, or names nothing that exists."""
    nowhere = str(round_.whole.place.temporary / "no-such-home")
    variables = {"HOME": rng.choice((None, nowhere, "relative")), "GRAFTWORK_CACHE": None, "XDG_CACHE_HOME": None}
    # The home of the user database would be written into otherwise.
    if variables["HOME"] is None and round_.kind.caches:
        variables["XDG_CACHE_HOME"] = str(round_.whole.place.temporary / "cache")
    command = round_.start(environment=variables, cwd=round_.whole.place.temporary)
    round_.check_end(command, command.wait())
    return "unset" if variables["HOME"] is None else "relative" if variables["HOME"] == "relative" else "names nothing"


_AS_UNKNOWN = ("unshare", "--user", "--map-user=65533", "--map-group=65533")


def unknown_user(round_: Round, rng: random.Random) -> str:
    """The user has no entry in the user database, and no home folder, as in a container."""
    if shutil.which("unshare") is None or subprocess.run([*_AS_UNKNOWN, "true"], check=False, capture_output=True).returncode:
        return "cannot be made here"
    variables = {"HOME": None, "GRAFTWORK_CACHE": None, "XDG_CACHE_HOME": None, "USER": None, "LOGNAME": None}
    command = round_.start(environment=variables, before=_AS_UNKNOWN)
    word = _ended(round_, command)
    round_.go_on()
    return word


def cache_cut(round_: Round, rng: random.Random) -> str:
    """Files of the cache are cut at any byte, or hold other bytes."""
    cache = round_.whole.place.temporary / "cache"
    files = [file for file in sorted(cache.rglob("*")) if file.is_file() and file.stat().st_size]
    for file in rng.sample(files, min(len(files), rng.choice((1, 2, 100)))):
        content = bytearray(file.read_bytes())
        at = rng.randrange(len(content))
        if rng.random() < 0.7:
            del content[at:]
        else:
            content[at] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
    round_.go_on()
    return "with entries" if files else "empty"


def clock_back(round_: Round, rng: random.Random) -> str:
    """The clock of the machine is set back by an hour or by years, and the command killed before or after."""
    library = clock_library()
    if library is None:
        return "no compiler"
    start = time.clock_gettime(time.CLOCK_MONOTONIC) + rng.uniform(0, round_.whole.seconds)
    back = rng.choice((3_600, 3_600 * 24 * 365 * 9))
    variables = {"LD_PRELOAD": str(library), "TORTURE_CLOCK_AT": f"{start:.3f}", "TORTURE_CLOCK_BACK": str(back)}
    act = round_.whole.draw(rng, "group", round_.out.with_suffix(".mark")) if rng.random() < 0.5 else None
    command = round_.start(act=act, environment=variables)
    code = command.wait()
    if code != 0 and act is not None and round_.was_hit(act):
        round_.check_orphans(command)
        round_.note_finished()
        round_.go_on()
        return "killed as well"
    round_.check_end(command, code)
    return "ended well"


def closed_pipe(round_: Round, rng: random.Random) -> str:
    """Whoever reads the output goes away, at once or later: the work is done all the same."""
    reader, writer = os.pipe()
    command = round_.start(stdout=writer, words=[word for word in round_.words if word != "--quiet"])
    os.close(writer)
    if rng.random() < 0.5:
        os.read(reader, rng.choice((1, 200, 4_000)))
    os.close(reader)
    code = command.wait()
    round_.check_end(command, code)
    return "ended well"


def _signals(round_: Round, rng: random.Random, *numbers: int) -> str:
    command = round_.start()
    time.sleep(rng.uniform(0, 1.0) * round_.whole.seconds)
    sent = 0
    for number in numbers:
        if command.process.poll() is None:
            command.process.send_signal(number)
            sent += 1
            time.sleep(rng.choice((0.0, rng.uniform(0, 1.5))))
    # It may still have to import and to read, on a machine that has little time for it.
    code = command.wait(120 + 5 * round_.whole.seconds)
    said = command.said()
    if code is None:
        round_.fault("it did not end for minutes after a signal")
    # Before the handlers are there, a signal ends it as it ends any process.
    elif code not in (0, 130, 143, *(-number for number in numbers)) or "This is a bug" in said:
        round_.fault(f"exit code {code} after signals: {said[-3000:]}")
    elif code not in (0, -signal.SIGTERM) and not is_calm(said) and "KeyboardInterrupt" not in said:
        round_.fault(f"exit code {code} without a reason: {said[-3000:]}")
    round_.check_orphans(command)
    round_.note_finished()
    round_.go_on()
    return f"{sent} sent, exit code {code}"


def terminated(round_: Round, rng: random.Random) -> str:
    """SIGTERM, as a machine sends it that shuts down."""
    return _signals(round_, rng, signal.SIGTERM)


def interrupted(round_: Round, rng: random.Random) -> str:
    """Ctrl-C twice."""
    return _signals(round_, rng, signal.SIGINT, signal.SIGINT)


def frozen(round_: Round, rng: random.Random) -> str:
    """All processes, or one of them, stand still for some seconds, as on a machine that sleeps or swaps."""
    command = round_.start()
    times = 0
    for _ in range(rng.choice((1, 2, 4))):
        time.sleep(rng.uniform(0, round_.whole.seconds / 2))
        found = command.processes()
        chosen = rng.sample(found, 1) if found and rng.random() < 0.5 else found
        times += bool(chosen)
        for number, pause in ((signal.SIGSTOP, rng.uniform(0.1, 8.0)), (signal.SIGCONT, 0.0)):
            for process in chosen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            time.sleep(pause)
    round_.check_end(command, command.wait())
    return f"{times} times"


def starved(round_: Round, rng: random.Random) -> str:
    """It gets a small part of one core; others take the rest."""
    core = str(rng.choice(sorted(os.sched_getaffinity(0))))
    idle = ["taskset", "--cpu-list", core, "nice", "-n", "19"]
    others = [subprocess.Popen(["taskset", "--cpu-list", core, "sh", "-c", "while :; do :; done"]) for _ in range(3)]
    try:
        command = round_.start(before=idle)
        # A twentieth of a core, or less: who is slow is not stuck.
        code = command.wait(300 + 100 * round_.whole.seconds)
    finally:
        for other in others:
            other.kill()
            other.wait()
    round_.check_end(command, code)
    return "ended"


def two_at_once(round_: Round, rng: random.Random) -> str:
    """The same command twice into one folder, at once or soon after each other."""
    first = round_.start()
    time.sleep(rng.choice((0.0, rng.uniform(0, 0.8) * round_.whole.seconds)))
    second = round_.start()
    codes = (first.wait(), second.wait())
    for command, code in zip((first, second), codes, strict=True):
        if code is None:
            round_.fault("it did not end")
        elif code != 0 and not is_calm(command.said()):
            round_.fault(f"exit code {code} without a reason: {command.said()[-3000:]}")
        round_.check_orphans(command)
    if 0 not in codes:
        round_.fault(f"none of two came to its end: {codes}")
    round_.go_on()
    return f"exit codes {sorted(code or 0 for code in codes)}"


def changed_before_resume(round_: Round, rng: random.Random) -> str:
    """After a kill, the data or a flag is another one: refused, and nothing is lost by that."""
    act = round_.whole.draw(rng, "group", round_.out.with_suffix(".mark"))
    command = round_.start(act=act)
    command.wait()
    round_.check_orphans(command)
    round_.was_hit(act)
    round_.note_finished()
    began = (round_.out / "run" / "run.json").exists() and (round_.out / "run" / "suite" / "suite.json").exists()
    words = list(round_.words)
    if rng.random() < 0.5:
        flag, value = round_.kind.flag
        what, words[words.index(flag) + 1] = "flag", value
    else:
        at = round_.kind.source_at
        what, words[at] = "data", str(_other_source(Path(words[at]), round_.out / "other"))
    if began:
        word = round_.check_refused(other := round_.start(words=words), other.wait(), may_end=False)
        if word is False and not any(part in other.said() for part in ("you gave", "has changed")):
            round_.fault(f"refused for another reason: {other.said()[-1500:]}")
    shutil.rmtree(round_.out / "other", ignore_errors=True)
    round_.go_on()
    return f"{what} refused" if began else "nothing was there to go on with"


def _other_source(source: Path, folder: Path) -> Path:
    """Return a copy of the data that has one row or file less."""
    folder.mkdir()
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target)
        with contextlib.suppress(StopIteration):
            next(target.glob("*.png")).unlink()
    else:
        target.write_bytes(source.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n")
    return target


TROUBLES: Mapping[str, Trouble] = {
    "disk-full": Trouble(disk_full),
    "file-limit": Trouble(file_limit),
    "refused": Trouble(refused),
    "vanishes": Trouble(vanishes),
    "no-home": Trouble(no_home),
    "unknown-user": Trouble(unknown_user, lambda kind: "ray" not in kind.name),
    "cache-cut": Trouble(cache_cut, lambda kind: kind.caches),
    "clock-back": Trouble(clock_back),
    "closed-pipe": Trouble(closed_pipe),
    "terminated": Trouble(terminated),
    "interrupted": Trouble(interrupted),
    "frozen": Trouble(frozen, lambda kind: "ray" not in kind.name),
    "starved": Trouble(
        starved, lambda kind: "ray" not in kind.name and kind.workers != "" and shutil.which("taskset") is not None
    ),
    "two-at-once": Trouble(two_at_once, lambda kind: kind.name not in ("merge", "merge-yaml", "rank") and not kind.needs_run),
    "changed": Trouble(changed_before_resume, lambda kind: kind.can_resume),
}
"""All troubles by name."""
