"""A server under attack: clients that ask properly get right answers, whatever the others do, and none is cut off when it stops.

    python -m tests.torture.server --minutes 60 --seed 1 [--clients 64] [--attackers 150] [--keep FOLDER]

In rounds of some seconds, a server with low limits is started as a process of its own. Clients ask and compare each answer with
that of ``Predictor``; attackers send unfinished and endless requests, damaged HTTP and JSON, and bodies of megabytes; the model
file is replaced and deleted. Then the attackers leave, and the server is stopped while the clients go on. Faults are wrong answers,
failures of the server (500, a crash, an exit code), requests that are cut off at the stop, memory or a log that grows. What was
sent and answered in a fault is kept in a folder that is named at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))

import run_builder

from graftwork.serving.predict import Predictor

from . import attacks

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
LOG = 100_000
"""Bytes of log that a round may write."""


@dataclass
class Round:
    """What happens in one round."""

    port: int
    questions: Sequence[tuple[bytes, Any]]
    """Requests with the predictions that are right."""
    seed: str
    counts: Counter[str]
    faults: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    under_attack: bool = True
    over: bool = False

    def fault(self, words: str, sent: bytes, got: bytes = b"") -> None:
        """Note a fault."""
        self.counts["fault"] += 1
        self.faults.append((words, sent, got))


def questions(folder: Path, rng: random.Random, count: int = 300) -> list[tuple[bytes, Any]]:
    """Return requests of 1 to 5 rows for some of the tasks, and what the model predicts for them."""
    predictor = Predictor(folder, threads=1)
    names = [task.name for task in predictor.tasks]
    cities = list(predictor.encoder.columns[1].levels)  # type: ignore[attr-defined]
    found = []
    for _ in range(count):
        rows = [
            {"age": round(rng.uniform(-50, 150), 3), "city": rng.choice(cities), "since": "2021-01-01", "id": 0}
            for _ in range(rng.randint(1, 5))
        ]
        tasks = sorted(rng.sample(names, rng.randint(1, len(names))), key=names.index)
        frame = predictor.predict(pd.DataFrame(rows), tasks)
        body = json.dumps({"rows": rows, "tasks": tasks}).encode()
        found.append((body, [{task: frame[task].iloc[row] for task in tasks} for row in range(len(rows))]))
    return found


def is_right(answer: bytes, wanted: list[dict[str, Any]]) -> bool:
    """Return whether an answer holds the predictions that are wanted."""
    rows = json.loads(answer)["predictions"]

    def same(value: Any, other: Any) -> bool:
        return value == other if isinstance(other, str) else abs(value - other) <= 1e-5 * max(1.0, abs(other))

    return len(rows) == len(wanted) and all(
        set(row) == set(right) and all(same(row[task]["value"], right[task]) for task in right)
        for row, right in zip(rows, wanted, strict=True)
    )


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
        body, wanted = rng.choice(state.questions)
        sent = attacks.request(body, close=not keep)
        attacked = state.under_attack
        try:
            writer.write(sent)
            await writer.drain()
            status, headers, answer = await attacks.read_answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            # A connection that waits may have to make room for others, but nothing else cuts one off.
            if attacked or state.under_attack:
                state.counts["turned away"] += 1
            else:
                state.fault(f"cut off: {error!r}", sent)
            return
        if status == 200:
            state.counts["right"] += 1
            if not is_right(answer, wanted):
                state.fault("a wrong answer", sent, answer)
        elif status in (408, 503, 504):
            state.counts[f"refused with {status}"] += 1
        else:
            state.fault(f"status {status}", sent, answer)
        if headers.get("connection") == "close":
            return


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


async def play(state: Round, process: subprocess.Popen[bytes], folder: Path, seconds: float, clients: int, attackers: int) -> int:
    """Play one round and return the highest memory of the server in bytes."""
    tasks = [asyncio.create_task(client(state, number)) for number in range(clients)]
    enemies = [asyncio.create_task(attacker(state, number)) for number in range(attackers)]
    model, highest, end = folder / "model.onnx", 0, time.monotonic() + seconds
    content, damages = model.read_bytes(), [b"another model", b"", None]
    while time.monotonic() < end and process.poll() is None:
        await asyncio.sleep(seconds / 10)
        highest = max(highest, memory(process.pid))
        damage = damages[int(time.monotonic() * 10) % 3]
        model.unlink(missing_ok=True)
        if damage is not None:
            model.write_bytes(damage)
    model.write_bytes(content)
    state.under_attack = False
    for enemy in enemies:
        enemy.cancel()
    await asyncio.gather(*enemies, return_exceptions=True)
    await asyncio.sleep(1.0)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    _, late = await asyncio.wait(tasks, timeout=60)
    state.over = True
    for task in late:
        state.fault("a client without an answer for a minute", b"")
        task.cancel()
    for task in set(tasks) - late:
        if (error := task.exception()) is not None:
            state.fault(f"{type(error).__name__}: {error}", b"")
    return highest


def memory(process: int) -> int:
    """Return the resident bytes of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def one_round(folder: Path, work: Path, rng: random.Random, seed: str, seconds: float, clients: int, attackers: int) -> Round:
    """Start a server, attack it, stop it, and return what happened."""
    flags = [word for name, value in LIMITS.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "graftwork", "serve", str(folder), "--port", "0", "--threads", "1", *flags]
    log = work / "log.txt"
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stderr=file, stdin=subprocess.DEVNULL)
    try:
        address, end = b"", time.monotonic() + 120
        while b" answers at " not in address:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start: {address.decode(errors='replace')}")
            time.sleep(0.05)
            address = log.read_bytes()
        port = int(address.partition(b" answers at http://127.0.0.1:")[2].split()[0])
        state = Round(port, questions(folder, rng), seed, Counter())
        before = memory(process.pid)
        highest = asyncio.run(play(state, process, folder, seconds, clients, attackers))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        if process.returncode != 0:
            state.fault(f"the server ended with {process.returncode}", b"", log.read_bytes()[-20_000:])
        if highest - before > ROOM:
            state.fault(f"the server grew by {(highest - before) >> 20} MB", b"")
        if log.stat().st_size > LOG:
            state.fault(f"a log of {log.stat().st_size:,} bytes", b"", log.read_bytes()[:20_000])
        if b"Traceback" in log.read_bytes():
            state.fault("a traceback in the log", b"", log.read_bytes()[:20_000])
        state.counts["most MB grown"] = (highest - before) >> 20
        return state
    finally:
        process.kill()
        process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--attackers", type=int, default=150)
    parser.add_argument("--keep", type=Path, help="where faults go (default: a new temporary folder)")
    args = parser.parse_args(argv)
    keep = args.keep or Path(tempfile.mkdtemp(prefix="graftwork-faults-"))
    total: Counter[str] = Counter()
    end, number = time.monotonic() + 60 * args.minutes, 0
    with tempfile.TemporaryDirectory(prefix="graftwork-torture-") as place:
        folder = run_builder.write_table_run(Path(place) / "run")
        while number == 0 or time.monotonic() < end:
            seed = f"{args.seed}/{number}"
            seconds = max(1.0, min(ROUND_SECONDS, end - time.monotonic()))
            state = one_round(folder, Path(place), random.Random(seed), seed, seconds, args.clients, args.attackers)
            grown = max(total["most MB grown"], state.counts["most MB grown"])
            total += state.counts
            total["most MB grown"] = grown
            for index, (words, sent, got) in enumerate(state.faults[:100]):
                keep.mkdir(parents=True, exist_ok=True)
                name = f"{args.seed}-{number}-{index}"
                (keep / f"{name}.txt").write_text(f"{words}\n", encoding="utf-8")
                (keep / f"{name}.sent").write_bytes(sent)
                (keep / f"{name}.got").write_bytes(got)
                print(f"round {number}: {words[:200]}", flush=True)
            number += 1
    for name, count in sorted(total.items()):
        print(f"{name:32} {count}")
    print(f"seed {args.seed}: {number} rounds, {total['right']} right answers, {total['fault']} faults", flush=True)
    if total["fault"]:
        print(f"what was sent and answered is in {keep}", file=sys.stderr)
    return 1 if total["fault"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
