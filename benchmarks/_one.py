"""Runs one benchmark module in this process and writes its rows: ``python -m benchmarks._one NAME FILE [--quick]``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks._rows import KEYS, Row, as_rows
from graftwork.core.files import write_json

__all__ = ["collect", "main"]


def collect(name: str, *, quick: bool) -> list[dict[str, Any]]:
    """Return the rows of a module; older modules with ``run`` in place of ``rows`` are translated."""
    module = importlib.import_module(f"benchmarks.{name}")
    found = module.rows(quick) if hasattr(module, "rows") else module.run(quick=quick)
    return [dict(row) if tuple(row) == KEYS else _translate(name, row) for row in found]


def _translate(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Bring a row of ``gradient_balancing`` (milliseconds, ``x_plain``, ``x_passes``, ``aim``) into the common form."""
    measure, _, limit = str(row.get("aim") or "x_plain").partition(" <= ")
    ratio = float(row[measure])
    return as_rows(
        [
            Row(
                benchmark=name,
                what=f"{row['network']}, {row['tasks']} tasks, {row['method']}",
                ours=float(row["median_ms"]),
                peer=float(row["median_ms"]) / ratio,
                beside={"x_plain": "plain step", "x_passes": "one pass a task"}[measure],
                ratio=ratio,
                unit="ms",
                target=float(limit) if limit else None,
                details={key: value for key, value in row.items() if key not in ("benchmark", "met")},
            )
        ]
    )[0]


def main(arguments: list[str] | None = None) -> int:
    """Measure one module."""
    name, target, *flags = sys.argv[1:] if arguments is None else arguments
    write_json(Path(target), collect(name, quick="--quick" in flags))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
