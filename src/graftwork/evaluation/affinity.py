"""Who helps whom: inter-task affinity by lookahead (TAG, Fifty et al. 2021, https://arxiv.org/abs/2109.04617), and gradient
cosines.

``Z[i, j] = 1 - L_j(theta_s after a step on task i) / L_j(theta_s)``: the share of task j's loss that one gradient step on task
i's loss takes away when it moves the shared parameters ``theta_s`` only. Positive helps, negative hurts.

Departure from the paper: the step is taken on one held-back batch and the losses are read on the next one, so that the diagonal
is progress that generalises and not a batch's fit to itself; and the model runs in evaluation mode, so that dropout and batch
statistics do not drown a difference of a fraction of a percent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.records import TaskSpec
from graftwork.evaluation.paired import paired_interval
from graftwork.interfaces.shared_model import SharedModel
from graftwork.tasks.losses import task_loss

__all__ = ["cosines_of_products", "layer_products", "measure_affinity", "summarise_affinity"]

_METHOD = (
    "Lookahead (TAG, arXiv 2109.04617): loss that one step on the row's task takes off the column's task on other held-back rows"
)


@contextlib.contextmanager
def _untouched(model: SharedModel) -> Iterator[None]:
    """Run in evaluation mode; afterwards modes, parameters, buffers and random numbers are what they were, bit for bit."""
    modes = [(module, module.training) for module in model.modules()]
    tensors = [*model.parameters(), *model.buffers()]
    copies = [tensor.detach().clone() for tensor in tensors]
    # The CPU's generator only; in evaluation mode nothing should be drawn at all.
    with torch.random.fork_rng(devices=[]):
        model.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, copy in zip(tensors, copies, strict=True):
                    tensor.copy_(copy)
            for module, mode in modes:
                module.training = mode
            # What the forward passes left behind must not be added to the next training step.
            model.pop_auxiliary_loss()


def _shared(model: SharedModel) -> list[nn.Parameter]:
    return [parameter for parameter in model.shared_parameters() if parameter.requires_grad]


def _loss(model: SharedModel, task: TaskSpec, batch: Batch) -> Tensor | None:
    """Return the task's loss on the batch, or None if the batch has no label of it."""
    # Without a label the loss is 0, which reads as "solved" and not as "unknown".
    if not bool(batch.mask[task.name].any()):
        return None
    return task_loss(task, model(batch.inputs, [task.name])[task.name], batch.targets[task.name])


@torch.no_grad()
def _losses(model: SharedModel, tasks: Sequence[TaskSpec], batch: Batch) -> Tensor:
    outputs = model(batch.inputs, [task.name for task in tasks])
    values = [
        float(task_loss(task, outputs[task.name], batch.targets[task.name]))
        if bool(batch.mask[task.name].any())
        else float("nan")
        for task in tasks
    ]
    # float64: effects of one step are far below a percent, and two float32 losses would differ by rounding.
    return torch.tensor(values, dtype=torch.float64)


def measure_affinity(model: SharedModel, tasks: Sequence[TaskSpec], batches: Sequence[Batch], *, learning_rate: float) -> Tensor:
    """Measure the affinities of a model as it stands; the model is afterwards exactly what it was.

    Args:
        model: The shared model, at some step of its training.
        tasks: The tasks, in the order of rows and columns.
        batches: Held-back batches. Steps are taken on each, losses read on the next (the last one's next is the first); with a
            single batch both happen on it, as in the paper.
        learning_rate: Length of the gradient step, above 0: that of training. Affinities are proportional to it while it is
            small.

    Returns:
        float64 ``[T, T]``, mean over batches: row = the task that takes the step, column = the task whose loss is read. NaN
        where no
        batch had labels of both. Zero if no shared parameter is trained: then tasks cannot touch each other.

    Raises:
        ValueError: If there is no batch or the learning rate is not above 0.
    """
    if not batches:
        raise ValueError("`batches` must hold at least one batch.")
    if not learning_rate > 0:
        raise ValueError(f"`learning_rate` must be above 0; got {learning_rate}.")
    shared = _shared(model)
    if not shared:
        return torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
    found = torch.full((len(batches), len(tasks), len(tasks)), float("nan"), dtype=torch.float64)
    with _untouched(model):
        start = [parameter.detach().clone() for parameter in shared]
        for number, batch in enumerate(batches):
            probe = batches[(number + 1) % len(batches)]
            before = _losses(model, tasks, probe)
            # A loss that is 0 has nothing to take away, and would be divided by.
            before = torch.where(before > 1e-12, before, torch.nan)
            for row, task in enumerate(tasks):
                with torch.enable_grad():
                    loss = _loss(model, task, batch)
                    if loss is None:
                        continue
                    # allow_unused: a task may not reach every shared parameter (a routed trunk, say).
                    gradients = torch.autograd.grad(loss, shared, allow_unused=True)
                with torch.no_grad():
                    for parameter, gradient in zip(shared, gradients, strict=True):
                        if gradient is not None:
                            parameter.sub_(gradient, alpha=learning_rate)
                found[number, row] = 1.0 - _losses(model, tasks, probe) / before
                # Restored from the copy: adding the step again would not give the same bits.
                with torch.no_grad():
                    for parameter, value in zip(shared, start, strict=True):
                        parameter.copy_(value)
    return found.nanmean(dim=0)


