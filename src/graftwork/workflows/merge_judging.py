"""What a merge with data adds to one without: scores before and after, and a search of settings in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.tensor_files import open_tensors
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.workflows.merge_kinds import Merging
from graftwork.workflows.merge_scores import MergeScorer, TaskScore, mean_change
from graftwork.workflows.merge_search import MergeTrial, best_trial

__all__ = ["Judge"]


class Judge:
    """Scores the models of a merge. Networks stay in memory as long as this does.

    Args:
        models: The base first, if there is one.
        context: All rows of the suite, those of the test among them.
        has_base: Whether the first model is the base.
        metric: What scores are taken by; empty takes each task's own metric.
        needed: Whether models without a known network are an error; otherwise a note says that there are no scores.

    Raises:
        ConfigError: If a network is not known, or the models answer none of the tasks.
    """

    def __init__(
        self, models: Sequence[MergeModel], context: MergeContext, *, has_base: bool, metric: str = "", needed: bool = True
    ) -> None:
        self.notes: tuple[str, ...] = ()
        """What may surprise, one sentence each."""
        self.trials: tuple[MergeTrial, ...] = ()
        """What :meth:`search` tried."""
        self.role = "test" if "test" in context.rows else "val"
        """Which rows the scores are of."""
        self._scorer: MergeScorer | None = None
        experts = models[1:] if has_base else models
        unknown = [model.name for model in experts if model.network is None]
        if unknown and not needed:
            self.role = ""
            self.notes = (
                f"there are no scores: {unknown[0]} holds weights only, and nothing says which network they belong to.",
            )
            return
        self._scorer = MergeScorer(models[0] if has_base else None, experts, context, metric=metric)
        # Before anything is loaded: the networks' own weights are overwritten later.
        self._before = self._scorer.before(self.role)

    def search(self, tried: Sequence[Mapping[str, Any]], begin: Callable[[Mapping[str, Any]], Merging]) -> Mapping[str, Any]:
        """Merge with every combination of settings and return the best one on validation rows, the first of equals.

        Args:
            tried: Combinations, at least one.
            begin: Begins the merge with one of them.

        Raises:
            ConfigError: If there are no validation rows, or no score is finite.
        """
        assert self._scorer is not None
        scorer = self._scorer
        before = self._before if self.role == "val" else scorer.before("val")

        def change(settings: Mapping[str, Any]) -> float:
            merging = begin(settings)
            tensors = {name: np.array(values) for name, values in merging.tensors}
            for name, indices, values in merging.corrections:
                tensors[name].reshape(-1)[indices] = values
            scorer.load(tensors)
            return mean_change(scorer.after(before, "val"))

        place, trials = best_trial(tried, change)
        self.trials = tuple(trials)
        return tried[place]

    def after(self, path: Path) -> tuple[TaskScore, ...]:
        """Return all scores, those of the written file among them."""
        if self._scorer is None:
            return ()
        merged = open_tensors(path)
        try:
            self._scorer.load(merged)
        except DataError as error:
            self.notes = (*self.notes, f"there are no scores after the merge: {error}")
            return tuple(self._before)
        return tuple(self._scorer.after(self._before, self.role))
