"""Which source tasks to label next for one target task: the sparsest relevance of their heads to the target's (L1-A-MTRL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.nearest import did_you_mean
from graftwork.math.shared_linear import fit_shared_basis, ridge_head
from graftwork.methods.selection.amtrl_lasso import relevance, share_out
from graftwork.workflows.rank.rows import RankRows
from graftwork.workflows.rank.source_features import features_of, main_directions
from graftwork.workflows.rank.sources import RankSource

__all__ = ["TaskRelevance", "judge_tasks", "plain_result", "task_relevance"]

Floats = NDArray[np.float64]
_DIRECTIONS, _RANK = 32, 8
_RIDGE, _PENALTY = 1e-2, 0.1
_LEAST_ROWS = 20


@dataclass(frozen=True, slots=True)
class TaskRelevance:
    """Relevance of source tasks to a target task, as shares with the sum 1 (or all 0)."""

    target: str
    sources: tuple[str, ...]
    shares: Floats
    """``[sources]``."""
    draws: Floats
    """The same of half-samples, ``[draws, sources]``."""
    labelled: tuple[int, ...]
    """Rows with a label, of those that were looked at."""


def judge_tasks(
    rows: RankRows, target: str, backbone: RankSource, *, draws: int, seed: int, device: str = "cpu"
) -> TaskRelevance:
    """Return how relevant all other tasks of a suite are to one.

    Args:
        rows: The sampled rows.
        target: Name of the target task.
        backbone: Computes the features that heads are fitted on.
        draws: Half-samples.
        seed: Draws the halves.
        device: Where features are computed.

    Raises:
        ConfigError: If there is no such task, or no other one.
        DataError: If the target has too few labels.
    """
    names = list(rows.targets)
    if target not in names:
        raise ConfigError(f"There is no task {target!r} to judge.{did_you_mean(target, names)} The tasks are {', '.join(names)}.")
    if len(names) < 2:
        raise ConfigError(f"{target!r} is the only task that can be judged: there is no source task to label.")
    features = main_directions(features_of(backbone, rows.suite, seed=seed, device=device), _DIRECTIONS)
    return task_relevance(features, rows.targets, target, draws=draws, seed=seed)


def task_relevance(
    features: Floats, targets: Mapping[str, NDArray[Any]], target: str, *, draws: int = 30, seed: int = 0
) -> TaskRelevance:
    """Return the relevance of all other tasks to one.

    A task of classes has a head for each class (one against the others), a task of values one for each value; all share a basis of few
    directions. A task's relevance is the sum of those of its heads, over the heads of the target.

    Args:
        features: ``[N, d]``, of like scale.
        targets: By task, as :class:`~graftwork.interfaces.scorer.ScoredRows` holds them.
        target: Name of the target task.
        draws: Half-samples.
        seed: Draws them.

    Raises:
        DataError: If the target has fewer than 20 labelled rows that differ.
    """
    columns = {name: _columns(values) for name, values in targets.items()}
    usable = {name: found for name, found in columns.items() if found}
    if target not in usable:
        raise DataError(f"The task {target!r} has fewer than {_LEAST_ROWS} labelled rows that differ.")
    sources = tuple(name for name in usable if name != target)
    if not sources:
        raise DataError("No other task has enough labelled rows to say how relevant it is.")
    heads = [(name, rows, values) for name in (*sources, target) for rows, values in usable[name]]
    inputs, values = [features[rows] for _, rows, _ in heads], [value for _, _, value in heads]
    basis, _ = fit_shared_basis(inputs, values, min(_RANK, features.shape[1], len(heads)), ridge=_RIDGE)
    random = np.random.default_rng([seed, 6])
    whole = _shares(heads, inputs, values, basis, sources, target)
    drawn = []
    for _ in range(draws):
        halves = [random.permutation(len(value))[: max(2, len(value) // 2)] for value in values]
        drawn.append(
            _shares(
                heads, [rows[half] for rows, half in zip(inputs, halves, strict=True)],
                [value[half] for value, half in zip(values, halves, strict=True)], basis, sources, target,
            )
        )  # fmt: skip
    counts = tuple(max(len(rows) for rows, _ in usable[name]) for name in sources)
    return TaskRelevance(target, sources, whole, np.array(drawn), counts)


def _columns(target: NDArray[Any]) -> list[tuple[NDArray[np.int64], Floats]]:
    """Return labelled rows and standardised values of each head of a task; none where too few rows have labels or all are equal."""
    if np.issubdtype(target.dtype, np.integer):
        rows = np.flatnonzero(target >= 0)
        classes = np.unique(target[rows])
        found = [(target[rows] == label).astype(np.float64) for label in (classes if len(classes) > 2 else classes[:1])]
    else:
        wide = target.reshape(len(target), -1)
        rows = np.flatnonzero(~np.isnan(wide).any(axis=1))
        found = list(wide[rows].astype(np.float64).T)
    if len(rows) < _LEAST_ROWS:
        return []
    return [(rows, (values - values.mean()) / values.std()) for values in found if values.std() > 0]


def _shares(
    heads: list[tuple[str, NDArray[np.int64], Floats]],
    inputs: list[Floats],
    values: list[Floats],
    basis: Floats,
    sources: tuple[str, ...],
    target: str,
) -> Floats:
    fitted = np.stack([ridge_head(rows @ basis, value, _RIDGE) for rows, value in zip(inputs, values, strict=True)], axis=1)
    owners = np.array([name for name, _, _ in heads])
    own = fitted[:, owners != target]
    weights = np.zeros(own.shape[1])
    for head in fitted[:, owners == target].T:
        weights += np.abs(relevance(own, head, penalty=_PENALTY))
    shares = np.array([weights[owners[owners != target] == name].sum() for name in sources])
    total = float(shares.sum())
    return shares / total if total > 0 else shares


def plain_result(found: TaskRelevance, budget: int) -> Mapping[str, Any]:
    """Return what the result file holds: one row a task, the most relevant first, and a verdict.

    Args:
        found: The relevance.
        budget: Labels to share out.
    """
    low, high = np.quantile(found.draws, [0.025, 0.975], axis=0)
    counts = share_out(found.shares, budget, 0)
    order = np.argsort(-found.shares, kind="stable")
    rows = [
        {
            "name": found.sources[index],
            "share": float(found.shares[index]),
            "low": float(min(low[index], found.shares[index])),
            "high": float(max(high[index], found.shares[index])),
            "used": float((found.draws[:, index] > 0).mean()),
            "labelled": found.labelled[index],
            "next": int(counts[index]),
        }
        for index in order.tolist()
    ]
    return {
        "question": "tasks",
        "target": found.target,
        "budget": budget,
        "rows": rows,
        "verdict": {
            "choice": rows[0]["name"],
            "certainty": "",
            "sentences": _sentences(found.target, rows, budget),
            "warnings": [],
        },
    }


def _sentences(target: str, rows: list[dict[str, Any]], budget: int) -> list[str]:
    used = [row for row in rows if row["next"] > 0]
    if not rows[0]["share"] > 0:
        return [
            f"No other task is relevant to `{target}` by what its heads say so far: share labels alike, or label `{target}` itself."
        ]
    named = ", ".join(f"`{row['name']}` ({row['next']:,})" for row in used[:5])
    sentences = [f"For `{target}`, label next: {named}{' and others' if len(used) > 5 else ''}, of {budget:,} labels in all."]
    firm = [row for row in rows if row["low"] > 0]
    if not firm:
        sentences.append(
            "No task is relevant in nearly all half-samples of the rows: spread the labels, and ask again with more rows."
        )
    idle = [row for row in rows if row["next"] == 0]
    if idle:
        sentences.append(
            f"{len(idle)} of {len(rows)} tasks get none: what their heads say is said by others already, or does not matter."
        )
    return sentences
