r"""L1-A-MTRL: which source tasks to draw rows from, so that a shared representation serves one target task best.

Paper: Wang, Chen, Jamieson and Du, "Improved Active Multi-Task Representation Learning via Lasso", ICML 2023,
https://arxiv.org/abs/2306.02556. Heads :math:`w_t` of all source tasks and of the target on one shared representation are estimated; the
relevance of the sources is the sparsest way to write the target's head with theirs, :math:`\hat\nu = \arg\min_\nu \frac12 \lVert W \nu -
w_* \rVert^2 + \lambda \lVert \nu \rVert_1` on heads of unit length, and the next rows are drawn in proportion to
:math:`|\hat\nu_t|`. Its forerunner (Chen, Jamieson and Du, "Active Multi-Task Representation Learning", ICML 2022,
https://arxiv.org/abs/2202.00911) takes the shortest :math:`\nu` in place of the sparsest, and draws in proportion to
:math:`\nu_t^2`.

In every epoch each task first gets its least number of rows; the rest of the budget is shared out, so that the budgets of all rules are
equal to the row. The paper takes the larger of both numbers, which spends a little more. The penalty halves from epoch to epoch. What
rule and which constants the authors' experiments use is from memory of the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError

__all__ = ["SourceBudget", "relevance", "share_out"]

Floats = NDArray[np.float64]
Rule = Literal["l1", "l2", "uniform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceBudget:
    """Shares the rows of each epoch out among source tasks.

    Raises:
        ConfigError: If a number is out of range.
    """

    rule: Rule = "l1"
    """``"l1"`` is this paper's, ``"l2"`` that of its forerunner, ``"uniform"`` looks at no head."""
    penalty: float = 0.05
    """``lambda`` of the first epoch for ``"l1"``, ridge for ``"l2"``; above 0, on heads of unit length."""
    decay: float = 0.5
    """Factor of the penalty from one epoch to the next, in (0, 1]."""
    least: int = 1
    """Rows that every task gets in every epoch, at least 0."""

    def __post_init__(self) -> None:
        problems = []
        if self.rule not in ("l1", "l2", "uniform"):
            problems.append(f"rule is 'l1', 'l2' or 'uniform'; got {self.rule!r}")
        if not 0 < self.penalty < math.inf:
            problems.append(f"penalty must be above 0; got {self.penalty!r}")
        if not 0 < self.decay <= 1:
            problems.append(f"decay must be in (0, 1]; got {self.decay!r}")
        if self.least < 0:
            problems.append(f"least must be at least 0; got {self.least!r}")
        if problems:
            raise ConfigError("The budget of sources cannot be shared out as asked.", problems)

    def counts(self, heads: Floats, target: Floats, budget: int, epoch: int) -> NDArray[np.int64]:
        """Return how many rows to draw from each source, with the sum ``budget``.

        Args:
            heads: Estimated heads of the sources, ``[k, M]``.
            target: That of the target, ``[k]``.
            budget: Rows of this epoch.
            epoch: Number of the epoch; heads of the epochs before are known, so it is at least 1.

        Raises:
            DataError: If the budget is below the least rows of all tasks.
        """
        number = heads.shape[1]
        if self.rule == "uniform":
            return share_out(np.ones(number), budget, self.least)
        found = relevance(heads, target, rule=self.rule, penalty=self.penalty * self.decay ** (epoch - 1))
        return share_out(np.abs(found) if self.rule == "l1" else found**2, budget, self.least)


def relevance(heads: Floats, target: Floats, *, rule: Literal["l1", "l2"] = "l1", penalty: float = 0.05) -> Floats:
    """Return the relevance of each source, ``[M]``; signs say whether a source's head points with the target's.

    Args:
        heads: ``[k, M]``; each is brought to unit length, so that no task is preferred for the size of its values. A head of zeros has no
            relevance.
        target: ``[k]``, likewise; one of zeros finds nothing relevant.
        rule: ``"l1"`` for the sparsest combination, ``"l2"`` for the shortest.
        penalty: Factor of the L1 norm, or of half the squared L2 norm.
    """
    sizes = np.linalg.norm(heads, axis=0)
    unit = np.divide(heads, sizes, out=np.zeros_like(heads), where=sizes > 0)
    size = float(np.linalg.norm(target))
    if not size > 0 or not sizes.any():
        return np.zeros(heads.shape[1])
    wanted = target / size
    if rule == "l2":
        # nu = W^T (W W^T + penalty)^-1 w, of all combinations with this error the shortest.
        return np.asarray(unit.T @ np.linalg.solve(unit @ unit.T + penalty * np.eye(len(unit)), wanted))
    from sklearn.linear_model import Lasso

    # scikit-learn divides the squared error by twice the rows, here the k coordinates.
    model = Lasso(alpha=penalty / len(unit), fit_intercept=False, max_iter=50_000, tol=1e-6)
    return np.asarray(model.fit(unit, wanted).coef_, dtype=np.float64)


def share_out(weights: Floats, budget: int, least: int) -> NDArray[np.int64]:
    """Return whole numbers with the sum ``budget``, ``[M]``: ``least`` for each, and the rest in proportion to the weights.

    Fractions are rounded by largest remainders, of equal ones the first. Weights that are all 0 share alike.

    Args:
        weights: At least 0, ``[M]``.
        budget: Rows in all.
        least: Rows of each.

    Raises:
        DataError: If the budget is too small.

    Example:
        >>> share_out(np.array([3.0, 1.0, 0.0]), 11, 1).tolist()
        [7, 3, 1]
    """
    rest = budget - least * len(weights)
    if rest < 0:
        raise DataError(f"A budget of {budget} rows is too small: {len(weights)} tasks get at least {least} each.")
    total = float(weights.sum())
    shares = rest * (weights / total if total > 0 else np.full(len(weights), 1.0 / len(weights)))
    counts = np.floor(shares + 1e-9).astype(np.int64)
    left = rest - int(counts.sum())
    counts[np.argsort(-(shares - counts), kind="stable")[:left]] += 1
    return np.asarray(counts + least, dtype=np.int64)
