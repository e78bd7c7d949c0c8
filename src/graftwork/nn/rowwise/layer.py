"""The seam of row-wise deltas: a layer around a module of the base, and what each delta does there to its own rows.

:class:`AddingPart` changes rows that the base has computed, all rows of a batch at once (low-rank updates, biases, adapters).
:class:`ReplacingPart` computes its rows in place of the base (other norms, dense weights, prompts): the base is then called for
the other rows alone. So a batch is never computed twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import GraftworkError
from graftwork.nn.foldable import WrappingLayer
from graftwork.nn.rowwise.selection import RowSelection, Segment

__all__ = ["AddingPart", "ReplacingPart", "RowwiseLayer", "RowwisePart", "first_tensor"]


class AddingPart(ABC):
    """Changes what the base has computed for some rows."""

    @abstractmethod
    def add_(self, inputs: Tensor, outputs: Tensor) -> None:
        """Change ``outputs`` in place.

        Args:
            inputs: First argument of the base, these rows only.
            outputs: What the base returned for them.
        """


class ReplacingPart(ABC):
    """Computes some rows in place of the base."""

    @abstractmethod
    def answer(self, base: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """Return what the tuned module returns for these rows.

        Args:
            base: The module of the base.
            arguments: Its arguments, these rows only.
            keywords: Likewise.
        """


RowwisePart = AddingPart | ReplacingPart


class RowwiseLayer(WrappingLayer):
    """A module of the base, and the parts of all deltas that change it.

    Args:
        base: What it stands around.
        selection: Says which rows of the present batch are whose; shared by all layers of a model.

    A forward pass looks up the deltas of the batch, never those that are only loaded.
    """

    def __init__(self, base: nn.Module, selection: RowSelection) -> None:
        super().__init__()
        self.base = base
        self.selection = selection
        self.parts: dict[str | None, RowwisePart] = {}
        """By name of the delta."""
        self.by_row: frozenset[int | str] = frozenset()
        """Arguments, by position or keyword, whose first dimension was seen to run over the rows of the batch."""
        self.constant: frozenset[int | str] = frozenset()
        """Tensors that were seen to be the same for all rows."""

    def __getattr__(self, name: str) -> Any:
        """Return the base's attributes, for code that reads a layer's sizes or weights in place of calling it."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the base returns, with the rows of each delta as that delta has them."""
        selection = self.selection
        if selection.trace is not None:
            output = self.base(*arguments, **keywords)
            selection.trace(self, arguments, keywords, output)
            return output
        own = [(part, item) for item in selection.segments if (part := self.parts.get(item.name)) is not None]
        if not own:
            return self.base(*arguments, **keywords)
        if any(isinstance(part, ReplacingPart) for part, _ in own):
            return self._in_runs(arguments, keywords)
        return self._added(own, arguments, keywords)

    def _added(self, own: Sequence[tuple[RowwisePart, Segment]], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        output = self.base(*arguments, **keywords)
        inputs, states = arguments[0], first_tensor(output)
        if states.untyped_storage().data_ptr() == inputs.untyped_storage().data_ptr():
            # Modules that do nothing return their input, which others still read.
            states = states.clone()
            output = states if isinstance(output, Tensor) else (states, *output[1:])
        for part, item in own:
            assert isinstance(part, AddingPart)
            part.add_(self._rows(inputs, item.start, item.stop), self._rows(states, item.start, item.stop))
        return output

    def _in_runs(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """Return the outputs of all segments, neighbours that the base computes together."""
        runs: list[tuple[ReplacingPart | None, list[Segment]]] = []
        for item in self.selection.segments:
            part = self.parts.get(item.name)
            alone = part if isinstance(part, ReplacingPart) else None
            if alone is None and runs and runs[-1][0] is None:
                runs[-1][1].append(item)
            else:
                runs.append((alone, [item]))
        outputs = []
        for alone, items in runs:
            # Before the selection is narrowed: rows are counted in the whole batch.
            some, named = self._sliced(arguments, keywords, items[0].start, items[-1].stop)
            with self.selection.narrowed(items):
                if alone is not None:
                    outputs.append(alone.answer(self.base, some, named))
                else:
                    outputs.append(self.forward(*some, **named))
        return _joined(outputs)

    def _sliced(
        self, arguments: tuple[Any, ...], keywords: Mapping[str, Any], start: int, stop: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        some = tuple(self._cut(place, value, start, stop) for place, value in enumerate(arguments))
        return some, {name: self._cut(name, value, start, stop) for name, value in keywords.items()}

    def _cut(self, place: int | str, value: Any, start: int, stop: int) -> Any:
        if not isinstance(value, Tensor) or place in self.constant:
            return value
        # What was no tensor when the place was tried (a mask that hid nothing, say) goes by its size.
        if place in self.by_row or (value.ndim and value.shape[0] == self.selection.size):
            return self._rows(value, start, stop)
        if value.ndim and value.shape[0] > 1:
            raise GraftworkError(
                f"The argument {place!r} of a {type(self.base).__name__} has {value.shape[0]} entries in a batch of "
                f"{self.selection.size} rows, and was not there when the place was tried. Give an example with it."
            )
        return value

    def _rows(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """Return the part of a tensor that belongs to some rows; each may have several entries (windows of a picture)."""
        size = self.selection.size
        if start == 0 and stop == size:
            return tensor
        per_row = tensor.shape[0] // size
        return tensor[start * per_row : stop * per_row]


def first_tensor(output: Any) -> Tensor:
    """Return a module's output, or the first one of several."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def _joined(outputs: Sequence[Any]) -> Any:
    if len(outputs) == 1:
        return outputs[0]
    if isinstance(outputs[0], tuple):
        columns = zip(*outputs, strict=True)
        return tuple(torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in columns)
    return torch.cat(list(outputs))
