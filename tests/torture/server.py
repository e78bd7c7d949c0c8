"""A server under attack: clients that ask properly get right answers, whatever the others do, and none is cut off when it stops.

    python -m tests.torture.server --minutes 60 --seed 1 [--clients 64] [--attackers 150] [--keep FOLDER]

In rounds of some seconds, and in one that lasts half of the time, a server with low limits is started as a process of its own, for
a model of tables, texts, pictures, or several sizes. Clients ask and compare each answer with that of ``Predictor``; attackers send
unfinished and endless requests, damaged HTTP and JSON, pictures that are bombs, and bodies of megabytes; schemathesis asks by the
server's schema; the model file is replaced and deleted. Then the attackers leave, and the server is stopped while the clients go on.
Faults are wrong answers, failures of the server (500, a crash, an exit code), requests without an answer once the attack is over,
also while the server stops, memory or a log that grows. A request counts once it is sent on a connection that the server has not
ended: clients look before they ask, as those in use do, and leave a connection on which the end has come. What was sent and
answered in a fault is kept in a folder that is named at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graftwork.core.optional import has

from . import attacks
from .fuzzing import fuzz
from .options import add_options, settle
from .questions import KINDS, Question, is_right, questions, served, write_run

__all__ = ["main"]

ROUND_SECONDS = 20.0
LIMITS = {
    "max-connections": 120,
    "header-timeout": 1,
    "timeout": 5,
    "max-bodies-bytes": 64 << 20,
    "max-body-bytes": 8 << 20,
    "stop-timeout": 20,
}
ROOM = 400 << 20
"""Bytes by which a server's memory may grow: bodies, their values, and what the allocator keeps of them."""
FLAT = 48 << 20
"""Bytes by which the middle of the last quarter of a long round may be above that of the second."""
LONG = 120.0
"""Seconds from which on a round is long enough to say that."""
LOG = 100_000
"""Bytes of log that a round may write, and a thousand for each second."""


