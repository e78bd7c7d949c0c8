"""``python -m benchmarks [--quick] [--only a,b] [--json FILE]``: all benchmarks, each in a fresh process, one table.

Targets hold on two idle cores. Every number is taken in this run, ours and what stands beside it in turns, so ratios are fair;
absolute numbers belong to the machine that the JSON file describes.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._rows import check_row, summary, table
from graftwork.core.files import read_json, write_json

__all__ = ["NAMES", "available", "machine", "main", "measure"]

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "startup",
    "training_loop",
    "gradient_balancing",
    "masked_attention",
    "moe",
    "r_mtgb",
    "transferability",
    "merging",
    "prediction",
    "serving",
    "deltas_in_service",
    "scale",
)
"""In the order in which they run."""
PACKAGES = (
    "graftwork",
    "numpy",
    "torch",
    "safetensors",
    "torchjd",
    "lightgbm",
    "peft",
    "transformers",
    "onnxruntime",
    "mergekit",
    "fastapi",
    "uvicorn",
)


def available() -> list[str]:
    """Return the names of the benchmarks that are there, in the order in which they run."""
    folder = Path(__file__).parent
    return [name for name in NAMES if (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()]


def machine() -> dict[str, Any]:
    """Return what the numbers belong to: processor count, load, versions, date; no names and no paths."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def measure(name: str, *, quick: bool) -> list[dict[str, Any]]:
    """Run one benchmark in a fresh process with one thread and return its checked rows.

    Raises:
        RuntimeError: If the process fails; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks._one", name, str(target), *(["--quick"] if quick else [])]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"benchmark {name} failed:\n" + "\n".join(done.stderr.strip().splitlines()[-8:]))
        rows: list[dict[str, Any]] = read_json(target)
    for row in rows:
        check_row(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, store; 1 if a benchmark failed to run. A missed target is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory beside floors and peers.")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: shows that it runs, not how fast")
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(available())}")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="store the rows and the machine, for example benchmarks/results.json"
    )
    options = parser.parse_args(arguments)
    chosen = available() if options.only is None else [name.strip() for name in options.only.split(",")]
    unknown = [name for name in chosen if name not in available()]
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(available())}")
    described, rows, failed = machine(), [], {}
    for name in chosen:
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        started = time.perf_counter()
        try:
            rows += measure(name, quick=options.quick)
        except (RuntimeError, ValueError) as error:
            failed[name] = str(error)
        print(f"{time.perf_counter() - started:.0f} s{' FAILED' * (name in failed)}", file=sys.stderr)
    if rows:
        print(table(rows))
        print(f"\n{summary(rows)}{' Quick run: the sizes are too small to judge.' if options.quick else ''}")
    for message in failed.values():
        print(message, file=sys.stderr)
    if options.json:
        write_json(options.json, {"machine": described, "quick": options.quick, "failed": sorted(failed), "rows": rows})
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
