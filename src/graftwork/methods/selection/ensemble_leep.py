"""LEEP of sets of sources: of the averaged answer (E-LEEP), or summed over the members (MS-LEEP).

Paper: Agostinelli, Uijlings, Mensink and Ferrari, "Transferability Metrics for Selecting Source Model Ensembles", CVPR 2022,
https://arxiv.org/abs/2111.13011. Symbols: ``p_m(y | x)`` what LEEP makes of source ``m``'s answer to ``x``. E-LEEP is the mean over
rows of ``log mean_m p_m(y | x)``, MS-LEEP that of ``sum_m log p_m(y | x)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.scorer import ScoredRows
from graftwork.interfaces.set_selector import SetScorer, SetValue
from graftwork.methods.selection.leep import Leep

__all__ = ["EnsembleLeep"]


class EnsembleLeep(SetScorer):
    """Reads class probabilities of each source, of any label sets, and class indices; keeps one number for each row and source.

    Args:
        combine: ``"mean"`` is E-LEEP, ``"sum"`` MS-LEEP.

    Raises:
        ConfigError: If ``combine`` is another word.
    """

    passes = 2

    def __init__(self, combine: Literal["mean", "sum"] = "mean") -> None:
        if combine not in ("mean", "sum"):
            raise ConfigError(f"EnsembleLeep: combine is 'mean' or 'sum'; got {combine!r}.")
        self.combine = combine
        self._sources: list[Leep] = []
        self._second = False
        self._likelihoods: list[NDArray[np.float64]] = []

    def update(self, rows: Sequence[ScoredRows]) -> None:
        """See one block of every source.

        Raises:
            DataError: If the number of sources changes, or a block cannot be used.
        """
        self._sources = self._sources or [Leep() for _ in rows]
        if len(rows) != len(self._sources):
            raise DataError(f"EnsembleLeep got blocks of {len(rows)} sources after blocks of {len(self._sources)}.")
        if not self._second:
            for source, block in zip(self._sources, rows, strict=True):
                source.update(block)
            return
        self._likelihoods.append(
            np.stack([source.likelihoods(block) for source, block in zip(self._sources, rows, strict=True)], axis=1)
        )

    def finish_pass(self) -> None:
        """Turn the joint distributions into conditional ones."""
        for source in self._sources:
            source.finish_pass()
        self._second = True

    def finish(self) -> SetValue:
        """Return the value of any set.

        Raises:
            DataError: If no row has a label.
        """
        found = np.concatenate(self._likelihoods) if self._likelihoods else np.zeros((0, 0))
        if not len(found):
            raise DataError("EnsembleLeep needs rows with labels: none was seen.")
        if self.combine == "mean":
            return lambda members: float(np.log(found[:, list(members)].mean(axis=1)).mean())
        logs = np.log(found).mean(axis=0)
        return lambda members: float(logs[list(members)].sum())
