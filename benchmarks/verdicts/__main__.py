"""Verdicts of ``graftwork fit`` on generated suites whose answer is known: related, conflicting, unrelated, shuffled.

Example::

    python -m benchmarks.verdicts --count 50 --json benchmarks/verdicts/results.json    # goes on where the file ends
    python -m benchmarks.verdicts --count 50 --by networks --json benchmarks/verdicts/results.json
    python -m benchmarks.verdicts --quick

``--by fit`` runs the whole of ``fit``, 10 to 50 seconds of one core a suite. ``--by networks`` trains the networks of all folds at
once and asks for the verdict alone, 1 to 4 seconds a suite.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.__main__ import machine
from benchmarks._timing import format_table
from benchmarks.verdicts.batched import judge_networks
from benchmarks.verdicts.judgement import judge_verdict
from benchmarks.verdicts.running import run_world
from benchmarks.verdicts.worlds import ORACLE_ROWS, WORLDS, World, make_world
from graftwork.core.files import read_json, write_json

__all__ = ["main", "measure", "report"]

STEPS = 300
"""Steps of a training: with the small networks of this benchmark they converge on most of its suites."""
BY = ("fit", "networks")
COLUMNS = ("by", "world", "suites", "right", "open", "wrong", "tasks", "null claims", "cells", "false cells")


def measure(
    world: World, seed: int, *, by: str = "fit", steps: int = STEPS, oracle_rows: int = ORACLE_ROWS, most_rows: int = 3000
) -> dict[str, Any]:
    """Return the row of one suite: what it is, how its verdict was judged, and what it said if that was not right."""
    made = make_world(world, seed, oracle_rows=oracle_rows, most_rows=most_rows)
    done = (run_world if by == "fit" else judge_networks)(made, steps=steps)
    result = done["result"]
    judged = judge_verdict(made, result, done["oracle"])
    words = {
        "sentences": result["verdict"]["sentences"],
        "advice": (result.get("grouping") or {}).get("advice", []),
        "warnings": result["verdict"]["warnings"],
    }
    return {
        "by": by,
        "world": world,
        "seed": seed,
        "rows": made.rows,
        "kinds": made.kinds,
        "data_sets": made.data_sets,
        "cpu_seconds": round(done["cpu_seconds"], 1),
        "choice": result["verdict"]["choice"],
        "strength": result["verdict"]["strength"],
        **judged,
        **(words if judged["verdict"] != "right" else {}),
    }


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a line for each world, and the suites that were not right."""
    lines = []
    for by, world in itertools.product(BY, WORLDS):
        own = [row for row in rows if (row["by"], row["world"]) == (by, world)]
        if own:
            counts = {word: sum(row["verdict"] == word for row in own) for word in ("right", "open", "wrong")}
            lines.append(
                {
                    "by": by,
                    "world": world,
                    "suites": len(own),
                    **counts,
                    "tasks": sum(row["tasks"] for row in own),
                    "null claims": sum(len(row["tasks_with_null_claims"]) for row in own),
                    "cells": sum(row["cells"]["said"] for row in own),
                    "false cells": sum(row["cells"]["false"] for row in own),
                }
            )
    found = [
        f"{row['by']}: {row['world']} {row['seed']} ({row['rows']} rows, {row['tasks']} tasks): {row['verdict']}"
        + (f"; {'; '.join(row['reasons'])}" if row["reasons"] else "")
        for row in rows
        if row["verdict"] != "right"
    ]
    return "\n".join([format_table(lines, COLUMNS), *found])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the file lacks, print, store after every suite."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worlds", metavar="A,B", default=",".join(WORLDS), help=f"some of {', '.join(WORLDS)} (default: all)")
    parser.add_argument("--by", choices=BY, default="fit", help="whole runs of fit, or the verdict alone (default fit)")
    parser.add_argument("--count", metavar="N", type=int, default=50, help="suites of each world (default 50)")
    parser.add_argument("--first-seed", metavar="N", type=int, default=0, help="seed of the first suite (default 0)")
    parser.add_argument("--quick", action="store_true", help="one small suite of each: shows that it runs, not how right it is")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="store rows and machine; rows that are there are not made again"
    )
    options = parser.parse_args(arguments)
    worlds = [name for name in WORLDS if name in options.worlds.split(",")]
    unknown = sorted(set(options.worlds.split(",")) - set(WORLDS))
    if unknown:
        parser.error(f"there is no world {', '.join(unknown)}; there are {', '.join(WORLDS)}")
    stored = read_json(options.json) if options.json and options.json.exists() else {"machine": machine(), "rows": []}
    rows: list[dict[str, Any]] = stored["rows"]
    known = {(row["by"], row["world"], row["seed"]) for row in rows}
    small: dict[str, int] = {"steps": 20, "oracle_rows": 200, "most_rows": 700} if options.quick else {}
    count = 1 if options.quick else options.count
    # World after world within a seed: a run that is stopped has looked at all of them.
    for seed in range(options.first_seed, options.first_seed + count):
        for world in worlds:
            if (options.by, world, seed) in known:
                continue
            rows.append(measure(world, seed, by=options.by, **small))
            row = rows[-1]
            print(f"{options.by}: {world} {seed}: {row['verdict']} ({row['cpu_seconds']} s)", file=sys.stderr, flush=True)
            if options.json:
                write_json(options.json, {**stored, "steps": small.get("steps", STEPS), "rows": rows})
    print(report(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
