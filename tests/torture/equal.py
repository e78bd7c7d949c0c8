"""What of two runs must be equal bit for bit: all numbers but times, sizes in memory and dates, the model and its graph."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["MEASURED", "contents", "differences", "hashed", "leftovers", "numbers"]

MEASURED = (
    "seconds",
    "wall_seconds",
    "cpu_seconds",
    "peak_rss_bytes",
    "latency_ms_batch1",
    "latency_ms_batch32",
    "activation_bytes",
    "held_bytes",
    "rss_bytes",
    "seconds_per_step",
    "setup_seconds",
    "ms_per_row",
)
"""Keys whose values are times or sizes that no two runs share."""
_EQUAL = (
    *(
        "result.json",
        "jobs/*/predictions.safetensors",
        "model.onnx",
        "controls.json",
        "configurations/**/*",
        "model/**/*",
        "delta/**/*",
    ),
    *("plans/*/model.onnx", "plans/*/controls.json", "plans/*/configurations/**/*", "plans/*/model/**/*"),
)
"""Files of a run, whatever folders they are in."""
_LATENCY = re.compile(r"(?<= parameters) and takes [\d.e+-]+ ms a row.*")
"""What the verdict of `distill` says of times, up to its end: the ratio to the teacher's follows."""
_OTHER = ("created", "timing", "estimate", "machine", "command", "pareto")


def numbers(value: Any) -> Any:
    """Return a result without what measures time, memory and date, also within sentences."""
    if isinstance(value, dict):
        return {key: numbers(item) for key, item in value.items() if key not in (*MEASURED, *_OTHER)}
    if isinstance(value, str):
        return _LATENCY.sub("", value)
    return [numbers(item) for item in value] if isinstance(value, list) else value


def differences(left: Any, right: Any, where: str = "") -> list[str]:
    """Return the places where two results differ, for a message that can be read."""
    if isinstance(left, dict) and isinstance(right, dict):
        return [line for key in {**left, **right} for line in differences(left.get(key), right.get(key), f"{where}/{key}")]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [line for index, pair in enumerate(zip(left, right)) for line in differences(*pair, f"{where}[{index}]")]
    return [] if left == right else [f"{where}: {left!r:.80} != {right!r:.80}"]


def contents(run: Path) -> dict[str, Any]:
    """Return everything of a finished run that must not depend on kills, by file: JSON as numbers, all else as bytes."""
    found: dict[str, Any] = {}
    for pattern in _EQUAL:
        for file in sorted(run.glob(pattern)):
            name = str(file.relative_to(run))
            # The card shows dates and times.
            if file.suffix != ".md" and file.is_file():
                found[name] = numbers(json.loads(file.read_bytes())) if file.suffix == ".json" else file.read_bytes()
    return found


def hashed(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return bytes as their hashes, so that differences can be read."""
    return {name: hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value for name, value in found.items()}


def leftovers(*folders: Path) -> list[str]:
    """Return the temporary files and folders below some folders."""
    marks = (".graftwork-", ".tmp", ".scratch", ".write-test", ".replaced", "model.new", "plan.new")
    return [str(path) for folder in folders for path in folder.rglob("*") if any(mark in path.name for mark in marks)]
