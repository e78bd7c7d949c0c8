"""``graftwork merge`` as a whole command: CPU seconds, wall seconds and peak memory of the process, start-up and hashes among them,
beside processes that only read all files and write one."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks._rows import Row
from benchmarks._timing import Timing, take_turns

__all__ = ["COMMANDS", "Cost", "command_rows", "run_process"]

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
START = 0.3
"""Seconds of start-up that linear merges may take besides."""
COMMANDS = {
    "averaging": ("averaging", 1.3, START),
    "task-arithmetic": ("task-arithmetic", 1.3, START),
    "ties": ("ties", 8.0, 0.0),
    "averaging --no-hashes": ("averaging", None, 0.0),
    "ties --no-hashes": ("ties", None, 0.0),
}
"""Method, and the target: so many times reading and writing, and so many seconds besides. None has no target of its own."""
PEERS = {"plain": "plain read and write", "aligned": "read and write, aligned buffer"}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    """Resident memory at most, mapped files among it."""


def run_process(command: list[str], environment: dict[str, str]) -> Cost:
    """Run a command to its end.

    Raises:
        RuntimeError: If it fails.
    """
    watched = [sys.executable, "-m", "benchmarks._process_cost", *command]
    done = subprocess.run(watched, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[1:4])} failed: {done.stderr[-600:]}")
    return Cost(**json.loads(done.stdout))


def command_rows(inputs: Path, outputs: Path, *, rounds: int, warmup: int) -> list[Row]:
    """Return the rows of whole commands.

    Args:
        inputs: Folder of checkpoints; the base sorts first.
        outputs: Folder to write to.
        rounds: Rounds that count.
        warmup: Rounds before; the first one writes Python's bytecode, which an installed package has.
    """
    files = [str(path) for path in sorted(inputs.glob("*.safetensors"))]
    # Bytecode into a folder of its own, also where the caller's environment forbids to write it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(outputs / "bytecode")}
    words = {"python": ["-c", "pass"]}
    for way in PEERS:
        words[way] = ["-m", "benchmarks._plain_copy", way, str(outputs / f"{way}.safetensors"), *files]
    for label, (method, _, _) in COMMANDS.items():
        words[label] = ["-m", "graftwork", *_merge(files, outputs, method), *label.split()[1:]]
    costs: dict[str, list[Cost]] = {label: [] for label in words}
    spent = 0.0

    def contender(label: str) -> Callable[[], None]:
        def work() -> None:
            nonlocal spent
            costs[label].append(run_process([sys.executable, *words[label]], environment))
            spent += costs[label][-1].cpu_s

        return work

    timings = take_turns(
        {label: contender(label) for label in words}, rounds=rounds, warmup=warmup, clock=lambda: spent, seconds=240.0
    )
    for label in costs:
        del costs[label][:warmup]
    with_torch = {method: _imports_torch(_merge(files, outputs, method), environment) for method, _, _ in COMMANDS.values()}
    return [_row(label, way, timings, costs, with_torch[method]) for label, (method, _, _) in COMMANDS.items() for way in PEERS]


def _merge(files: list[str], outputs: Path, method: str) -> list[str]:
    out = str(outputs / "command.safetensors")
    return ["merge", "--base", files[0], "--models", *files[1:], "--method", method, "--quiet", "--out", out]


def _imports_torch(words: list[str], environment: dict[str, str]) -> bool:
    code = f"import sys; from graftwork.cli.main import main; main({words!r}); print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stderr.strip().endswith("True")


def _row(label: str, way: str, timings: dict[str, Timing], costs: dict[str, list[Cost]], with_torch: bool) -> Row:
    def middle(which: str, what: str) -> float:
        return statistics.median(getattr(cost, what) for cost in costs[which])

    ours, peer = timings[label], timings[way]
    _, times, besides = COMMANDS[label]
    return Row(
        benchmark="merging",
        what=f"graftwork merge --method {label}" + (", beside an aligned copy" if way == "aligned" else ""),
        ours=ours.median,
        peer=peer.median,
        beside=PEERS[way],
        ratio=ours.ratio(peer),
        unit="s",
        target=None if times is None else times * peer.median + besides,
        judged="ours",
        details={
            "allowed": "" if times is None else f"{times:g} x {PEERS[way]}" + (f" + {besides:g} s" if besides else ""),
            "wall_s": middle(label, "wall_s"),
            "peer_wall_s": middle(way, "wall_s"),
            "minimum_s": ours.minimum,
            "peer_minimum_s": peer.minimum,
            "peer_maximum_s": max(peer.rounds),
            "python_s": timings["python"].median,
            "peak_mib": middle(label, "peak_bytes") / MIB,
            "torch_imported": with_torch,
            "rounds": len(ours.rounds),
        },
    )
