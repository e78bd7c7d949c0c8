"""Numbers, one or several a row. Loss: squared error of standardised values; ``robust`` takes smooth L1 with its knee at one
standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_arrays import check_finite, number_target, numeric_columns, origin_of
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import ColumnCount, LabelColumn
from graftwork.tasks.answers import flat_rows, numbers_of, stacked
from graftwork.tasks.metrics import values as metrics_of_values
from graftwork.tasks.values import ValueKind

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["KIND", "Regression"]


class Regression(ValueKind):
    """Targets ``[N, size]`` float32, NaN where missing; ``size`` standardised values; answers are values in the user's units."""

    name = "regression"
    words = "number"
    metrics = (metrics_of_values.RMSE, metrics_of_values.MAE, metrics_of_values.R2)
    reads_columns: ClassVar[ColumnCount] = "one or several"
    can_be_taught: ClassVar[bool] = True

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, size]``."""
        return (target_shape[0], spec.size)

    # --- learning ---

    def entry_losses(self, output: Tensor, wanted: Tensor, *, robust: bool) -> Tensor:
        """Return the squared error, or smooth L1."""
        from torch.nn import functional as F

        if robust:
            return F.smooth_l1_loss(output, wanted, reduction="none", beta=1.0)
        return (output - wanted).square()

    def complete_loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the loss without a mask."""
        from torch.nn import functional as F

        from graftwork.tasks.tensors import standardise

        wanted = standardise(spec, target)
        return F.smooth_l1_loss(output, wanted) if robust else F.mse_loss(output, wanted)

    def prior_of_spread(self, spread: Tensor) -> Tensor:
        """Return the variance."""
        return spread.square()

    def raw_output(self, spec: TaskSpec, answers: Array) -> Array:
        """Return standardised values."""
        values = flat_rows(answers)
        return (values - np.array(spec.center or [0.0] * spec.size)) / np.array(spec.scale or [1.0] * spec.size)

    # --- scoring and data ---

    def scored(self, spec: TaskSpec, target: Array, prediction: Array) -> tuple[Array, Array]:
        """Return both as ``[N, size]``; one value a row may come as ``[N]``."""
        return super().scored(spec, flat_rows(target), flat_rows(prediction))

    def read_column(self, request: TargetRequest, cells: TargetCells, reason: str) -> InferredTask:
        """Return the task of one column of numbers.

        Raises:
            DataError: If there are words, or a number is infinite or too large for float32.
        """
        if cells.words:
            raise DataError(
                f"Target {request.name!r} is to be a regression but holds words ({short_list(cells.words, 3)}). "
                "Make them numbers, or choose multiclass."
            )
        check_finite(request.name, cells)
        return self._build(request, cells.numbers[:, None], reason)

    def read_columns(self, request: TargetRequest, frame: pd.DataFrame | Table) -> InferredTask:
        """Return the task of several columns of numbers, read as one vector."""
        numbers = numeric_columns(request, frame)
        return self._build(request, numbers, f"{len(request.columns)} numeric columns read as one vector")

    def _build(self, request: TargetRequest, numbers: NDArray[np.float64], reason: str) -> InferredTask:
        # Large values that vary little (dates, serial numbers) differ by less than float32 resolves. Their origin is taken away
        # in float64.
        origin = origin_of(numbers)
        spec = TaskSpec(
            name=request.name,
            kind=self.name,
            size=numbers.shape[1],
            columns=request.columns,
            metric=request.metric,
            details={"origin": list(origin)} if origin else {},
        )
        notes: tuple[str, ...] = ()
        if origin:
            shown = " and ".join(f"{value:.15g}" for value in origin)
            notes = (
                f"Target {request.name!r} varies little beside its mean, so it is learned as its difference from {shown} "
                "(model.onnx gives that difference; predict and serve add it).",
            )
            numbers = numbers - np.asarray(origin)
        return InferredTask(spec, reason, number_target(request.name, numbers), notes)

    def read_answers(self, spec: TaskSpec, columns: Mapping[str, Array], *, hard: float) -> Array | None:
        """Return the column ``task``, or ``task[column]`` of several values."""
        if spec.size > 1:
            found = stacked(spec.name, spec.columns, columns)
        else:
            found = numbers_of(spec.name, columns[spec.name])[:, None] if spec.name in columns else None
        return found if found is None else found - np.asarray(spec.details.get("origin", 0.0), dtype=np.float64)

    def label_columns(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return the values."""
        return [LabelColumn("number", target[:, index]) for index in range(target.shape[1])]


KIND = Regression()
