"""Transferability scores beside one Gram product of the same features, and how they grow.

The floor is ``F.T @ F`` in NumPy, float64: no score that depends on the covariance of the features can do without it. Features are
float32, as caches hold them, so that the scores' time includes widening. Every process is fresh: the first call of LogME is timed
too, and shows whether anything is compiled. One thread, CPU seconds, in turns.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._rows import Row, as_rows
from benchmarks._timing import take_turns
from graftwork.interfaces.scorer import ScoredRows, Scorer
from graftwork.methods.selection.gbc import BhattacharyyaSeparability
from graftwork.methods.selection.h_score import HScore
from graftwork.methods.selection.leep import Leep
from graftwork.methods.selection.linear_probe import LinearProbe
from graftwork.methods.selection.logme import LogME
from graftwork.methods.selection.nce import NegativeConditionalEntropy
from graftwork.methods.selection.trans_rate import TransRate

__all__ = ["block_stream", "rows"]

TARGET = 3.0
"""Gram products, for LogME and both H-scores."""
BLOCK = 2000
SCORES: dict[str, Callable[[], Scorer]] = {
    "LogME": LogME,
    "H-score": HScore,
    "H-score, shrunken": lambda: HScore(shrink=True),
    "TransRate": TransRate,
    "Linear probe": lambda: LinearProbe(max_rows=1000),
    "GBC": BhattacharyyaSeparability,
    "LEEP": Leep,
    "NCE": NegativeConditionalEntropy,
}
JUDGED = ("LogME", "H-score", "H-score, shrunken")


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return a row per score and size, the first call, and streams in bounded memory."""
    base = (500, 32, 10) if quick else (5000, 512, 100)
    first = _first_call(*base)
    sizes = [base] if quick else [base, (20_000, 512, 100), (50_000, 512, 100), (5000, 128, 100), (5000, 1024, 100), (5000, 512, 10),
                                  (5000, 512, 1000)]  # fmt: skip
    found = [first]
    for size in sizes:
        names = SCORES if size == base else ("LogME", "H-score")
        found += [_row(name, *size, rounds=1 if quick else 9, judged=size == base) for name in names]
    lengths = (2000, 4000) if quick else (20_000, 200_000)
    for name in ("LogME", "H-score, shrunken", "TransRate", "GBC", "Linear probe"):
        found.append(_stream(name, *lengths, *base[1:]))
    return as_rows(found)


def _data(count: int, width: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(classes), random.integers(classes, size=count - classes)])
    means = random.normal(size=(classes, width)).astype(np.float32)
    return means[labels] + 3.0 * random.normal(size=(count, width)).astype(np.float32), labels


def _seen(scorer: Scorer, features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    if scorer.reads == "features":
        return features
    logits = np.random.default_rng(1).normal(size=(len(labels), 1000)).astype(np.float32)
    return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def _first_call(count: int, width: int, classes: int) -> Row:
    features, labels = _data(count, width, classes)
    begin = time.process_time()
    LogME().score(features, labels)
    seconds = time.process_time() - begin
    later = take_turns({"again": lambda: LogME().score(features, labels)}, rounds=1 if count < 1000 else 3, warmup=1)[
        "again"
    ].median
    return Row(
        benchmark="transferability", what=f"LogME, first call of a process, {count} x {width}, {classes} classes", ours=seconds,
        peer=later, beside="a later call", unit="s", target=1.0, judged="ours",
    )  # fmt: skip


def _row(name: str, count: int, width: int, classes: int, *, rounds: int, judged: bool) -> Row:
    features, labels = _data(count, width, classes)
    wide = features.astype(np.float64)
    seen = _seen(SCORES[name](), features, labels)
    timings = take_turns(
        {"ours": lambda: SCORES[name]().score(seen, labels), "gram": lambda: wide.T @ wide},
        rounds=rounds,
        warmup=min(2, rounds - 1),
    )
    return Row(
        benchmark="transferability",
        what=f"{name}, {count} x {seen.shape[1]}, {classes} classes",
        ours=timings["ours"].median * 1e3,
        peer=timings["gram"].median * 1e3,
        beside=f"F.T @ F, {count} x {width}",
        ratio=timings["ours"].ratio(timings["gram"]),
        unit="ms",
        target=TARGET if judged and name in JUDGED else None,
        details={"rows": count, "width": int(seen.shape[1]), "classes": classes},
    )


def block_stream(count: int, width: int, classes: int) -> Iterator[ScoredRows]:
    """Yield blocks of rows that are made on the way and kept nowhere."""
    means = np.random.default_rng(0).normal(size=(classes, width)).astype(np.float32)
    for start in range(0, count, BLOCK):
        random = np.random.default_rng([1, start])
        labels = random.integers(classes, size=min(BLOCK, count - start))
        features = means[labels] + 3.0 * random.normal(size=(len(labels), width)).astype(np.float32)
        yield ScoredRows(target=labels, features=features, rows=np.arange(start, start + len(labels)))


def _stream(name: str, few: int, many: int, width: int, classes: int) -> Row:
    """Compare the peak memory of a long stream with that of a short one: it must not grow with the rows."""
    peaks = []
    for count in (few, many):
        tracemalloc.start()
        SCORES[name]().run(lambda count=count: block_stream(count, width, classes))  # type: ignore[misc]
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    return Row(
        benchmark="transferability",
        what=f"{name}, memory of a stream of {many} x {width}, {classes} classes",
        ours=peaks[1],
        peer=peaks[0],
        beside=f"a stream of {few}",
        ratio=peaks[1] / peaks[0],
        unit="MiB",
        target=1.1,
        details={"all_rows_mib": many * width * 4 / 2**20},
    )
