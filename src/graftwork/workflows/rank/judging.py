"""One source after another: features once, then every score of every task with its replicates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.evaluation.probes import count_parameters, latency_ms
from graftwork.evaluation.score_stability import HalfSamples, StableScore, stable_score
from graftwork.training.feature_store import cached_features
from graftwork.workflows.rank.loading import LoadedSource, load_source
from graftwork.workflows.rank.rows import RankRows
from graftwork.workflows.rank.score_names import SCORES
from graftwork.workflows.rank.seen_rows import class_answers, narrow_features, telling_head
from graftwork.workflows.rank.sources import RankSource

__all__ = ["JudgedSource", "SourceView", "common_columns", "judge_source", "score_tables"]

Array = NDArray[Any]
_TIMED_ROWS = 16


@dataclass(frozen=True, slots=True)
class SourceView:
    """What a source with classes of its own sees of the rows."""

    features: Array
    """``[N, D]``."""
    probabilities: Array
    """``[N, Z]``."""
    prototypes: Array
    """Weights of its classes, ``[Z, D]``."""


@dataclass(frozen=True, slots=True)
class JudgedSource:
    """A source with its scores and costs."""

    source: RankSource
    scores: Mapping[str, Mapping[str, StableScore]]
    """``{task: {score: ...}}``."""
    parameters: int
    width: int
    ms_per_row: float
    """Milliseconds of the features of one row, in batches of 16 on one thread."""
    seconds: float
    """Of everything, features included (nothing for those that were stored)."""
    has_classes: bool
    classes_of: Mapping[str, str] = field(default_factory=dict)
    """Of a source with several tasks of its own: by whose classes each task is judged."""
    notes: tuple[str, ...] = field(default=())
    view: SourceView | None = field(default=None, repr=False)
    """Kept for sets of sources, of sources with classes."""


def judge_source(
    source: RankSource,
    rows: RankRows,
    scores: Sequence[str],
    samples: HalfSamples,
    *,
    cache: Path,
    seed: int,
    keep_view: bool = False,
    device: str = "cpu",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> JudgedSource:
    """Return the judged source.

    Args:
        source: The source.
        rows: The sampled rows.
        scores: Names of scores.
        samples: The half-samples, the same for all sources.
        cache: Folder of stored features.
        seed: Draws untrained trunks.
        keep_view: Whether to keep what a source with classes sees.
        device: Where features are computed: ``cpu``, ``cuda`` or ``mps``. Costs are measured on the CPU all the same, so that they compare
            with those of other rankings.
        on_progress: Called with the source's name, finished rows and all rows while features are computed.

    Raises:
        GraftworkError: If the source cannot be loaded or cannot read the rows.
        FloatingPointError: If its features are not finite.
    """
    begin = time.perf_counter()
    loaded = load_source(source, rows.suite, seed=seed)
    said = None if on_progress is None else lambda done, all_rows: on_progress(source.name, done, all_rows)
    features = cached_features(loaded.backbone.to(device), loaded.arrays, cache, on_progress=said)
    loaded.backbone.to("cpu")
    cost = _milliseconds(loaded)
    reads_classes = any(SCORES[name].make().reads == "probabilities" for name in scores)
    own = class_answers(loaded, features, cache, device=device, on_progress=said) if reads_classes or keep_view else None
    narrow = narrow_features(features, cache)
    found: dict[str, dict[str, StableScore]] = {}
    notes: list[str] = []
    classes_of: dict[str, str] = {}
    for task, target in rows.targets.items():
        found[task] = {}
        kind = "classes" if np.issubdtype(target.dtype, np.integer) else "values"
        answers: Array | None = None
        if own is not None and kind == "classes" and reads_classes:
            head = telling_head(*own, target)
            answers = own[0][:, own[1][head]]
            if len(own[1]) > 1:
                classes_of[task] = head
        for name in scores:
            scorer = SCORES[name].make()
            seen = features if scorer.reads == "features" else answers
            if kind not in scorer.kinds or seen is None:
                continue
            try:
                found[task][name] = stable_score(
                    SCORES[name].make, seen, target, samples, replicated=narrow if scorer.reads == "features" else None
                )
            except DataError as error:
                notes.append(f"{SCORES[name].title} of {task} for {source.name} is left out: {error}")
    return JudgedSource(
        source,
        found,
        count_parameters(loaded.backbone).total,
        features.shape[1],
        cost,
        time.perf_counter() - begin,
        loaded.has_classes,
        classes_of,
        tuple(notes),
        _view(loaded, features, None if own is None else own[0]) if keep_view else None,
    )


def _view(loaded: LoadedSource, features: Array, answers: Array | None) -> SourceView | None:
    if loaded.head is None or answers is None:
        return None
    return SourceView(features, answers, loaded.head.weight)


def _milliseconds(loaded: LoadedSource) -> float:
    example = {name: torch.from_numpy(np.array(array[:_TIMED_ROWS])) for name, array in loaded.arrays.items()}
    size = min(_TIMED_ROWS, len(next(iter(example.values()))))
    return latency_ms(loaded.backbone, example, batch_sizes=(size,), repeats=3).milliseconds[size] / size


def common_columns(judged: Sequence[JudgedSource], rows: RankRows, scores: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of task and score that every source has."""
    wanted = [(task, score) for task in rows.targets for score in scores]
    return [(task, score) for task, score in wanted if all(score in one.scores[task] for one in judged)]


def score_tables(judged: Sequence[JudgedSource], columns: Sequence[tuple[str, str]]) -> tuple[Array, Array]:
    """Return scores ``[sources, columns]`` and their replicates ``[draws, sources, columns]``."""
    values = np.array([[one.scores[task][score].value for task, score in columns] for one in judged])
    replicates = np.stack([[one.scores[task][score].replicates for task, score in columns] for one in judged])
    return values, replicates.transpose(2, 0, 1)
