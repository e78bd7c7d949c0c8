"""The autograd graph behind a vector of losses: where each task's own part begins, and what the shared part reaches.

``losses[t].backward()`` of stacked losses sends zeros through the heads of all other tasks as well: ``T`` passes then cost ``T``
times all heads. Starting at the edge that leads into the stack keeps each pass to its own task.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

__all__ = ["Root", "add_gradients", "backward_from", "gradients_from", "loss_roots", "outside_of", "task_entries"]

Root: TypeAlias = "Tensor | GradientEdge"
"""Where a backward pass starts, or a place in the graph that it passes."""


@functools.cache
def _starts_at_edges() -> bool:
    """Whether this version of torch can start a backward pass at an edge."""
    leaf = torch.zeros((), requires_grad=True)
    stacked = torch.stack([leaf * 2.0, leaf * 3.0])
    assert stacked.grad_fn is not None
    try:
        # Tried out, not read from a version number.
        node, output = stacked.grad_fn.next_functions[1]
        assert node is not None
        torch.autograd.backward([GradientEdge(node, output)], [torch.ones(())])
    except (TypeError, AttributeError, RuntimeError):
        return False
    return leaf.grad is not None and float(leaf.grad) == 3.0


def loss_roots(losses: Tensor) -> list[Root | None]:
    """Return where the backward pass of each loss starts; None for a loss without gradient.

    Args:
        losses: ``[T]``, best made by ``torch.stack`` as the last operation; anything else works too, with more work per pass.
    """
    if losses.grad_fn is None:
        return [losses[index] if losses.requires_grad else None for index in range(len(losses))]
    edges = losses.grad_fn.next_functions
    # Edges of a stack lead straight to each loss. An index of the stack would send zeros through all other tasks.
    if losses.grad_fn.name() == "StackBackward0" and len(edges) == len(losses) and _starts_at_edges():
        return [None if node is None else GradientEdge(node, output) for node, output in edges]
    return [losses[index] for index in range(len(losses))]


def backward_from(root: Root, like: Tensor, *, retain_graph: bool) -> None:
    """Add gradients of one loss to ``.grad`` of all leaves; ``like`` gives dtype and device of the loss."""
    torch.autograd.backward([root], [like.new_ones(())], retain_graph=retain_graph)  # type: ignore[arg-type, unused-ignore]


@torch.no_grad()
def add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    """Add what ``torch.autograd.grad`` returned to ``.grad``.

    It may return one tensor, or views of one memory, for several parameters (of ``first + second``, say). Each parameter gets
    memory of its own, since gradients are added to, scaled and clipped in place.

    Args:
        parameters: Leaves.
        gradients: One for each; None counts as zero. They must not be written to afterwards.
    """
    taken: set[int] = set()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            parameter.grad.add_(gradient)
            continue
        memory = id(gradient) if gradient.is_sparse else gradient.untyped_storage().data_ptr()
        # An expanded gradient holds one number for many entries.
        is_own = memory not in taken and (gradient.is_sparse or 0 not in gradient.stride())
        taken.add(memory)
        parameter.grad = gradient if is_own else gradient.clone()


def gradients_from(
    root: Root, inputs: Sequence[Root], like: Tensor, *, retain_graph: bool = True, create_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """Return the gradients of one loss with respect to ``inputs``, tensors or places in the graph; None where it does not depend
    on one."""
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        [root],  # type: ignore[arg-type, unused-ignore]
        list(inputs),  # type: ignore[arg-type, unused-ignore]
        [like.new_ones(())],
        retain_graph=retain_graph,
        create_graph=create_graph,
        allow_unused=True,
    )
    return gradients


def outside_of(tensor: Tensor, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Return those ``parameters`` that ``tensor`` was not computed from, in order."""
    # The representation itself can be a parameter.
    leaves: set[int] = {id(tensor)}
    pending = [] if tensor.grad_fn is None else [tensor.grad_fn]
    seen = set(pending)
    while pending:
        node = pending.pop()
        variable = getattr(node, "variable", None)  # only AccumulateGrad nodes, the ends of a graph, have one
        if variable is not None:
            leaves.add(id(variable))
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                pending.append(child)
    return [parameter for parameter in parameters if id(parameter) not in leaves]


def task_entries(roots: Sequence[Root | None], representation: Tensor) -> list[list[tuple[Node, int]]] | None:
    """Return for each task where its part of the graph reads the representation: nodes, and which of their inputs it is.

    What a backward pass of the summed losses computes for these inputs are the per-task gradients, before they are added up.

    Returns:
        None if tasks share operations above the representation, or the losses are not stacked: then each task needs a pass of
            its own.
    """
    target, output = representation.grad_fn, representation.output_nr
    if target is None:
        return None
    owner: dict[Node, int] = {}
    entries: list[list[tuple[Node, int]]] = []
    for task, root in enumerate(roots):
        entries.append([])
        if root is None:
            continue
        if not isinstance(root, GradientEdge):
            return None
        pending = [root.node]
        while pending:
            node = pending.pop()
            # A loss read off the representation directly has no node of its own; a node of two tasks mixes their gradients.
            if node is target or owner.get(node, task) != task:
                return None
            if node in owner:
                continue
            owner[node] = task
            for index, (child, number) in enumerate(node.next_functions):
                # Stops here: below lies the trunk, which all tasks share.
                if child is target and number == output:
                    entries[task].append((node, index))
                elif child is not None and not hasattr(child, "variable"):  # leaves may be shared
                    pending.append(child)
    return entries
