"""One model, many deltas, and batches whose rows are computed with a delta each.

What is loaded and not asked costs memory alone: loading touches what the new delta changes, and a forward pass looks up the
deltas of its rows. Nothing is switched: which delta a row gets is an argument.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.interfaces.delta import Delta
from graftwork.nn.delta_set import DeltaSet
from graftwork.nn.foldable import plain_module, put_module
from graftwork.nn.rowwise.forms import NotRowwiseError, Place, row_parts, shared_tensors
from graftwork.nn.rowwise.layer import RowwiseLayer, RowwisePart
from graftwork.nn.rowwise.selection import RowSelection, Segment
from graftwork.nn.rowwise.trial import Inputs, rows_of, try_layers

__all__ = ["RowwiseDeltas"]


class RowwiseDeltas:
    """A model in evaluation mode and named deltas; each row of a batch says which delta it is computed with.

    All rows run in one forward pass. Deltas that have no row-wise form run in a pass of their own each, with the delta attached:
    side networks, which answer for the whole model, and changes of tensors that no module of the model reads row by row
    (:meth:`own_pass` says which, and why). For inference: no gradients. One batch at a time; further threads wait.

    Args:
        model: The base, in which nothing is attached; layers are put into it, which change nothing without deltas. It takes one
            argument and returns a tensor with the rows of the batch.
        example: Inputs of two rows that differ, on which new places are tried once.
        check: Whether deltas of another base are refused.

    Example:
        >>> from graftwork.nn.weight_delta import LowRank, WeightDelta
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> _ = model[0].weight.data.copy_(torch.eye(2))
        >>> deltas = RowwiseDeltas(model, torch.randn(2, 2))
        >>> part = LowRank(torch.tensor([[1.0, 0.0]]), torch.tensor([[10.0], [0.0]]))
        >>> deltas.add("a", WeightDelta({"0.weight": part}, {"0.weight": torch.Size([2, 2])}))
        >>> deltas(torch.ones(3, 2), ["a", None, "a"]).tolist()
        [[11.0, 1.0], [1.0, 1.0], [11.0, 1.0]]
    """

    def __init__(self, model: nn.Module, example: Inputs, *, check: bool = True) -> None:
        self.model = model.eval()
        self._example = example
        self._all = DeltaSet(model, check=check)
        # Once: a look at all tensors for each delta would take as long as the rest of loading it.
        self._shared = shared_tensors(model)
        self._selection = RowSelection()
        self._layers: dict[Place, RowwiseLayer] = {}
        self._unfit: dict[Place, str] = {}
        self._own_pass: dict[str, str] = {}
        self._places: dict[str, tuple[Place, ...]] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, name: object) -> bool:
        return name in self._all

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all deltas, in the order in which they were added."""
        return self._all.names

    def own_pass(self, name: str) -> str:
        """Return why a delta runs in a pass of its own; empty if it shares the pass of the others."""
        self._check(name)
        return self._own_pass.get(name, "")

    def add(self, name: str, delta: Delta) -> None:
        """Load a delta.

        Raises:
            ConfigError: If the name is taken, or the delta belongs to another base; the message names what differs.
        """
        with self._lock:
            self._all.add(name, delta)
            try:
                parts = row_parts(delta, self.model, self._shared)
                self._make_places(parts)
                for place in parts:
                    if place in self._unfit:
                        raise NotRowwiseError(f"{place[0]!r} {self._unfit[place]}")
            except NotRowwiseError as reason:
                self._own_pass[name] = str(reason)
                return
            except BaseException:
                self._all.remove(name)
                raise
            for place, part in parts.items():
                self._layers[place].parts[name] = part
            self._places[name] = tuple(parts)

    def remove(self, name: str) -> Delta:
        """Take a delta out and return it.

        Raises:
            ConfigError: If there is no such delta.
        """
        with self._lock:
            self._check(name)
            for place in self._places.pop(name, ()):
                del self._layers[place].parts[name]
            self._own_pass.pop(name, None)
            return self._all.remove(name)

    @torch.no_grad()
    def __call__(self, inputs: Inputs, names: Sequence[str | None]) -> Tensor:
        """Return what the model computes for a batch.

        Args:
            inputs: As the model takes them; the first dimension of each tensor runs over the rows.
            names: The delta of each row; None is the base alone. Rows of one delta that are neighbours are computed together, so
                that sorted batches are a little faster.

        Raises:
            ConfigError: If a name is unknown, or there is not one for each row.
        """
        some = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
        if len(names) != some.shape[0] or not names:
            raise ConfigError(
                f"A batch of {some.shape[0]} rows needs the name of a delta for each, and one row at least; got {len(names)}."
            )
        with self._lock:
            # While the model was in use a delta may have been taken out.
            for name in dict.fromkeys(names):
                self._check(name)
            return self._run(inputs, names)

    def _run(self, inputs: Inputs, names: Sequence[str | None]) -> Tensor:
        together = [row for row, name in enumerate(names) if name not in self._own_pass]
        apart: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            if name is not None and name in self._own_pass:
                apart.setdefault(name, []).append(row)
        # Rows of one delta become neighbours, in the order in which the deltas first come.
        first = {name: place for place, name in reversed(list(enumerate(names)))}
        together.sort(key=lambda row: first[names[row]])
        order, outputs = [*together, *(row for rows in apart.values() for row in rows)], []
        if together:
            with self._selection.using(list(_segments([names[row] for row in together]))):
                outputs.append(self.model(_taken(inputs, together, len(names))))
        for name, rows in apart.items():
            with self._all.using(name):
                outputs.append(self.model(_taken(inputs, rows, len(names))))
        joined: Tensor = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        if order == sorted(order):
            return joined
        back = torch.empty(len(order), dtype=torch.int64)
        back[torch.tensor(order)] = torch.arange(len(order))
        return joined[back.to(joined.device)]

    def _make_places(self, parts: Mapping[Place, RowwisePart]) -> None:
        """Put layers at the places where there are none yet, and take those out again that cannot be used."""
        new: dict[Place, RowwiseLayer] = {}
        for name, depth in sorted(parts):
            # From the inside out: a graft stands around the layer's own tensors, whichever delta comes first.
            for place in ((name, number) for number in range(depth + 1)):
                if place in self._layers or place in new or place in self._unfit:
                    continue
                present = plain_module(self.model, name)
                new[place] = RowwiseLayer(self.model.get_submodule(present), self._selection).eval()
                put_module(self.model, present, new[place])
        if not new:
            return
        try:
            reasons = try_layers(self.model, new.values(), self._selection, self._example)
        except BaseException:
            self._take_out(new)
            raise
        unfit = {place: layer for place, layer in new.items() if reasons[layer]}
        self._take_out(unfit)
        self._unfit |= {place: reasons[layer] for place, layer in unfit.items()}
        self._layers |= {place: layer for place, layer in new.items() if place not in unfit}

    def _take_out(self, layers: Mapping[Place, RowwiseLayer]) -> None:
        for (name, _), layer in sorted(layers.items(), key=lambda item: item[0], reverse=True):
            present = plain_module(self.model, name)
            if self.model.get_submodule(present) is layer:
                put_module(self.model, present, layer.base)

    def _check(self, name: str | None) -> None:
        if name is not None and name not in self._all:
            known = list(self._all.names)
            shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            raise ConfigError(f"There is no delta called {name!r}.{did_you_mean(name, known)} Loaded are: {shown or 'none'}.")


def _taken(inputs: Inputs, rows: Sequence[int], size: int) -> Inputs:
    if list(rows) == list(range(size)):
        return inputs
    return rows_of(inputs, torch.tensor(rows))


def _segments(names: Sequence[str | None]) -> Iterator[Segment]:
    start = 0
    for stop in range(1, len(names) + 1):
        if stop == len(names) or names[stop] != names[start]:
            yield Segment(names[start], start, stop)
            start = stop
