"""Runs one benchmark module in this process and writes its rows: ``python -m benchmarks._one NAME FILE [--quick]``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks._rows import KEYS, Row
from graftwork.core.files import write_json

__all__ = ["collect", "main"]


def collect(name: str, *, quick: bool) -> list[dict[str, Any]]:
    """Return the rows of a module; older modules with ``run`` in place of ``rows`` are translated."""
    module = importlib.import_module(f"benchmarks.{name}")
    found = module.rows(quick) if hasattr(module, "rows") else module.run(quick=quick)
    return [dict(row) if tuple(row) == KEYS else _translate(name, row) for row in found]


def _translate(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Bring a row of ``gradient_balancing`` or ``prediction`` (milliseconds, an ``aim``) into the common form."""
    kept = {key: value for key, value in row.items() if key not in ("benchmark", "met")}
    if "bare_ms" in row:
        return Row(
            benchmark=name,
            what=f"{row['modality']}, {row['case']}, {row['rows']} rows",
            ours=float(row["graftwork_ms"]),
            peer=float(row["bare_ms"]),
            beside="bare session",
            ratio=float(row["ratio"]),
            unit="ms",
            target=_limit(row.get("aim")),
            details=kept,
        ).json()
    measure = str(row.get("aim") or "x_plain").partition(" <= ")[0]
    ratio = float(row[measure])
    return Row(
        benchmark=name,
        what=f"{row['network']}, {row['tasks']} tasks, {row['method']}",
        ours=float(row["median_ms"]),
        peer=float(row["median_ms"]) / ratio,
        beside={"x_plain": "plain step", "x_passes": "one pass a task"}[measure],
        ratio=ratio,
        unit="ms",
        target=_limit(row.get("aim")),
        details=kept,
    ).json()


def _limit(aim: Any) -> float | None:
    """Return the number of an aim: ``1.1``, ``"ratio <= 1.1"`` or nothing."""
    return float(str(aim).rpartition("<=")[2]) if aim else None


def main(arguments: list[str] | None = None) -> int:
    """Measure one module."""
    name, target, *flags = sys.argv[1:] if arguments is None else arguments
    write_json(Path(target), collect(name, quick="--quick" in flags))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
