"""Sets of sources for an ensemble: OSBORN and E-LEEP, chosen greedily, and how firm the choice is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.evaluation.score_stability import HalfSamples
from graftwork.interfaces.scorer import ScoredRows, SourceFacts
from graftwork.interfaces.set_selector import SetScorer
from graftwork.methods.selection.ensemble_leep import EnsembleLeep
from graftwork.methods.selection.greedy import GreedySets
from graftwork.methods.selection.osborn import Osborn
from graftwork.workflows.rank.judging import JudgedSource, SourceView
from graftwork.workflows.rank.rows import RankRows

__all__ = ["SET_SCORES", "judge_sets"]

Array = NDArray[Any]
SET_SCORES: dict[str, tuple[str, Callable[[], SetScorer]]] = {
    "osborn": ("OSBORN", Osborn),
    "e-leep": ("E-LEEP", EnsembleLeep),
}
"""Name -> title and how it is made."""
_MOST_ROWS = 2000
"""Rows that sets are judged on, drawn from all: transport compares every row with every class of every source."""
_DRAWS = 10
"""Half-samples of the rows: a transport plan for each source and draw."""


def judge_sets(
    judged: Sequence[JudgedSource], rows: RankRows, size: int, samples: HalfSamples
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the chosen set of each score for each task of classes, and notes.

    Sources do not bring rows that they were trained on; the weights of their classes stand in for them, one for each class, with features
    and weights brought to unit length.

    Args:
        judged: The sources, those with classes with what they see of the rows.
        rows: The sampled rows.
        size: Members of a set.
        samples: The half-samples.

    Raises:
        ConfigError: If the size is below 2.
    """
    if size < 2:
        raise ConfigError(f"A set has at least 2 sources; got {size}.")
    usable = [one for one in judged if one.view is not None]
    if len(usable) < size:
        return [], [
            f"Sets of {size} need as many sources with classes of their own; there are {len(usable)}. Add some with --sources, such as "
            "timm models."
        ]
    names, views = [one.source.name for one in usable], [one.view for one in usable if one.view is not None]
    kept = np.arange(len(rows.suite))
    if len(kept) > _MOST_ROWS:
        kept = np.sort(np.random.default_rng([samples.seed, 8]).permutation(kept)[:_MOST_ROWS])
    halves = [np.intersect1d(half, kept) for half in _halves(samples, len(rows.suite))]
    found = []
    for task, target in rows.targets.items():
        if not np.issubdtype(target.dtype, np.integer):
            continue
        for name, (title, make) in SET_SCORES.items():
            chosen, value = _chosen(make, views, target, kept, size)
            same = [set(_chosen(make, views, target, half, size)[0]) == set(chosen) for half in halves]
            found.append(
                {
                    "task": task, "score": name, "title": title, "members": [names[index] for index in chosen], "value": value,
                    "same": float(np.mean(same)), "of": len(names),
                }
            )  # fmt: skip
    if not found:
        return [], ["No task has classes, which sets of sources are judged by."]
    return found, [f"Sets are of {len(kept):,} rows, drawn from all."] if len(kept) < len(rows.suite) else []


def _halves(samples: HalfSamples, count: int) -> list[NDArray[np.int64]]:
    bundles = samples.bundles(1)
    return (
        [np.sort(np.concatenate([bundles[index] for index in half])) for half in samples.halves(len(bundles))[:_DRAWS]]
        if count
        else []
    )


def _chosen(
    make: Callable[[], SetScorer], views: Sequence[SourceView], target: Array, rows: NDArray[np.int64], size: int
) -> tuple[tuple[int, ...], float]:
    scorer = make()
    scorer.bind([SourceFacts(features=_unit(view.prototypes), labels=np.arange(len(view.prototypes))) for view in views])
    block = [
        ScoredRows(target=target[rows], features=_unit(view.features[rows]), probabilities=view.probabilities[rows], rows=rows)
        for view in views
    ]
    value = scorer.run(lambda: [block])
    chosen = GreedySets().select(value, len(views), size)
    return chosen, value(chosen)


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))
