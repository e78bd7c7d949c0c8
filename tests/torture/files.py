"""Damaged files of all kinds that graftwork reads: each ends in a named error or in the right result.

    python -m tests.torture.files --count 1000 --seed 1 [--kinds run,config] [--keep FOLDER]

For every kind, ``count`` damaged copies are written and read, in a process of its own, since a compiled library may end it. Counted
are the right results, the refusals (errors that graftwork raises on purpose) and the faults: any other exception, a process that
ends, a message that is too long to read, a file opened elsewhere, a program started, too much time or memory. Memory is judged
twice: no file may let the process grow by ``ROOM`` more than the whole file of its kind does, and the address space is limited. The
files of faults are kept with the traceback in a folder that is named in the beginning. With ``--minutes`` the kinds come again and
again, each time with further files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from graftwork.core.errors import GraftworkError
from graftwork.evaluation.memory import PeakMemory

from .mutations import mutated
from .options import add_options, settle
from .pictures import OUTSIDE, damage_links, solid_picture
from .subjects import SUBJECTS, Subject, copy_of
from .watch import Outside, TooSlowError, watched
from .wholes import build

__all__ = ["ROOM", "main", "torture", "turns"]

CPU_SECONDS = 20.0
LONGEST_MESSAGE = 20_000
MEMORY = 2 * 2**30
"""Bytes of address space beyond what is in use when it begins."""
ROOM = 400 << 20
"""Bytes by which a damaged file may let the process grow beyond what the whole one does. The largest picture that is allowed takes
half of it."""
_OUTCOMES = ("right", "refused", "fault")
TURN = 25
"""Files of a kind in a row, where minutes are given."""


def torture(
    subject: Subject,
    base: Path,
    work: Path,
    keep: Path,
    *,
    count: int,
    seed: int,
    first: int = 0,
    most: int = ROOM,
    tell: Callable[[int, Counter[str]], None] = lambda number, found: None,
) -> Counter[str]:
    """Read ``count`` damaged files of one kind.

    Args:
        subject: The kind.
        base: Folder that :func:`.build` filled.
        work: An empty folder; beside it is another one that nothing may touch.
        keep: Where files of faults go.
        count: Number of files.
        seed: Together with kind and number, decides each of them.
        first: Number of the first one.
        most: Bytes by which reading one of them may let the process grow.
        tell: Called with the number before each file, and what was found so far.

    Returns:
        ``{"right": ..., "refused": ..., "fault": ...}``; faults also by what they are.
    """
    found: Counter[str] = Counter()
    outside = Outside(_write_outside(work.with_name(OUTSIDE)))
    for number in range(first, first + count):
        tell(number, found)
        folder = work / f"{subject.name}-{number}"
        copy_of(base / subject.folder, folder)
        where = _damage(random.Random(f"{seed}/{subject.name}/{number}"), subject, folder)
        with PeakMemory() as memory:
            outcome, words = _outcome(subject, folder, outside)
        if memory.increase_bytes > most and outcome != "fault":
            outcome, words = (
                "fault",
                f"{words}\ngrew by {memory.increase_bytes >> 20} MB, {most >> 20} are allowed\nToo much memory",
            )
        found[outcome] += 1
        if outcome == "fault":
            found[words.strip().rpartition("\n")[2][:100]] += 1
            _keep_fault(subject, base, keep, seed, number, f"{where}\n{words}")
        shutil.rmtree(folder)
    tell(first + count, found)
    return found


def _write_outside(folder: Path) -> Path:
    """Write what damaged files try to reach."""
    if not folder.exists():
        folder.mkdir()
        (folder / "secret.bin").write_bytes(b"\1" * 4096)
        # A whole picture, so that it would be read.
        (folder / "secret.png").write_bytes(solid_picture())
        os.mkfifo(folder / "pipe.png")
    return folder


def _damage(rng: random.Random, subject: Subject, folder: Path) -> str:
    """Damage one file; return which."""
    files = sorted(path for pattern in subject.files for path in folder.glob(pattern))
    path = rng.choice(files)
    if subject.language == "links":
        return "; ".join(damage_links(rng, path) for path in rng.sample(files, rng.choice((1, 1, 2))))
    if not subject.language.startswith("place"):
        content = path.read_bytes()
        path.unlink()  # it is a link to the base
        path.write_bytes(mutated(rng, content, subject.language))
        return str(path.relative_to(folder))
    ways = ["gone", "folder", "full folder", "file", "link", "circle"]
    if subject.language == "places that lead out":
        ways += ["outside", "outside", "outside", "pipe"]
    way = rng.choice(ways)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if way.endswith("folder"):
        path.mkdir()
        if way == "full folder":
            (path / "something").write_text("x")
    elif way == "file":
        path.write_bytes(b"")
    elif way == "link":
        path.symlink_to(folder / "nowhere")
    elif way == "circle":
        path.symlink_to(path)
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "outside":
        target = folder.parent.with_name(OUTSIDE) / rng.choice(("secret.bin", "", "not there yet", "pipe.png"))
        path.symlink_to(target)
        way = f"link to {target}"
    return f"{path.relative_to(folder)}: {way}"


def _outcome(subject: Subject, folder: Path, outside: Outside) -> tuple[str, str]:
    outside.touched()
    try:
        with watched(
            folder, tempfile.gettempdir(), os.environ.get("GRAFTWORK_CACHE", folder), cpu_seconds=CPU_SECONDS
        ) as trespass:
            subject.read(folder)
    except GraftworkError as error:
        if len(str(error)) > LONGEST_MESSAGE:
            return "fault", f"a message of {len(str(error)):,} characters\n{error!s:.2000}\nLong message"
        outcome = "refused", str(error)
    except TooSlowError:
        return "fault", f"{traceback.format_exc()}\nTooSlow"
    except Exception as error:
        return "fault", f"{traceback.format_exc()[-20_000:]}\n{type(error).__name__}: {error!s:.300}".replace("\0", "\\0")
    else:
        outcome = "right", ""
    found = [*trespass.found, *(f"opened outside: {name}" for name in outside.touched())]
    return ("fault", "\n".join([*found, "Trespass"])) if found else outcome


def _keep_fault(subject: Subject, base: Path, keep: Path, seed: int, number: int, words: str) -> None:
    """Make the damaged files once more, as they were before they were read."""
    target = keep / f"{subject.name}-{seed}-{number}"
    target.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target)
    # Copies, no links: reading must not change what they stand for.
    shutil.copytree(base / subject.folder, target)
    _damage(random.Random(f"{seed}/{subject.name}/{number}"), subject, target)
    (target / "fault.txt").write_text(f"{words}\n", encoding="utf-8", errors="backslashreplace")


def _one_kind(args: argparse.Namespace, place: Path) -> int:
    """Read files of one kind in this process; what was found so far is in a file at any moment."""
    tempfile.tempdir = str(place / "tmp")
    os.chdir(place / "work")
    subject = SUBJECTS[args.kinds]
    # A whole one first: what is imported then counts as used.
    copy_of(place / "base" / subject.folder, place / "work" / "whole")
    subject.read(place / "work" / "whole")
    shutil.rmtree(place / "work" / "whole")
    # And once more, to see how much memory it takes without the imports.
    copy_of(place / "base" / subject.folder, place / "work" / "whole")
    with PeakMemory() as whole:
        subject.read(place / "work" / "whole")
    shutil.rmtree(place / "work" / "whole")
    peak = whole.peak_bytes
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    handle = os.open(place / "state.json", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)

    def tell(number: int, found: Counter[str]) -> None:
        # Of this process alone; the system's own count begins with that of the process that started it.
        nonlocal peak
        peak = max(peak, memory.peak_bytes)
        content = json.dumps({"number": number, "megabytes": peak >> 20, "found": found}).encode()
        os.ftruncate(handle, os.pwrite(handle, content, 0))

    numbers = {"count": args.count, "seed": args.seed, "first": args.first, "most": whole.increase_bytes + ROOM}
    with PeakMemory() as memory:
        torture(subject, place / "base", place / "work", args.keep, **numbers, tell=tell)
    return 0


def _in_processes(name: str, first: int, count: int, args: argparse.Namespace, place: Path) -> tuple[Counter[str], int]:
    """Read files of one kind in a process, and in a further one wherever that ended; return what was found and the most memory."""
    total, most, end = Counter[str](), 0, first + count
    while first < end:
        for folder in (place / "work", place / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        words = ["--place", str(place), "--kinds", name, "--first", str(first), "--count", str(end - first)]
        command = [sys.executable, "-m", "tests.torture.files", *words, "--seed", str(args.seed), "--keep", str(args.keep)]
        log = place / "errors.txt"
        with open(log, "wb") as errors:
            code = subprocess.run(command, stderr=errors, check=False).returncode
        said = log.read_text(errors="replace")[-3000:]
        state = json.loads((place / "state.json").read_bytes()) if (place / "state.json").exists() else None
        (place / "state.json").unlink(missing_ok=True)
        if state is not None:
            total += Counter(state["found"])
            most, first = max(most, state["megabytes"]), state["number"]
        if state is None or (code > 0 and said):
            # Not even the whole file was read, or the attack itself failed: the other kinds go on.
            total += Counter({"fault": 1, f"the attack ended with {code}: {said[-300:].strip()}": 1})
            break
        if first < end:
            total += Counter({"fault": 1, f"the process ended with {code}": 1})
            _keep_fault(SUBJECTS[name], place / "base", args.keep, args.seed, first, f"ended with {code}\n{said}")
            first += 1
    return total, most


def turns(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Yield kinds, and the numbers of the first file and of files: each kind once, or all in another order until the time is over."""
    names = args.kinds.split(",")
    if args.minutes is None:
        yield from ((name, args.first, args.count) for name in names)
        return
    end = time.monotonic() + 60 * args.minutes
    for turn in itertools.count():
        for name in random.Random(f"{args.seed}/{turn}").sample(names, len(names)):
            if time.monotonic() >= end:
                return
            yield name, args.first + turn * TURN, TURN


