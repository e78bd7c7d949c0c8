"""How much of a source data set is worth keeping for a target: votes of the target's rows for the source's classes (DP4TL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.task_kind import LabelColumn, task_kind
from graftwork.math.linear_fits import fit_multinomial
from graftwork.methods.selection.dp4tl import ClassRanking, feature_votes, label_votes, source_groups
from graftwork.workflows.rank.source_features import features_of
from graftwork.workflows.rank.sources import RankSource

__all__ = ["COVERED", "SourceClasses", "class_verdict", "judge_classes", "plain_result"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
COVERED = 0.95
"""Share of the target's votes that the classes to keep have together."""
_MANY = 0.8
"""Share of the classes from which on next to nothing can be dropped."""
_PENALTY = 0.01
_GROUPS = 50


@dataclass(frozen=True, slots=True)
class SourceClasses:
    """Classes, or groups, of a source with the votes of a target's rows."""

    names: tuple[str, ...]
    ranking: ClassRanking
    sizes: Ints
    """Rows of the source in each class, of the rows that were looked at."""
    firm: Floats
    """Share of the half-samples of the target's rows in which a class is among those to keep, ``[C]``."""
    mapping: str
    """``"labels"`` or ``"features"``."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a class, those to keep first."""
        needed, covered = self.ranking.needed(COVERED), self.ranking.coverage()
        return [
            {
                "name": self.names[index],
                "votes": int(self.ranking.votes[index]),
                "share": float(self.ranking.votes[index] / self.ranking.votes.sum()),
                "covered": float(covered[place]),
                "rows": int(self.sizes[index]),
                "keep": place < needed,
                "firm": float(self.firm[index]),
            }
            for place, index in enumerate(self.ranking.order.tolist())
        ]


def judge_classes(
    target: Suite, source: Suite, backbone: RankSource, *, draws: int, seed: int, device: str = "cpu"
) -> SourceClasses:
    """Return the source's classes, ranked by the votes of the target's rows.

    The surrogate is a linear classifier on the features of a frozen backbone, fitted on the source; without labels, groups of the
    source's features.

    Args:
        target: Sampled training rows.
        source: Sampled training rows, with a task of classes or without.
        backbone: Computes features of both.
        draws: Half-samples of the target's rows.
        seed: Breaks ties, draws halves and starts of groups.
        device: Where features are computed.

    Raises:
        DataError: If the source has fewer than two classes with rows.
    """
    from scipy.spatial.distance import cdist

    own, other = (features_of(backbone, suite, seed=seed, device=device) for suite in (source, target))
    if own.shape[1] != other.shape[1]:
        raise DataError(f"{backbone.name} gives {own.shape[1]} features for the source and {other.shape[1]} for the target.")
    mean, spread = own.mean(axis=0), own.std(axis=0)
    scale = np.where(spread > 1e-6 * max(1e-30, float(spread.max(initial=0.0))), spread, np.inf)
    own, other = (own - mean) / scale, (other - mean) / scale
    found = _classes_of(source)
    if found is None:
        groups = min(_GROUPS, max(2, len(own) // 10))
        labels, centres = source_groups(own, groups, seed=seed)
        names = tuple(f"group {index + 1}" for index in range(groups))
        answers, votes, mapping = -cdist(other, centres), feature_votes(other, centres), "features"
    else:
        task, column = found
        labels = np.asarray(column.values, dtype=np.int64)
        known = labels >= 0
        own, labels = own[known], labels[known]
        count = column.num_classes
        if len(np.unique(labels)) < 2:
            raise DataError(f"The source's task {task.name!r} has rows of fewer than two classes.")
        names = tuple(map(str, task.classes)) if len(task.classes) == count else tuple(f"class {index}" for index in range(count))
        weights = fit_multinomial(own, labels, _PENALTY, np.zeros((count, own.shape[1] + 1)))
        answers = other @ weights[:, :-1].T + weights[:, -1]
        votes, mapping = label_votes(answers), "labels"
    ranking = ClassRanking(votes, seed)
    return SourceClasses(names, ranking, np.bincount(labels, minlength=len(names)), _firm(answers, draws, seed), mapping)


def _classes_of(source: Suite) -> tuple[TaskSpec, LabelColumn] | None:
    """Return the first task with one class a row, and its classes; None if there is none."""
    for task in source.tasks:
        columns = task_kind(task).label_columns(task, np.asarray(source.targets[task.name]))
        if len(columns) == 1 and columns[0].form == "classes":
            return task, columns[0]
    return None


def _firm(answers: Floats, draws: int, seed: int) -> Floats:
    random, voted = np.random.default_rng([seed, 5]), answers.argmax(axis=1)
    kept = np.zeros(answers.shape[1])
    for _ in range(draws):
        half = random.permutation(len(voted))[: max(1, len(voted) // 2)]
        ranking = ClassRanking(np.bincount(voted[half], minlength=len(kept)).astype(np.int64), seed)
        kept[ranking.order[: ranking.needed(COVERED)]] += 1.0 / draws
    return kept


def class_verdict(found: SourceClasses, target_rows: int) -> tuple[str, list[str]]:
    """Return a certainty (``"keep-part"`` or ``"keep-all"``) and the sentences that follow from the votes.

    Args:
        found: The judged classes.
        target_rows: Rows that voted.
    """
    ranking = found.ranking
    count, needed = len(found.names), ranking.needed(COVERED)
    what = "classes" if found.mapping == "labels" else "groups"
    rows = float(found.sizes[ranking.order[:needed]].sum() / found.sizes.sum())
    facts = (
        f"{needed} of {count} {what} get {100 * COVERED:.0f} % of the votes of {target_rows:,} target rows, and {ranking.without_votes} get "
        "none"
    )
    if needed >= _MANY * count:
        return "keep-all", [f"Keep the whole source: {facts}."]
    sentences = [
        f"Consider pre-training on {needed} of {count} {what} ({100 * rows:.0f} % of the source's rows): {facts}.",
        "Votes say what the target's rows resemble, not what accuracy comes of it: fine-tune from both and compare before you rely on it.",
    ]
    unsure = int(((found.firm > 0.1) & (found.firm < 0.9)).sum())
    if unsure:
        sentences.append(f"{unsure} {what} are in or out depending on which half of the target's rows votes.")
    return "keep-part", sentences


def plain_result(found: SourceClasses, target_rows: int) -> Mapping[str, Any]:
    """Return what the result file holds of it."""
    certainty, sentences = class_verdict(found, target_rows)
    return {
        "question": "classes",
        "mapping": found.mapping,
        "covered": COVERED,
        "rows": found.rows(),
        "verdict": {"choice": "", "certainty": certainty, "sentences": sentences, "warnings": []},
    }
