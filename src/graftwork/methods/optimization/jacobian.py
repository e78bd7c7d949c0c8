"""Balancers that hand per-task gradients to an aggregator: exact ones, or those of the shared representation.

Exact: one backward pass per task, its gradient with respect to all shared parameters in one row of a ``[T, P]`` matrix; layers
whose gradients are larger than their factors are kept as factors where inner products are all that the aggregator asks for.
Representation: gradients with respect to the last tensor that all tasks share, which only cost the heads, then a single pass
through the trunk (Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", https://arxiv.org/abs/1810.04650,
section 3.3, call it an upper bound; any aggregator can be used on it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.math.gramian import combine_rows_, gramian
from graftwork.methods.optimization.aggregator import Aggregator, WeightedAggregator, as_aggregator, present_tasks
from graftwork.methods.optimization.gradient_rows import GradientRows
from graftwork.methods.optimization.layer_factors import FactoredLayer, find_layers
from graftwork.methods.optimization.task_graph import (
    Root,
    add_gradients,
    backward_from,
    gradients_from,
    loss_roots,
    outside_of,
    task_entries,
)

__all__ = ["JacobianBalancer", "RepresentationBalancer"]


class _AggregatingBalancer(Balancer):
    """What both modes share: the aggregator and its memory."""

    def __init__(self, aggregator: Aggregator | Callable[[Tensor], Tensor]) -> None:
        self.aggregator = as_aggregator(aggregator)

    def reset(self) -> None:
        """Forget what the aggregator remembers."""
        self.aggregator.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the aggregator's memory."""
        return self.aggregator.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.aggregator.load_state_dict(state)


