"""Damaged files of all kinds that graftwork reads: each ends in a named error or in the right result.

    python -m tests.torture.files --count 1000 --seed 1 [--kinds run,config] [--keep FOLDER]

For every kind, ``count`` damaged copies are written and read. Counted are the right results, the refusals (errors that graftwork
raises on purpose) and the faults: any other exception, a message that is too long to read, a file opened elsewhere, a program
started, too much time or memory. The files of faults are kept with the traceback in a folder that is named at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from graftwork.core.errors import GraftworkError

from .mutations import mutated
from .subjects import SUBJECTS, Subject, build, copy_of
from .watch import TooSlowError, watched

__all__ = ["main", "torture"]

CPU_SECONDS = 20.0
LONGEST_MESSAGE = 20_000
MEMORY = 4 * 2**30
"""Bytes of address space beyond what is in use when it begins."""


def torture(subject: Subject, base: Path, work: Path, keep: Path, *, count: int, seed: int, first: int = 0) -> Counter[str]:
    """Read ``count`` damaged files of one kind.

    Args:
        subject: The kind.
        base: Folder that :func:`.build` filled.
        work: An empty folder.
        keep: Where files of faults go.
        count: Number of files.
        seed: Together with kind and number, decides each of them.
        first: Number of the first one.

    Returns:
        ``{"right": ..., "refused": ..., "fault": ...}``; faults also by what they are.
    """
    found: Counter[str] = Counter()
    for number in range(first, first + count):
        rng = random.Random(f"{seed}/{subject.name}/{number}")
        folder = work / f"{subject.name}-{number}"
        copy_of(base / subject.folder, folder)
        where = _damage(rng, subject, folder)
        # Of links, which come out of the copy: reading must not change what they stand for.
        damaged = keep / f"{subject.name}-{seed}-{number}"
        outcome, words = _outcome(subject, folder, work)
        found[outcome] += 1
        if outcome == "fault":
            found[words.strip().rpartition("\n")[2][:100]] += 1
            _keep_fault(rng, subject, base, damaged, seed, number, where, words)
        shutil.rmtree(folder)
    return found


def _damage(rng: random.Random, subject: Subject, folder: Path) -> str:
    """Damage one file; return which."""
    files = sorted(path for pattern in subject.files for path in folder.glob(pattern))
    path = rng.choice(files)
    if subject.language != "place":
        content = path.read_bytes()
        path.unlink()  # it is a link to the base
        path.write_bytes(mutated(rng, content, subject.language))
        return str(path.relative_to(folder))
    way = rng.choice(("gone", "folder", "full folder", "file", "link", "circle"))
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
    return f"{path.relative_to(folder)}: {way}"


def _outcome(subject: Subject, folder: Path, work: Path) -> tuple[str, str]:
    try:
        with watched(
            folder, work, tempfile.gettempdir(), os.environ.get("GRAFTWORK_CACHE", folder), cpu_seconds=CPU_SECONDS
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
    return ("fault", "\n".join([*trespass.found, "Trespass"])) if trespass.found else outcome


def _keep_fault(
    rng: random.Random, subject: Subject, base: Path, target: Path, seed: int, number: int, where: str, words: str
) -> None:
    """Make the damaged files once more, as they were before they were read."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target)
    shutil.copytree(base / subject.folder, target)
    _damage(random.Random(f"{seed}/{subject.name}/{number}"), subject, target)
    (target / "fault.txt").write_text(f"{where}\n{words}\n", encoding="utf-8", errors="backslashreplace")


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file of each kind")
    parser.add_argument("--kinds", default=",".join(SUBJECTS), help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--keep", type=Path, help="where files of faults go (default: a new temporary folder)")
    args = parser.parse_args(argv)
    keep = args.keep or Path(tempfile.mkdtemp(prefix="graftwork-faults-"))
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as place:
        os.environ["GRAFTWORK_CACHE"] = f"{place}/cache-of-graftwork"
        base, work = Path(place) / "base", Path(place) / "work"
        base.mkdir()
        work.mkdir()
        os.chdir(work)
        # The run takes longest and only some kinds need it.
        build(base, ("separate", "shared-trunk") if any(SUBJECTS[name].folder == "run" for name in args.kinds.split(",")) else ())
        # After the build, which may use what it needs.
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        for name in args.kinds.split(","):
            started = time.monotonic()
            found = torture(SUBJECTS[name], base, work, keep, count=args.count, seed=args.seed, first=args.first)
            total += found
            counts = ", ".join(f"{found[key]} {key}" for key in ("right", "refused", "fault"))
            print(f"{name:18} {counts}   ({time.monotonic() - started:.0f} s)", flush=True)
            for words, times in found.most_common():
                if words not in ("right", "refused", "fault"):
                    print(f"{'':20}{times} x {words}", flush=True)
    print(f"seed {args.seed}: {total['right']} right, {total['refused']} refused, {total['fault']} faults", flush=True)
    if total["fault"]:
        print(f"the files of faults are in {keep}", file=sys.stderr)
    return 1 if total["fault"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
