"""Start-up: whole-process wall seconds of the commands that must answer at once, beside importing the peers.

``--help``, ``systems``, ``show`` and ``validate`` may take 0.3 s each: no torch is imported. The peers' figure is what their
users wait before anything happens at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._rows import Row, as_rows
from benchmarks._timing import Timing, take_turns
from graftwork.core.optional import has

__all__ = ["rows"]

TARGET = 0.3
PEERS = ("peft", "transformers")
SUITE = """\
name: shop
datasets:
  - name: web
    source: web.csv
    targets: [stars, price]
"""
TABLE = "age,city,stars,price\n" + "".join(f"{20 + i},{'abc'[i % 3]},{i % 5},{i * 0.5}\n" for i in range(60))


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return one row per command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite.yaml").write_text(SUITE, encoding="utf-8")
        (folder / "web.csv").write_text(TABLE, encoding="utf-8")
        commands = {
            "graftwork --help": ["--help"],
            "graftwork systems": ["systems"],
            "graftwork show ties": ["show", "ties"],
            "graftwork validate suite.yaml": ["validate", "suite.yaml"],
        }
        starts = {label: _process(_entry() + arguments, folder) for label, arguments in commands.items()}
        starts["python -c pass"] = _process([sys.executable, "-c", "pass"], folder)
        ours = take_turns(starts, rounds=3 if quick else 9, warmup=1, clock=time.perf_counter)
        peers = _peers(folder, quick)
    nearest = min(peers.items(), key=lambda item: item[1].median) if peers else None
    details = {"python_s": ours["python -c pass"].median} | {f"import_{peer}_s": timing.median for peer, timing in peers.items()}
    return as_rows(
        [
            Row(
                benchmark="startup",
                what=label,
                ours=ours[label].median,
                peer=nearest[1].median if nearest else None,
                beside=f"import {nearest[0]}" if nearest else "",
                unit="s",
                target=TARGET,
                judged="ours",
                details={"minimum_s": ours[label].minimum, "rounds": len(ours[label].rounds), **details},
            )
            for label in commands
        ]
    )


def _peers(folder: Path, quick: bool) -> dict[str, Timing]:
    starts = {peer: _process([sys.executable, "-c", f"import {peer}"], folder) for peer in PEERS if has(peer)}
    if quick:
        starts = {peer: start for peer, start in starts.items() if peer == "transformers"}
    return take_turns(starts, rounds=1 if quick else 3, warmup=0 if quick else 1, clock=time.perf_counter)


def _entry() -> list[str]:
    script = Path(sys.executable).parent / "graftwork"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from graftwork.cli.main import main; raise SystemExit(main())"]


def _process(command: list[str], folder: Path) -> Callable[[], None]:
    def start() -> None:
        done = subprocess.run(command, cwd=folder, env=os.environ | {"COLUMNS": "120"}, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr.decode(errors='replace')[-400:]}")

    return start