class JacobianBalancer(_AggregatingBalancer):
    """Aggregates exact per-task gradients of the shared parameters.

    ``T`` backward passes a step and at most ``T * P`` floats of memory that are kept for the next step (``P`` shared
    parameters). For aggregators that only look at inner products, large layers are kept as factors (see
    :mod:`~graftwork.methods.optimization.layer_factors`): a pass then costs about half, and memory follows the batch in place of
    the weights. Parameters of one task get their task's gradient in the same pass. With a single task the gradient is plain.

    Args:
        aggregator: From ``[T, P]`` to ``[P]`` (see :mod:`graftwork.methods.optimization.aggregator`).
        factored: Whether layers may be kept as factors; False always builds the whole matrix. Results differ by rounding only.
    """

    accumulates = True
    parallel = True

    def __init__(self, aggregator: Aggregator | Callable[[Tensor], Tensor], *, factored: bool = True) -> None:
        super().__init__(aggregator)
        self.factored = factored
        self._rows: GradientRows | None = None
        self._outputs: Tensor | None = None

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Add gradients to ``.grad`` of all parameters; returns the weights ``[T]`` if the aggregator has such.

        A task without labels has a zero row; aggregators that are a weighted sum leave it out altogether.
        """
        if len(losses) == 1 or not context.shared:
            return _plain_backward(losses)
        roots = loss_roots(losses)
        # Factors belong to the inputs of one batch: those of several parts or processes cannot be added up.
        whole = context.parts == 1 and context.average is None
        if whole and self.factored and isinstance(self.aggregator, WeightedAggregator) and self.aggregator.statistic == "gramian":
            layers = find_layers(roots, context.shared)
            if layers:
                return self._backward_factored(self.aggregator, layers, roots, losses, context)
        rows = self._prepare(context.shared, len(losses))
        last = _last(roots)
        # The first part overwrites what the last step left, later parts add to it.
        with rows.recording(add=context.part > 0) as into_row:
            for index, root in enumerate(roots):
                with into_row(index):
                    if root is not None:
                        backward_from(root, losses, retain_graph=index != last)
        # Rows are complete only after the last part of the batch.
        if context.part < context.parts - 1:
            return None
        with torch.no_grad():
            matrix = rows.matrix if context.average is None else context.average(rows.matrix)
            # Labels that this part or process lacks may be in another one: then the rows tell, not the losses.
            present = present_tasks(losses, matrix) if whole else matrix.any(dim=1)
            direction, weights = self.aggregator.combine_(matrix, present)
            rows.add_to_gradients(direction)
        return weights

    def _backward_factored(
        self,
        aggregator: WeightedAggregator,
        layers: Sequence[FactoredLayer],
        roots: Sequence[Root | None],
        losses: Tensor,
        context: BackwardContext,
    ) -> Tensor:
        inside = {id(parameter) for layer in layers for parameter in (layer.weight, layer.bias)}
        others = [parameter for parameter in context.shared if id(parameter) not in inside]
        rows = self._prepare(others, len(losses)) if others else None
        if rows is not None:
            # Gradients handed out in the last step may be views of this buffer, and `write` is about to overwrite it.
            rows.release()
        # Half precision is widened: inner products in it would overflow, or lose small terms.
        outputs = self._layer_buffers(layers, len(losses), torch.promote_types(losses.dtype, torch.float32))
        edges, last = [layer.edge for layer in layers], _last(roots)
        for index, root in enumerate(roots):
            own = context.owned[index]
            found: Sequence[Tensor | None] = [None] * (len(others) + len(own) + len(edges))
            if root is not None:
                found = gradients_from(root, [*others, *own, *edges], losses, retain_graph=index != last)
            with torch.no_grad():
                if rows is not None:
                    rows.write(index, found[: len(others)])
                add_gradients(own, found[len(others) : len(others) + len(own)])
                for layer, output, gradient in zip(layers, outputs, found[len(others) + len(own) :], strict=True):
                    layer.write(output[index], gradient)
            # The layers' output gradients are large; freed before the next pass makes new ones.
            del found
        with torch.no_grad():
            # Inner products of the whole gradient are the sum over layers, kept as factors or not.
            products = torch.zeros(len(losses), len(losses), dtype=torch.float64, device=losses.device)
            if rows is not None:
                products += gramian(rows.matrix)
            for layer, output in zip(layers, outputs, strict=True):
                products += layer.inner_products(output)
            aggregator.precision = losses.dtype
            weights = aggregator.weigh(products, present_tasks(losses, products)).to(losses.dtype)
            for layer, output in zip(layers, outputs, strict=True):
                sums = layer.weighted_sum(output, weights)
                add_gradients([parameter for parameter, _ in sums], [gradient for _, gradient in sums])
            if rows is not None:
                rows.add_to_gradients(combine_rows_(rows.matrix, weights.to(rows.matrix.dtype)))
        return weights

    def _layer_buffers(self, layers: Sequence[FactoredLayer], num_tasks: int, dtype: torch.dtype) -> list[Tensor]:
        """Return ``[T, N, O]`` for every layer, views of one buffer that lives on between steps."""
        sizes = [num_tasks * layer.size for layer in layers]
        buffer, device = self._outputs, layers[0].weight.device
        if buffer is None or buffer.numel() < sum(sizes) or buffer.dtype != dtype or buffer.device != device:
            # Drops the old buffer first, so that two of them are never alive together.
            self._outputs = None
            self._outputs = buffer = torch.empty(sum(sizes), dtype=dtype, device=device)
        parts = buffer[: sum(sizes)].split(sizes)
        return [part.view(num_tasks, *layer.shape) for part, layer in zip(parts, layers, strict=True)]

    def _prepare(self, shared: Sequence[nn.Parameter], num_tasks: int) -> GradientRows:
        if self._rows is None or not self._rows.fits(shared, num_tasks):
            self._rows = None  # gives the old buffer back before the new one is made
            self._rows = GradientRows(shared, num_tasks)
        return self._rows


class RepresentationBalancer(_AggregatingBalancer):
    """Aggregates gradients of the shared representation, then runs one backward pass through the trunk.

    The cost hardly grows with the number of tasks. Shared parameters above the representation (a decoder of several tasks, say)
    get the plain sum of their tasks' gradients. Over several processes, inner products are added up, so that aggregators that
    look at nothing else get those of the whole batch; others cannot be used there.

    Args:
        aggregator: From ``[T, B * D]`` to ``[B * D]``, where ``B * D`` is the size of the representation of a batch.
    """

    parallel = True

    def __init__(self, aggregator: Aggregator | Callable[[Tensor], Tensor]) -> None:
        super().__init__(aggregator)
        self._buffer: Tensor | None = None

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Add gradients to ``.grad`` of all parameters; returns the weights ``[T]`` if the aggregator has such.

        Raises:
            ConfigError: If the model has no representation that all tasks share, or several processes meet an aggregator that
                needs more than inner products.
        """
        representation = context.representation
        if representation is None:
            raise ConfigError(
                "Balancing gradients of the representation needs a model in which all tasks share one; this model has none. "
                "Take mode 'parameters', or another sharing operator."
            )
        if len(losses) == 1 or not representation.requires_grad:
            return _plain_backward(losses)
        matrix = self._matrix(len(losses), representation)
        roots = loss_roots(losses)
        # Shared parameters that the representation does not depend on get no gradient from the pass through the trunk.
        above = outside_of(representation, context.shared)
        entries = task_entries(roots, representation)
        if entries is None:
            _fill_task_by_task(matrix, roots, losses, representation, context.owned, above)
        else:
            _fill_at_once(
                matrix, entries, losses, representation, [parameter for own in context.owned for parameter in own] + above
            )
        with torch.no_grad():
            if context.average is None:
                direction, weights = self.aggregator.combine_(matrix, present_tasks(losses, matrix))
            else:
                weights = self._weigh_over_processes(matrix, context)
                direction = combine_rows_(matrix, weights)
        # The chain rule is linear: one pass of the combined gradient equals the combination of the tasks' passes.
        torch.autograd.backward([representation], [direction.view_as(representation)])
        return weights

    def _weigh_over_processes(self, matrix: Tensor, context: BackwardContext) -> Tensor:
        if not (isinstance(self.aggregator, WeightedAggregator) and self.aggregator.statistic == "gramian"):
            raise ConfigError(
                "This aggregator looks at more than inner products of gradients; over several processes take "
                "mode 'parameters' for it."
            )
        assert context.average is not None
        # The batch's gradient of a row is a process' own one over the number of processes; rows of all processes lie side by
        # side.
        products = context.average(gramian(matrix)) / context.processes
        self.aggregator.precision = matrix.dtype
        return self.aggregator.weigh(products, products.diagonal() != 0).to(matrix.dtype)

    def _matrix(self, num_tasks: int, representation: Tensor) -> Tensor:
        size = num_tasks * representation.numel()
        buffer, device = self._buffer, representation.device
        if buffer is None or buffer.numel() < size or buffer.dtype != representation.dtype or buffer.device != device:
            self._buffer = buffer = torch.empty(size, dtype=representation.dtype, device=device)
        return buffer[:size].view(num_tasks, -1)


