"""Merging four tuned models with their base: beside the copy floor, and TIES beside peft's on the same tensors.

The copy floor reads every byte of all five files and writes one file. Linear merges may cost 1.3 of it, TIES 8; CPU seconds of a
fresh
process each, from after its imports to the synced file, in turns. peft has TIES for adapters only: here its function gets whole
tensors, loaded, merged and saved with ``safetensors.torch``. Rows ``+ hashes`` add the SHA-256 of all inputs that ``graftwork
merge`` writes into the lineage (in threads beside the merge). Memory is anonymous memory above the idle process; mapped files
do not count. Rows ``graftwork merge ...`` measure whole commands; see :mod:`benchmarks._merging_commands`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks._merging_commands import command_rows
from benchmarks._merging_work import KINDS
from benchmarks._rows import Row, as_rows
from benchmarks._timing import Timing, take_turns
from graftwork.core.optional import has
from graftwork.core.tensor_files import open_tensors

__all__ = ["checkpoints", "rows"]

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"averaging": 1.3, "task-arithmetic": 1.3, "ties": 8.0}
MIB = 2**20


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return time rows beside floor and peer, and memory rows."""
    kinds = [kind for kind in KINDS if kind != "peft-ties" or has("peft")]
    with tempfile.TemporaryDirectory() as name:
        bench = _Bench(Path(name), width=64 if quick else 768, vocabulary=500 if quick else 12_000)
        bench.run(kinds, rounds=1 if quick else 5, warmup=0 if quick else 1)
        peaks = {kind: bench.child(kind, "--memory")["anonymous"] for kind in kinds} if Path("/proc/self/status").exists() else {}
        found = [bench.beside(kind, "floor", TARGETS.get(kind)) for kind in kinds if kind not in ("floor", "peft-ties")]
        if "peft-ties" in kinds:
            found.append(bench.beside("ties", "peft-ties", None))
            found.append(bench.beside("ties-per-tensor", "peft-ties", None, largest_difference=bench.difference_to_peft()))
        found += [bench.memory(kind, peaks) for kind in ("averaging", "task-arithmetic", "ties") if kind in peaks]
        # Needs POSIX.
        if hasattr(os, "wait4"):
            found += command_rows(bench.inputs, bench.outputs, rounds=1 if quick else 7, warmup=0 if quick else 1)
    return as_rows(found)


def checkpoints(folder: Path, *, width: int, vocabulary: int, models: int = 4, layers: int = 2) -> int:
    """Write a base and tuned models shaped like a small transformer; return the bytes of one.

    Args:
        folder: Where to; files sort with the base first.
        width: Model width.
        vocabulary: Rows of the embedding, the largest tensor.
        models: Number of tuned models.
        layers: Number of layers.
    """
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary, width)}
    for layer in range(layers):
        for part, shape in (
            ("query", (width, width)),
            ("key", (width, width)),
            ("value", (width, width)),
            ("output", (width, width)),
        ):
            shapes[f"layers.{layer}.{part}.weight"] = shape
        shapes |= {f"layers.{layer}.up.weight": (4 * width, width), f"layers.{layer}.down.weight": (width, 4 * width)}
        shapes |= {f"layers.{layer}.up.bias": (4 * width,), f"layers.{layer}.norm.weight": (width,)}
    random = np.random.default_rng(0)
    base = {name: random.normal(0.0, 0.02, size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(base, folder / "0-base.safetensors")
    for number in range(1, models + 1):
        tuned = {name: value + 0.002 * random.standard_normal(value.shape, dtype=np.float32) for name, value in base.items()}
        save_file(tuned, folder / f"{number}-tuned.safetensors")
    return sum(value.nbytes for value in base.values())


class _Bench:
    """The files, and what each contender cost."""

    def __init__(self, folder: Path, *, width: int, vocabulary: int) -> None:
        self.inputs, self.outputs = folder / "in", folder / "out"
        self.inputs.mkdir()
        self.outputs.mkdir()
        self.bytes = checkpoints(self.inputs, width=width, vocabulary=vocabulary)
        self.largest = vocabulary * width * 4
        self.costs: dict[str, list[dict[str, Any]]] = {}
        self.timings: dict[str, Timing] = {}
        self._cpu = 0.0

    def child(self, kind: str, *flags: str) -> dict[str, Any]:
        """Run one contender in its own process."""
        out = self.outputs / f"{kind}.safetensors"
        command = [sys.executable, "-m", "benchmarks._merging_work", kind, str(self.inputs), str(out), *flags]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"merging with {kind} failed: {done.stderr[-600:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def run(self, kinds: list[str], *, rounds: int, warmup: int) -> None:
        """Time all contenders in turns, by the CPU seconds that they report."""

        def contender(kind: str) -> Callable[[], None]:
            def work() -> None:
                cost = self.child(kind)
                self._cpu += cost["cpu_s"]
                self.costs.setdefault(kind, []).append(cost)

            return work

        contenders = {kind: contender(kind) for kind in kinds}
        self.timings = take_turns(contenders, rounds=rounds, warmup=warmup, clock=lambda: self._cpu, seconds=240.0)

    def beside(self, kind: str, peer: str, target: float | None, **details: Any) -> Row:
        """Return a time row."""

        def wall(which: str) -> float:
            return statistics.median(cost["wall_s"] for cost in self.costs[which])

        ours, theirs = self.timings[kind], self.timings[peer]
        return Row(
            benchmark="merging",
            what=kind.replace("+", " + ") + (", beside peft" if peer == "peft-ties" else ""),
            ours=ours.median,
            peer=theirs.median,
            beside="copy floor" if peer == "floor" else "peft ties",
            ratio=ours.ratio(theirs),
            unit="s",
            target=target,
            details={
                "model_mib": self.bytes / MIB,
                "models": len(list(self.inputs.iterdir())) - 1,
                "wall_s": wall(kind),
                "peer_wall_s": wall(peer),
                "imports_s": statistics.median(cost["imports_s"] for cost in self.costs[kind]),
                "peer_imports_s": statistics.median(cost["imports_s"] for cost in self.costs[peer]),
                "torch_imported": bool(self.costs[kind][0]["torch_imported"]),
                **details,
            },
        )

    def memory(self, kind: str, peaks: dict[str, int]) -> Row:
        """Return a memory row; peft's TIES stands beside ours, the other methods have no peer."""
        peer = peaks.get("peft-ties") if kind == "ties" else None
        return Row(
            benchmark="merging",
            what=f"{kind}, peak anonymous memory",
            ours=peaks[kind] / MIB,
            peer=None if peer is None else peer / MIB,
            beside="" if peer is None else "peft ties",
            unit="MiB",
            details={
                "model_mib": self.bytes / MIB,
                "largest_tensor_mib": self.largest / MIB,
                "x_largest_tensor": peaks[kind] / self.largest,
                "x_model": peaks[kind] / self.bytes,
            },
        )

    def difference_to_peft(self) -> float:
        """Return the largest difference between our per-tensor TIES and peft's, relative to the largest change of a weight."""
        mine, theirs = (open_tensors(self.outputs / f"{kind}.safetensors") for kind in ("ties-per-tensor", "peft-ties"))
        base = open_tensors(self.inputs / "0-base.safetensors")
        apart = max(float(np.abs(mine[name] - theirs[name]).max()) for name in base)
        return apart / max(float(np.abs(theirs[name] - base[name]).max()) for name in base)