@dataclass
class Round:
    """What happens in one round."""

    port: int
    questions: Sequence[Question]
    seed: str
    counts: Counter[str]
    faults: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    under_attack: bool = True
    over: bool = False
    stopping: bool = False
    since: float = 0.0
    """When the attack was over, or the stop began."""
    memory: list[int] = field(default_factory=list)
    """Resident bytes of the server, about once a second."""

    def fault(self, words: str, sent: bytes, got: bytes = b"") -> None:
        """Note a fault."""
        self.counts["fault"] += 1
        self.faults.append((words, sent, got))

    def when(self) -> str:
        """Return in words what happens now."""
        seconds = time.monotonic() - self.since
        return f"{seconds:.2f} s after {'the stop began' if self.stopping else 'the attack'}"

    def quarters(self) -> list[int]:
        """Return the middle of each quarter of :attr:`memory`, in MB."""
        size = max(1, len(self.memory) // 4)
        parts = [self.memory[start : start + size] for start in range(0, 4 * size, size)]
        return [int(statistics.median(part)) >> 20 for part in parts if part]


async def client(state: Round, number: int) -> None:
    """Ask until the server refuses connections; half of the clients keep their connection."""
    rng = random.Random(f"{state.seed}/client/{number}")
    while not state.over:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
        except ConnectionRefusedError:
            state.counts["refused at the stop"] += 1
            if state.under_attack:
                state.fault("the port is closed", b"")
            return
        except OSError:
            continue
        with contextlib.suppress(OSError):
            await _ask(state, reader, writer, rng, keep=number % 2 == 0)
        writer.close()


async def _ask(
    state: Round, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random, *, keep: bool
) -> None:
    """Ask on one connection until it ends."""
    while not state.over:
        question = rng.choice(state.questions)
        sent = attacks.request(question.body, path=question.path, close=not keep)
        attacked = state.under_attack
        if reader.at_eof() or _has_unread(writer):
            # Nothing is asked yet: an end, or word of having been too slow.
            state.counts["ended before it was asked"] += 1
            return
        try:
            writer.write(sent)
            await writer.drain()
            status, headers, answer = await attacks.read_answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            # A connection that waits may have to make room for others, but nothing else cuts one off.
            if attacked or state.under_attack:
                state.counts["turned away"] += 1
            else:
                state.fault(f"cut off {state.when()}: {error!r}", sent, getattr(error, "partial", b""))
            return
        if status == 200:
            state.counts["right" if state.under_attack else "right after the attack"] += 1
            if not is_right(answer, question):
                state.fault("a wrong answer", sent, answer)
        elif status in (408, 503, 504):
            state.counts[f"refused with {status}"] += 1
        else:
            state.fault(f"status {status}", sent, answer)
        if headers.get("connection") == "close":
            return


def _has_unread(writer: asyncio.StreamWriter) -> bool:
    """Return whether something has come that the event loop has not read yet."""
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


async def attacker(state: Round, number: int) -> None:
    """Attack in one way after the other."""
    rng = random.Random(f"{state.seed}/attacker/{number}")
    while state.under_attack and not state.over:
        way = rng.choice(attacks.WAYS)
        sent, got = b"", b""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
            try:
                sent, got = await asyncio.wait_for(way(rng, reader, writer, state.questions), 10)
            finally:
                writer.close()
        state.counts[f"attacks: {way.__name__.replace('_', ' ')}"] += 1
        if got[9:12] in (b"500", b"501", b"502", b"505"):
            state.fault(f"{way.__name__}: {got[:40]!r}", sent, got)


async def play(state: Round, process: subprocess.Popen[bytes], model: Path, seconds: float, clients: int, attackers: int) -> None:
    """Play one round, in which the file of the model is damaged."""
    tasks = [asyncio.create_task(client(state, number)) for number in range(clients)]
    enemies = [asyncio.create_task(attacker(state, number)) for number in range(attackers)]
    asked = asyncio.create_task(
        asyncio.to_thread(
            fuzz, f"http://127.0.0.1:{state.port}", state.seed, lambda: state.under_attack, state.counts, state.fault
        )
    )
    end = time.monotonic() + seconds
    content, damages = model.read_bytes(), [b"another model", b"", None]
    while time.monotonic() < end and process.poll() is None:
        await asyncio.sleep(min(1.0, seconds / 10))
        state.memory.append(memory(process.pid))
        damage = damages[int(time.monotonic() * 10) % 3]
        model.unlink(missing_ok=True)
        if damage is not None:
            model.write_bytes(damage)
    model.write_bytes(content)
    state.under_attack, state.since = False, time.monotonic()
    for enemy in enemies:
        enemy.cancel()
    await asyncio.gather(*enemies, return_exceptions=True)
    await asyncio.wait([asked], timeout=60)
    await asyncio.sleep(1.0)
    if process.poll() is None:
        state.stopping, state.since = True, time.monotonic()
        process.send_signal(signal.SIGTERM)
    _, late = await asyncio.wait(tasks, timeout=60)
    state.over = True
    for task in late:
        state.fault("a client without an answer for a minute", b"")
        task.cancel()
    for task in set(tasks) - late:
        if (error := task.exception()) is not None:
            state.fault(f"{type(error).__name__}: {error}", b"")
    if asked.done() and (error := asked.exception()) is not None:
        state.fault(f"schemathesis: {type(error).__name__}: {error}", b"")


def memory(process: int) -> int:
    """Return the resident bytes of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def one_round(kind: str, folder: Path, work: Path, seed: str, seconds: float, clients: int, attackers: int) -> Round:
    """Start a server, attack it, stop it, and return what happened."""
    flags = [word for name, value in LIMITS.items() for word in (f"--{name}", str(value))]
    folders, model = served(kind, folder)
    command = [sys.executable, "-m", "graftwork", "serve", *folders, "--port", "0", "--threads", "1", *flags]
    log = work / "log.txt"
    asked = questions(kind, folder, random.Random(seed), 100 if seconds < 2 * ROUND_SECONDS else 400)
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stderr=file, stdin=subprocess.DEVNULL)
    try:
        address, end = b"", time.monotonic() + 300
        while b" answers at " not in address:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start: {address.decode(errors='replace')}")
            time.sleep(0.05)
            address = log.read_bytes()
        port = int(address.partition(b" answers at http://127.0.0.1:")[2].split()[0])
        state = Round(port, asked, seed, Counter())
        before = memory(process.pid)
        asyncio.run(play(state, process, model, seconds, clients, attackers))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        _judge(state, process, log.read_bytes(), before, seconds)
        return state
    finally:
        process.kill()
        process.wait()


def _judge(state: Round, process: subprocess.Popen[bytes], log: bytes, before: int, seconds: float) -> None:
    """Note faults of the server itself."""
    grown, quarters = max(state.memory, default=before) - before, state.quarters()
    if process.returncode != 0:
        state.fault(f"the server ended with {process.returncode}", b"", log[-20_000:])
    if grown > ROOM:
        state.fault(f"the server grew by {grown >> 20} MB", b"")
    if seconds >= LONG and len(quarters) == 4 and quarters[3] - quarters[1] > FLAT >> 20:
        state.fault(f"memory is not flat: {quarters} MB in quarters of the round", b"")
    if len(log) > LOG + 1_000 * seconds:
        state.fault(f"a log of {len(log):,} bytes", b"", log[:20_000])
    if b"Traceback" in log:
        state.fault("a traceback in the log", b"", log[:20_000])
    state.counts["bytes of log"] += len(log)
    state.counts["most MB grown"] = grown >> 20


def _keep(keep: Path, label: str, faults: Sequence[tuple[str, bytes, bytes]]) -> None:
    for index, (words, sent, got) in enumerate(faults[:100]):
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{label}-{index}.txt").write_text(f"{words}\n", encoding="utf-8")
        (keep / f"{label}-{index}.sent").write_bytes(sent)
        (keep / f"{label}-{index}.got").write_bytes(got)


def _go(args: argparse.Namespace, place: Path, keep: Path, total: Counter[str]) -> None:
    """Play rounds until the time is over."""
    kinds, end = args.kinds.split(","), time.monotonic() + 60 * args.minutes
    while not total["rounds"] or time.monotonic() < end:
        number = total["rounds"]
        seed, kind = f"{args.seed}/{number}", kinds[number % len(kinds)]
        if not (place / kind).exists():
            write_run(kind, place / kind)
        # One server for half of the time, whose memory has to stay; then many, which are stopped.
        seconds = 30 * args.minutes if number == 0 and args.minutes >= 4 else ROUND_SECONDS
        seconds = max(1.0, min(seconds, end - time.monotonic()))
        state = one_round(kind, place / kind, place, seed, seconds, args.clients, args.attackers)
        most = max(total["most MB grown"], state.counts["most MB grown"])
        total.update(state.counts)
        total["rounds"], total["most MB grown"] = number + 1, most
        _keep(keep, f"{args.seed}-{number}", state.faults)
        for words, _, _ in state.faults[:20]:
            print(f"round {number}: {words[:200]}", flush=True)
        answers = state.counts["right"] + state.counts["right after the attack"]
        shown = f"{answers} answers, {state.counts['fault']} faults, MB by quarters {state.quarters()}"
        print(f"round {number} ({kind}, {seconds:.0f} s): {shown}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_options(parser, minutes=2.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--attackers", type=int, default=150)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    args = parser.parse_args(argv)
    settle(args, "server")
    # Now, not while the clients wait.
    attacks.bombs()
    if has("schemathesis"):
        importlib.import_module("schemathesis")
    total: Counter[str] = Counter()
    try:
        with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as place:
            _go(args, Path(place), args.keep, total)
    finally:
        for name, count in sorted(total.items()):
            print(f"{name:36} {count}")
        right = total["right"] + total["right after the attack"]
        print(f"seed {args.seed}: {total['rounds']} rounds, {right} right answers, {total['fault']} faults", flush=True)
    if total["fault"]:
        print(f"what was sent and answered is in {args.keep}", file=sys.stderr)
    return 1 if total["fault"] else 0


if __name__ == "__main__":
    # So that nothing stays, and the counts are printed, if this is ended early.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    raise SystemExit(main())