def _fill_at_once(
    matrix: Tensor, entries: list[list[tuple[Node, int]]], losses: Tensor, representation: Tensor, parameters: list[nn.Parameter]
) -> None:
    """One pass of the summed losses down to the representation; hooks catch each task's part before the parts are added up."""
    matrix.zero_()
    rows = [row.view_as(representation) for row in matrix]

    def catch(row: Tensor, index: int) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], None]:
        def hook(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
            # The node's gradient with respect to this input, before autograd adds up the inputs of all readers.
            part = inputs[index]
            if part is not None:
                # Added, since a task may read the representation in several places.
                row.add_(part)

        return hook

    handles = [node.register_hook(catch(rows[task], index)) for task, found in enumerate(entries) for node, index in found]
    try:
        # The graph is kept: the trunk's part of it is still needed for the combined pass.
        gradients = torch.autograd.grad(losses.sum(), [representation, *parameters], retain_graph=True, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    add_gradients(parameters, gradients[1:])


def _fill_task_by_task(
    matrix: Tensor,
    roots: Sequence[Root | None],
    losses: Tensor,
    representation: Tensor,
    owned: Sequence[Sequence[nn.Parameter]],
    above: list[nn.Parameter],
) -> None:
    """One pass per task from its loss to the representation."""
    matrix.zero_()
    for index, root in enumerate(roots):
        if root is None:
            continue
        parameters = [*owned[index], *above]
        found = gradients_from(root, [representation, *parameters], losses)
        with torch.no_grad():
            if found[0] is not None:
                matrix[index].view_as(representation).copy_(found[0])
            add_gradients(parameters, found[1:])


def _last(roots: Sequence[Root | None]) -> int:
    """Return the last task that has a pass, after which the graph may go."""
    return max((index for index, root in enumerate(roots) if root is not None), default=-1)


def _plain_backward(losses: Tensor) -> Tensor:
    total = losses.sum()
    if total.requires_grad:
        total.backward()
    return torch.ones_like(losses.detach())
