"""Sizes that a user may bring: a million rows, ten thousand classes, two hundred targets, many data sets, texts, columns.

Every case is generated, learned from with ``graftwork fit --time-limit`` as a user would, and judged on rows that nobody sees, beside
LightGBM and scikit-learn on the same rows, one predictor a target. Each contender is a process of its own: its wall time, and the most
memory that it and its children hold together. Losses are relative: 1 is the trivial answer.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._rows import Row, as_rows
from benchmarks.scale.cases import CASES, ScaleCase, Written
from benchmarks.scale.watch import Watched, watch

__all__ = ["loss_of", "measure_case", "rows"]

LIMIT, QUICK_LIMIT = 60.0, 10.0
"""Time limits of a run, in seconds."""
MOST_MEMORY = 4096.0
"""MiB that a run may take."""
OVERRUN, EXPORT = 1.1, 15.0
"""How far a run may overrun its limit, and seconds for reading and export on top of that."""
MIB = 1024.0 * 1024.0


def loss_of(kind: str, truth: Sequence[Any], answer: Sequence[Any]) -> float:
    """Return the loss of one target: RMSE over the spread for numbers, share of wrong rows over that of the commonest class for classes.

    Example:
        >>> loss_of("number", [1.0, 3.0], [2.0, 2.0])
        1.0
        >>> loss_of("class", ["a", "b", "b", "b"], ["a", "b", "b", "a"])
        1.0
    """
    if kind == "number":
        values = np.asarray(truth, dtype=np.float64)
        return float(np.sqrt(np.mean((np.asarray(answer, dtype=np.float64) - values) ** 2)) / values.std())
    labels = np.asarray(list(map(str, truth)))
    wrong = float(np.mean(labels != np.asarray(list(map(str, answer)))))
    return wrong / max(1.0 - float(pd.Series(labels).value_counts().iloc[0]) / len(labels), 1e-9)


def _loss(written: Written, answers: Mapping[str, Mapping[str, Sequence[Any]]]) -> float:
    """Return the mean loss over all targets."""
    losses = [
        loss_of(kind, written.test[data][target].tolist(), answers[data][target])
        for data, kinds in written.targets.items()
        for target, kind in kinds.items()
    ]
    return float(np.mean(losses))


def _answers(run: Path, written: Written) -> dict[str, dict[str, list[Any]]]:
    from graftwork.serving.predict import Predictor

    predictor, found = Predictor(run), {}
    for data, kinds in written.targets.items():
        inputs = written.test[data].drop(columns=list(kinds))
        predicted = predictor.predict(inputs, list(kinds))
        found[data] = {target: predicted[target].tolist() for target in kinds}
    return found


def _ours(written: Written, folder: Path, limit: float) -> tuple[Watched, dict[str, Any]]:
    run = folder / "run"
    words = [sys.executable, "-m", "graftwork", "fit", str(written.source), "--time-limit", f"{limit:g}s", "--out", str(run)]
    if written.source.suffix == ".parquet":
        words += ["--targets", ",".join(written.targets[""])]
    done = watch([*words, *written.words], folder=folder)
    if done.code:
        return done, {"failed": done.error.strip().splitlines()[-1:] or [f"exit {done.code}"]}
    started = time.perf_counter()
    answers = _answers(run, written)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return done, {
        "loss": _loss(written, answers),
        "choice": result["verdict"]["choice"],
        "output_lines": done.out.count("\n"),
        "report_bytes": (run / "report.html").stat().st_size,
        "predict_seconds": time.perf_counter() - started,
        "plans": sorted(result["plans"]),
        "left_out": sorted(item["name"] for item in result["not_tested"] if item["what"] == "plan"),
        "warnings": result["verdict"]["warnings"],
    }


def _peer(name: str, written: Written, folder: Path) -> tuple[Watched, dict[str, Any]]:
    script = Path(__file__).with_name("peers.py")
    threads = {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    done = watch([sys.executable, str(script), name, str(folder)], environment=threads, folder=folder)
    if done.code:
        return done, {"failed": done.error.strip().splitlines()[-1:] or [f"exit {done.code}"]}
    found = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return done, {"loss": _loss(written, found["answers"])}


def _facts(done: Watched, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seconds": round(done.seconds, 1),
        "cpu_seconds": round(done.cpu_seconds, 1),
        "peak_mib": round(done.peak_bytes / MIB),
        **found,
    }


def measure_case(case: ScaleCase, *, quick: bool, limit: float, peers: Sequence[str] | None = None) -> list[Row]:
    """Return the rows of one case: time, memory and loss, ours beside the best peer.

    Raises:
        RuntimeError: If our run ends without a model.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        written = case.make(folder / "data", quick=quick)
        job = {"targets": {data: dict(kinds) for data, kinds in written.targets.items()}, "cores": os.cpu_count() or 1}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        for number, data in enumerate(written.targets):
            written.train[data].to_parquet(folder / f"train-{number}.parquet", index=False)
            written.test[data].to_parquet(folder / f"test-{number}.parquet", index=False)
        begun = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        ours = _facts(*_ours(written, folder, limit))
        if "failed" in ours:
            raise RuntimeError(f"{case.name}: graftwork fit ended without a model: {ours['failed']}")
        others = {name: _facts(*_peer(name, written, folder)) for name in (case.peers if peers is None else peers)}
    judged = {name: facts for name, facts in others.items() if "loss" in facts}
    best = min(judged, key=lambda name: judged[name]["loss"], default="")
    beside = judged.get(best, {})
    details = {"rows": written.rows, "limit": limit, "load_before": begun, "ours": ours, "peers": others}
    what = f"{case.name}{' (small)' if quick else ''}"
    return [
        Row(
            benchmark="scale",
            what=f"{what}: time",
            ours=ours["seconds"],
            peer=beside.get("seconds"),
            beside=best,
            unit="s",
            target=OVERRUN * limit + EXPORT,
            judged="ours",
            details={"case": case.what, **details},
        ),
        Row(
            benchmark="scale",
            what=f"{what}: peak memory",
            ours=float(ours["peak_mib"]),
            peer=beside.get("peak_mib"),
            beside=best,
            unit="MiB",
            target=MOST_MEMORY,
            judged="ours",
        ),
        Row(
            benchmark="scale",
            what=f"{what}: loss",
            ours=ours["loss"],
            peer=beside.get("loss"),
            beside=best,
            unit="loss",
            target=1.05,
        ),
    ]


def rows(quick: bool, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return three rows for each case.

    Args:
        quick: Small sizes and a limit of 10 s: shows that it runs.
        names: Some of the cases; all by default. ``GRAFTWORK_SCALE=rows,texts`` names them from outside.
    """
    asked = names or [name for name in os.environ.get("GRAFTWORK_SCALE", "").split(",") if name] or list(CASES)
    limit = QUICK_LIMIT if quick else LIMIT
    return as_rows([row for name in asked for row in measure_case(CASES[name], quick=quick, limit=limit)])
