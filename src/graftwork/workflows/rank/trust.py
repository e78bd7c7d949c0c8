"""How far scores can be trusted: each against the true transfer results of the table, where the right order is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.core.files import cache_folder, read_json, write_json
from graftwork.core.optional import has
from graftwork.core.version import __version__
from graftwork.evaluation.rank_agreement import Agreement, rank_agreement
from graftwork.training.source_pool.grounds import AnySettings
from graftwork.training.source_pool.settings import PoolSettings
from graftwork.training.source_pool.table import TransferTable, audit_table, build_table
from graftwork.training.source_pool.table_pool import TablePoolSettings
from graftwork.workflows.rank.score_names import SCORES, chosen_scores

__all__ = ["TABLE_SIZES", "judge_scores", "known_agreement", "transfer_table"]

_FORMAT = "graftwork-score-agreement-1"
TABLE_SIZES: Mapping[str, AnySettings] = {
    "full": PoolSettings(),
    "tables": TablePoolSettings(),
    "small": PoolSettings(
        source_rows=200, target_rows=60, test_rows=100, source_steps=20, tune_steps=10, packaged=False,
        members=("plain", "inverted", "untrained"), targets=("new-plain", "new-inverted"),
    ),
    "small-tables": TablePoolSettings(
        source_rows=200, target_rows=60, test_rows=100, source_steps=20, tune_steps=10,
        members=("all", "first", "last", "untrained"), targets=("new-first", "new-last"),
    ),
}  # fmt: skip
"""Settings by the names that users write: ``full`` is of pictures; the small ones show that it runs, not how good scores are."""
_SIZE_OF_KIND = {"image": "full", "table": "tables"}
"""Which table speaks for a kind of input."""
_AUDITED = 2


def transfer_table(
    size: str = "full",
    *,
    scores: str | Sequence[str] | None = "all",
    folder: str | Path | None = None,
    audit: int = _AUDITED,
    seed: int = 0,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Build or complete the transfer table, make some rows again, judge the scores, and keep the result for reports of ``rank``.

    Args:
        size: ``"full"`` (pictures), ``"tables"``, or ``"small"`` and ``"small-tables"``.
        scores: As :func:`graftwork.rank` takes them; all by default.
        folder: Where members, rows and the result are kept; the user's cache by default.
        audit: Rows that are made again, drawn by ``seed``.
        seed: Draws them.
        on_progress: Called with finished rows, all rows and what comes next.

    Returns:
        The result: ``scores``, ``points``, ``audit``, ``true_results`` and a ``sentence``; the folder gets it as ``agreement.json``, and
        as ``report.html`` with plots.

    Raises:
        ConfigError: If the size or a score is unknown.
        FileFormatError: If a row did not come out again: the table is stale.
    """
    if size not in TABLE_SIZES:
        raise ConfigError(f"There is no transfer table {size!r}; choose from {', '.join(TABLE_SIZES)}.")
    names = chosen_scores(scores)
    place = Path(folder) if folder is not None else cache_folder("transfer-table", size)
    table = build_table(TABLE_SIZES[size], place, on_progress=on_progress)
    audits = audit_table(table, rows=audit, seed=seed)
    stale = [item for item in audits if not item.agrees]
    if stale:
        told = "; ".join(f"{item.source} on {item.target}: {item.stored:.3f} stored, {item.again:.3f} now" for item in stale)
        raise FileFormatError(f"The transfer table in {place} is stale: {told}. Remove the folder and build it again.")
    result = judge_scores(table, names)
    result["audit"] = [
        {"target": item.target, "source": item.source, "stored": item.stored, "again": item.again} for item in audits
    ]
    result["size"] = size
    write_json(place / "agreement.json", result)
    if has("jinja2"):
        from graftwork.reporting.agreement_report import write_agreement_report

        write_agreement_report(result, place / "report.html")
    return result