def _go(args: argparse.Namespace, place: Path, totals: dict[str, Counter[str]]) -> None:
    """Damage and read files of all kinds."""
    os.environ["GRAFTWORK_CACHE"] = f"{place}/cache-of-graftwork"
    (place / "base").mkdir()
    needed = {SUBJECTS[name].folder for name in args.kinds.split(",")}
    build(place / "base", needed)
    for name, first, count in turns(args):
        if not (place / "base" / SUBJECTS[name].folder).exists():
            print(f"{name:22} left out: the package that makes such files is not installed", flush=True)
            continue
        started = time.monotonic()
        found, most = _in_processes(name, first, count, args, place)
        totals[name] = totals.get(name, Counter()) + found
        counts = ", ".join(f"{found[key]} {key}" for key in _OUTCOMES)
        print(f"{name:22} {counts}   ({time.monotonic() - started:.0f} s, at most {most} MB)", flush=True)
        for words, times in found.most_common():
            if words not in _OUTCOMES:
                print(f"{'':20}{times} x {words}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="damaged files of each kind, if no minutes are given")
    add_options(
        parser, minutes=None, minutes_help=f"go on for so long, {TURN} files of each kind in turn (default: --count of each)"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first file of each kind")
    parser.add_argument("--kinds", default=",".join(SUBJECTS), help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.place is not None:
        return _one_kind(args, args.place)
    settle(args, "files")
    totals: dict[str, Counter[str]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as folder:
            _go(args, Path(folder), totals)
    finally:
        total: Counter[str] = sum(totals.values(), Counter())
        print(f"seed {args.seed}: {total['right']} right, {total['refused']} refused, {total['fault']} faults", flush=True)
        failed = {name: found["fault"] for name, found in totals.items() if found["fault"]}
        if failed:
            print(f"faults by kind: {failed}; their files are in {args.keep}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # So that the counts are printed if this is ended early.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    raise SystemExit(main())
