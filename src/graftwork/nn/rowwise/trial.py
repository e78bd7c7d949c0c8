"""Whether modules of a model can be computed row by row: tried once for each of them, on two rows, together and alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graftwork.nn.rowwise.layer import RowwiseLayer, first_tensor
from graftwork.nn.rowwise.selection import RowSelection

__all__ = ["Inputs", "rows_of", "try_layers"]

Inputs = Tensor | Mapping[str, Tensor]
"""What a model takes: a tensor, or named ones; the first dimension of each runs over the rows."""
_Call = tuple[dict[int | str, Any], Tensor | None]
_ROWS = 2


def rows_of(inputs: Inputs, index: Tensor | slice) -> Inputs:
    """Return some rows of a model's inputs."""
    if isinstance(inputs, Tensor):
        return inputs[index]
    return {name: tensor[index] for name, tensor in inputs.items()}


@torch.no_grad()
def try_layers(
    model: Callable[[Inputs], Any], layers: Iterable[RowwiseLayer], selection: RowSelection, example: Inputs
) -> dict[RowwiseLayer, str]:
    """Set which arguments of each layer run over the rows and which are constant, and return why a layer cannot be used, empty if it can.

    Args:
        model: Holds the layers.
        layers: Those that are new.
        selection: That of the layers.
        example: Two rows that differ.
    """
    wanted = list(layers)
    together = _calls(model, wanted, selection, example)
    alone = [_calls(model, wanted, selection, rows_of(example, slice(row, row + 1))) for row in range(_ROWS)]
    return {layer: _judge(layer, together[layer], [calls[layer] for calls in alone]) for layer in wanted}


def _calls(
    model: Callable[[Inputs], Any], layers: Sequence[RowwiseLayer], selection: RowSelection, inputs: Inputs
) -> dict[RowwiseLayer, list[_Call]]:
    found: dict[RowwiseLayer, list[_Call]] = {layer: [] for layer in layers}

    def note(layer: RowwiseLayer, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        if layer in found:
            given: dict[int | str, Any] = dict(enumerate(arguments))
            given.update(keywords)
            # Copies: layers behind may work in place.
            copies = {name: value.clone() if isinstance(value, Tensor) else value for name, value in given.items()}
            answer = first_tensor(output)
            found[layer].append((copies, answer.clone() if isinstance(answer, Tensor) else None))

    selection.trace = note
    try:
        model(inputs)
    finally:
        selection.trace = None
    return found


def _judge(layer: RowwiseLayer, together: Sequence[_Call], alone: Sequence[Sequence[_Call]]) -> str:
    if not together:
        return "is never called: another module reads its weights"
    if any(len(calls) != len(together) for calls in alone):
        return "is called another number of times for other batches"
    kinds: set[tuple[frozenset[int | str], frozenset[int | str]]] = set()
    for number, (given, output) in enumerate(together):
        singles = [calls[number] for calls in alone]
        if output is None or not _by_row(output, [one for _, one in singles]):
            return "returns something else than one tensor with the rows of the batch in order"
        by_row, constant = set[int | str](), set[int | str]()
        for name, value in given.items():
            own = [arguments.get(name) for arguments, _ in singles]
            if _by_row(value, own):
                by_row.add(name)
            elif not _is_constant(value, own):
                return f"takes an argument ({name}) that has not the rows of the batch in order"
            elif isinstance(value, Tensor):
                constant.add(name)
        kinds.add((frozenset(by_row), frozenset(constant)))
    if len(kinds) != 1 or 0 not in next(iter(kinds))[0]:
        return "does not take the rows of the batch as its first argument"
    layer.by_row, layer.constant = next(iter(kinds))
    return ""


def _by_row(value: Any, alone: Sequence[Any]) -> bool:
    if not isinstance(value, Tensor) or value.ndim == 0 or not all(isinstance(one, Tensor) for one in alone):
        return False
    per_row = alone[0].shape[0] if alone[0].ndim else 0
    shapes = {one.shape for one in alone}
    if len(shapes) != 1 or value.shape != (_ROWS * per_row, *alone[0].shape[1:]) or not per_row:
        return False
    return _close(value, torch.cat(list(alone)))


def _is_constant(value: Any, alone: Sequence[Any]) -> bool:
    if isinstance(value, Tensor):
        return all(isinstance(one, Tensor) and one.shape == value.shape and _close(value, one) for one in alone)
    # Numbers, flags, nothing; collections may hold tensors that nobody would cut.
    return not isinstance(value, list | tuple | dict) and all(type(one) is type(value) for one in alone)


def _close(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    # Rounding depends on the size of a batch, and grows with the depth.
    scale = float(other.abs().amax()) if other.numel() and bool(other.isfinite().all()) else 1.0
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * max(scale, 1e-6), equal_nan=True)