def judge_scores(table: TransferTable, scores: Sequence[str]) -> dict[str, Any]:
    """Return how well each score orders the sources of a table by their accuracy after fine-tuning.

    Args:
        table: The table.
        scores: Names of scores.
    """
    found: dict[str, NDArray[np.float64]] = {name: np.full(table.fine_tuned.shape, np.nan) for name in scores}
    spent = dict.fromkeys(scores, 0.0)
    for column, source in enumerate(table.sources):
        member = table.member(source)
        for row, target in enumerate(table.targets):
            rows = table.rows(target)
            features, labels = member.features(rows.inputs[rows.train]), rows.labels[rows.train]
            seen = {"features": features, "probabilities": member.probabilities(features)}
            for name in scores:
                scorer = SCORES[name].make()
                inputs = seen[scorer.reads]
                if inputs is None:
                    continue
                begin = time.process_time()
                try:
                    found[name][row, column] = scorer.score(inputs, labels)
                except DataError:
                    continue
                spent[name] += time.process_time() - begin
    lines, points = [], []
    for name in scores:
        known = np.asarray(np.isfinite(found[name]).all(axis=0), dtype=np.bool_)
        if known.sum() < 3:
            continue
        agreement = rank_agreement(found[name][:, known], table.fine_tuned[:, known])
        seconds = spent[name] / max(1, int(known.sum()) * len(table.targets))
        lines.append(_line(name, agreement, int(known.sum()), seconds))
        points += _points(name, found[name][:, known], table, known)
    lines.sort(key=lambda line: -line["tau"])
    return {
        "format": _FORMAT,
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": list(table.sources),
        "targets": list(table.targets),
        "true_results": {"fine_tuned": table.fine_tuned.tolist(), "probed": table.probed.tolist()},
        "scores": lines,
        "points": points,
        "sentence": _sentence(lines, table),
    }


def known_agreement(kinds: Sequence[str]) -> dict[str, Any]:
    """Return what the table of pictures or of tables said last on this machine, for suites of such inputs; empty if there is none.

    Args:
        kinds: Kinds of the suite's inputs.
    """
    known = (cache_folder("transfer-table", _SIZE_OF_KIND[kind]) / "agreement.json" for kind in kinds if kind in _SIZE_OF_KIND)
    path = next((path for path in known if path.is_file()), None)
    if path is None:
        return {}
    try:
        found = read_json(path)
    except FileFormatError:
        return {}
    return found if isinstance(found, dict) and found.get("format") == _FORMAT else {}


def _line(name: str, agreement: Agreement, sources: int, seconds: float) -> dict[str, Any]:
    return {
        "name": name,
        "title": SCORES[name].title,
        "tau": agreement.tau,
        "low": agreement.low,
        "high": agreement.high,
        "by_target": list(agreement.by_target),
        "sources": sources,
        "seconds": max(seconds, 1e-6),
    }


def _points(name: str, scores: NDArray[np.float64], table: TransferTable, known: NDArray[np.bool_]) -> list[dict[str, Any]]:
    spread = scores.std(axis=1, keepdims=True)
    scaled = (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    columns = np.flatnonzero(known)
    return [
        {
            "target": target,
            "source": table.sources[column],
            "title": SCORES[name].title,
            "score": float(scaled[row, index]),
            "truth": float(table.fine_tuned[row, column]),
        }
        for row, target in enumerate(table.targets)
        for index, column in enumerate(columns)
    ]


def _sentence(lines: Sequence[Mapping[str, Any]], table: TransferTable) -> str:
    if not lines:
        return "No score could be judged on the transfer table."
    told = ", ".join(f"{line['title']} {line['tau']:.2f} [{line['low']:.2f}, {line['high']:.2f}]" for line in lines[:3])
    return (
        f"On {len(table.targets)} generated targets and up to {len(table.sources)} sources whose results after fine-tuning are known, the "
        f"scores that order sources best are (weighted Kendall tau, 95 %): {told}. On your data they may do better or worse."
    )
