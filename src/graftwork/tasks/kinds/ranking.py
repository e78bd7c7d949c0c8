"""Which of the rows of one query come first. Loss: squared error of the standardised relevance, plus the pairwise logistic loss
of rows of one query that meet in a batch (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005), each a mean.

Pairs alone would starve where queries are many and batches random: most batches hold one row of a query. The first part teaches
from every row, and it keeps scores in units of the relevance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.plain_numbers import plain_number
from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.table import Table, as_table
from graftwork.data.reading.target_arrays import check_finite
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import ColumnCount, LabelColumn, TaskKind
from graftwork.tasks.answers import listed
from graftwork.tasks.metrics import ranked

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["KIND", "Ranking"]

_MAX_QUERIES = 2**24
"""More do not fit into float32 one by one."""


class Ranking(TaskKind):
    """Targets ``[N, 2]`` float32, relevance (at least 0) and query number, NaN where missing; 1 score; answers are scores
    ``[N]`` in units of the relevance, higher first."""

    name = "ranking"
    words = "order within a query"
    metrics = (ranked.NDCG, ranked.NDCG_10, ranked.PAIR_ACCURACY)
    reads_columns: ClassVar[ColumnCount] = "one or several"
    compares_rows = True

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem unless ``size`` is 1."""
        return () if spec.size == 1 else (f"size must be 1, the score; got {spec.size}.",)

    def fit_spec(self, spec: TaskSpec, target: Array) -> TaskSpec:
        """Return the task with center and scale of the training rows' relevance, unless it has them."""
        # float64: sums of many float32 values lose digits.
        known = np.asarray(target[~np.isnan(target).any(axis=1), 0], dtype=np.float64)
        if spec.center or not len(known):
            return spec
        scale = float(known.std())
        # A relevance that never varies keeps its unit; dividing by 0 would make every loss NaN.
        # Compared with the values themselves, whose unit may be tiny.
        is_constant = scale <= 1e-12 * float(np.abs(known).max())
        return replace(spec, center=(float(known.mean()),), scale=(1.0 if is_constant else scale,))

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N]``."""
        return (target_shape[0],)

    # --- learning ---

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the mean squared error over labelled rows, plus the mean logistic loss over pairs of one query and different
        relevance."""
        import torch
        from torch.nn import functional as F

        from graftwork.tasks.tensors import masked_mean, standardise

        known = ~target.isnan().any(dim=1)
        # The gradient of NaN is NaN even where the mask drops the value.
        relevance, query = torch.where(known.unsqueeze(1), target, torch.zeros_like(target)).unbind(dim=1)
        score = output.squeeze(1)
        error = masked_mean((score - standardise(spec, relevance.unsqueeze(1)).squeeze(1)).square(), known)
        # [B, B]: row i against row j. Query 0 of rows without a label is kept out by both masks.
        both = known.unsqueeze(1) & known & (query.unsqueeze(1) == query)
        # Row i belongs before row j. Each pair stands once, and rows of equal relevance never.
        first = both & (relevance.unsqueeze(1) > relevance)
        # softplus(s_j - s_i) = -log sigmoid(s_i - s_j), the loss of RankNet.
        return error + masked_mean(F.softplus(score - score.unsqueeze(1)), first)

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of labelled rows. (Pairs of the parts of a batch are fewer than those of the whole.)"""
        return (~target.isnan().any(dim=1)).sum()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the loss of equal scores: the relevance's variance, and log 2 if there are pairs."""
        from graftwork.tasks.tensors import standardise

        known = target[~target.isnan().any(dim=1)].double()
        values = standardise(spec, known[:, :1])
        # More different (relevance, query) rows than queries: some query has two different relevances.
        has_pairs = len(known.unique(dim=0)) > len(known[:, 1].unique())
        return (values - values.mean()).square().mean() + (math.log(2.0) if has_pairs else 0.0)  # NaN without a row

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return scores in units of the relevance."""
        from graftwork.tasks.tensors import unstandardise

        return unstandardise(spec, output).squeeze(1)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return half the squared difference of standardised scores."""
        from graftwork.tasks.tensors import normal_divergence

        return normal_divergence(reference, output)

    # --- data ---

    def read_column(self, request: TargetRequest, cells: TargetCells, reason: str) -> InferredTask:
        """Return the task of a column of relevance, all rows of which belong to one query.

        Raises:
            DataError: If a cell is no number or negative.
        """
        if cells.words:
            raise DataError(f"Target {request.name!r}: relevance must be numbers; got {short_list(cells.words, 3)}.")
        check_finite(request.name, cells)
        return self._build(request, cells.numbers, np.zeros(len(cells.numbers)), "one query")

    def read_columns(self, request: TargetRequest, frame: pd.DataFrame | Table) -> InferredTask:
        """Return the task of a relevance column and a query column, in this order.

        Raises:
            DataError: If there are more columns, a relevance is no number or negative, or no query has two rows.
        """
        name = request.name
        if len(request.columns) != 2:
            raise DataError(
                f"Target {name!r} is to be ranking, which reads a relevance and a query; got {short_list(request.columns)}. "
                f"Name them in this order: --targets '{name}=relevance+query'."
            )
        table = as_table(frame)
        parsed, query = table[request.columns[0]].numbers(), table[request.columns[1]]
        relevance, words = parsed.values, list(map(repr, parsed.unread))
        if words or np.isinf(relevance).any():
            raise DataError(
                f"Target {name!r}: relevance must be finite numbers, but column {request.columns[0]!r} holds "
                f"{short_list(words or ['inf'], 3)}. Is it the first column of the target?"
            )
        codes, levels = query.named(query.naming)
        if len(levels) > _MAX_QUERIES:
            raise DataError(
                f"Target {name!r}: column {request.columns[1]!r} has {len(levels)} queries; at most {_MAX_QUERIES} are allowed."
            )
        known = ~np.isnan(relevance) & (codes >= 0)
        if not (np.bincount(codes[known], minlength=1) > 1).any():
            raise DataError(
                f"Target {name!r}: no value of {request.columns[1]!r} has two rows with a relevance, so there is nothing to "
                "put in order. Name the column that says which rows are compared."
            )
        # codes are integers, which hold no NaN; np.where makes them floats.
        queries = np.where(codes >= 0, codes, np.nan)
        return self._build(
            request, relevance, queries, f"relevance {request.columns[0]!r} within {len(levels)} values of {request.columns[1]!r}"
        )

    def _build(self, request: TargetRequest, relevance: Array, query: Array, reason: str) -> InferredTask:
        target = np.stack([relevance, query], axis=1).astype(np.float32)
        # A row is labelled or not: half a label would be counted in one place and left out in another.
        target[np.isnan(target).any(axis=1)] = np.nan
        if (target[:, 0] < 0).any():
            row = int((target[:, 0] < 0).argmax())
            raise DataError(
                f"Target {request.name!r}: a relevance is at least 0; got {relevance[row]:g} in row "
                f"{row + 1}. Shift the values, or choose regression."
            )
        spec = TaskSpec(name=request.name, kind=self.name, size=1, columns=request.columns, metric=request.metric)
        return InferredTask(spec, reason, target)

    def row_groups(self, spec: TaskSpec, target: Array) -> Array | None:
        """Return the query of each row; None if there is one query only."""
        query = np.where(np.isnan(target[:, 1]), -1, target[:, 1]).astype(np.int64)
        return query if len(np.unique(query[query >= 0])) > 1 else None

    def strata(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return the relevance."""
        return [LabelColumn("number", target[:, 0])]

    # --- people ---

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return ``task``, the score."""
        return {spec.name: values}

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``value``, the score."""
        return [{"value": value} for value in listed(values)]

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return the relevance or the score."""
        number = float(value if is_prediction else value[0])
        return "" if np.isnan(number) else plain_number(float(number))


KIND = Ranking()