def summarise_affinity(
    measurements: Sequence[Tensor], tasks: Sequence[str] | None = None, *, level: float = 0.95, relative: bool = True
) -> dict[str, Any]:
    """Return the mean over measurements at several steps (and seeds) with t intervals, as JSON.

    Args:
        measurements: Results of :func:`measure_affinity`, each ``[T, T]``; at least one.
        tasks: Names; None numbers them.
        level: Confidence of the intervals.
        relative: Divide each column by the mean of its diagonal, so that 1 is what the task's own step does for it and 0.3 means
            that the other's step does 30 % of that. A column whose own step does not help is divided by its largest entry
            instead.

    Returns:
        ``{"tasks", "value", "low", "high", "own", "measurements", "method"}``: matrices as lists of rows (row = who is trained,
        column = whom it helps or hurts), None where unknown; ``own`` is the mean diagonal in percent of the loss, the unit of
        the columns; ``measurements`` is their number.

    Raises:
        ValueError: If there is no measurement.
    """
    if not measurements:
        raise ValueError("`measurements` must hold at least one matrix.")
    table = np.stack([measurement.detach().cpu().numpy().astype(np.float64) for measurement in measurements])
    size = table.shape[1]
    # Cells that no measurement knows are NaN here and stay so.
    with np.errstate(invalid="ignore"):
        known = (~np.isnan(table)).sum(axis=0)
        mean = np.divide(np.nansum(table, axis=0), known, out=np.full((size, size), np.nan), where=known > 0)
    own = np.diagonal(mean).copy()
    unit = np.ones(size)
    if relative:
        largest = np.nan_to_num(np.nanmax(np.abs(np.where(np.isnan(mean), 0.0, mean)), axis=0))
        # One unit a column, whose loss it is: rows compare who helps this task.
        unit = np.where(own > 0, own, np.where(largest > 0, largest, 1.0))
    intervals = [
        [paired_interval(table[:, row, column] / unit[column], level=level) for column in range(size)] for row in range(size)
    ]
    names = list(tasks) if tasks is not None else [f"task {number + 1}" for number in range(size)]
    return {
        "tasks": names,
        **{key: [[_json_number(getattr(item, key)) for item in row] for row in intervals] for key in ("value", "low", "high")},
        "own": [_json_number(100 * item) for item in own],
        "measurements": len(table),
        "method": _METHOD + (", relative to the column's own step" if relative else "") + f"; mean of {len(table)} measurements",
    }


def _json_number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def layer_products(model: SharedModel, tasks: Sequence[TaskSpec], batch: Batch) -> dict[str, Tensor]:
    """Return the inner products of the tasks' gradients of the shared parameters, layer by layer.

    Products add up: those of a stage, or of the whole trunk, are the sum over its layers.

    Args:
        model: The shared model; unchanged afterwards, ``.grad`` included.
        tasks: The tasks, in the order of rows and columns.
        batch: Labelled rows.

    Returns:
        ``{layer: float64 [T, T]}`` for each module that owns trained shared parameters, in the model's order; the rows of a task
        without a label in the batch, or without a gradient in the layer, are zero. Empty if no shared parameter is trained.
    """
    shared = {id(parameter) for parameter in _shared(model)}
    layers: dict[str, list[int]] = {}
    order: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if id(parameter) in shared:
            # The module that owns the parameter: `trunk.0.weight` and `trunk.0.bias` are one layer.
            layers.setdefault(name.rpartition(".")[0] or name, []).append(len(order))
            order.append(parameter)
    if not order:
        return {}
    rows: list[list[Tensor]] = []
    with _untouched(model), torch.enable_grad():
        for task in tasks:
            loss = _loss(model, task, batch)
            found = [None] * len(order) if loss is None else torch.autograd.grad(loss, order, allow_unused=True)
            rows.append(
                [
                    torch.zeros_like(parameter).reshape(-1) if gradient is None else gradient.detach().reshape(-1)
                    for parameter, gradient in zip(order, found, strict=True)
                ]
            )

    def products(chosen: Sequence[int]) -> Tensor:
        # [T, numbers of the layer]. float64: inner products over millions of entries.
        stacked = torch.stack([torch.cat([row[index].double() for index in chosen]) for row in rows])
        return (stacked @ stacked.T).cpu()

    return {layer: products(indices) for layer, indices in layers.items()}


def cosines_of_products(products: Tensor) -> Tensor:
    """Return cosines for inner products ``[..., T, T]``; NaN where a gradient is zero: it has no direction.

    Example:
        >>> cosines_of_products(torch.tensor([[4.0, -3.0], [-3.0, 9.0]])).tolist()
        [[1.0, -0.5], [-0.5, 1.0]]
    """
    # clamp: rounding can make a squared norm slightly negative. A zero norm gives 0 / 0, the NaN that is promised.
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    return (products / (norms.unsqueeze(-1) * norms.unsqueeze(-2))).clamp(-1.0, 1.0)
