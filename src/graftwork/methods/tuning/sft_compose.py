"""Lottery-ticket sparse fine-tuning: the weights that full tuning moves most are found, put back, and tuned again by themselves.

Paper: Ansell et al., "Composable Sparse Fine-Tuning for Cross-Lingual Transfer", ACL 2022, https://arxiv.org/abs/2110.07560 (code:
cambridgeltl/composable-sft). Sums of such differences are made in :mod:`graftwork.methods.tuning.sft_transfer`.

The two phases are two tunings from the same start, each with an optimiser, a schedule and a head of its own, so that everything is
rewound between them:

1. ``select="all"``: all weights learn, from ``theta_start`` to ``theta_1``.
2. ``select="most-changed"``: the ``k`` weights with the largest ``|theta_1 - theta_start|`` learn, counted over all tensors together.
   ``changes`` is the delta of the first phase.

``theta_start`` is the base, plus ``start``: a task is learned on top of the difference of its own language. Further rounds go on from
the delta of the round before (``previous``): its weights stay chosen, and ``k`` more are.

Weights are those of linear layers, convolutions and embeddings, with their biases. Norms and everything else stay frozen in both
phases, and heads are no part of a backbone. ``select="random"`` is the control with weights that are drawn.

Departures: chosen weights are parameters of their own in place of a mask on gradients; exactly ``k`` are chosen, also where magnitudes
are equal; weight decay draws all changes of the first phase to zero, not weights, and spares those of the second phase; parameters that
lie in other layers (class tokens, learned positions that are no embedding) stay frozen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.math.largest_places import largest_places, random_places
from graftwork.nn.changed_weights import ChangedWeights
from graftwork.nn.delta_base import check_base
from graftwork.nn.delta_parts import Dense, Part, Sparse
from graftwork.nn.foldable import fold_layers, plain_module, plain_state, put_module
from graftwork.nn.freeze import fix_mode, is_batch_norm, release_mode
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["LEAST_CHANGE", "Select", "SparseFineTuning"]

Select = Literal["all", "most-changed", "random"]
LEAST_CHANGE = 1e-7
"""Changes up to this magnitude are not stored."""
_LAYERS = (nn.Linear, nn.Embedding, nn.modules.conv._ConvNd)


class SparseFineTuning(Tuner):
    """One phase of lottery-ticket sparse fine-tuning; see this module's docstring.

    Args:
        select: Which weights learn.
        k: How many are selected: a count, or, below 1, a share of all that could be.
        changes: Delta of the first phase, or its file; needed by ``"most-changed"`` alone.
        start: Difference that is part of the start (of the source language), or its file; empty starts from the base.
        previous: Delta of the round before, or its file; empty is the first round.
        seed: Draws random weights.

    Raises:
        ConfigError: If a setting is out of range, or ``changes`` is not needed; on :meth:`attach`, if it is missing, the model has no
            layer of the kinds, a delta belongs to another base, or there are fewer than ``k`` weights.
    """

    def __init__(
        self,
        *,
        select: Select = "most-changed",
        k: float = 0.05,
        changes: str | Path | WeightDelta = "",
        start: str | Path | WeightDelta = "",
        previous: str | Path | WeightDelta = "",
        seed: int = 0,
    ) -> None:
        if select not in get_args(Select):
            raise ConfigError(f"`select` must be one of {', '.join(get_args(Select))}; got {select!r}.")
        if not (math.isfinite(k) and k > 0 and (k < 1 or k == int(k))):
            raise ConfigError(f"`k` must be a count of weights, or a share between 0 and 1; got {k!r}.")
        if changes and select != "most-changed":
            raise ConfigError(f"`changes` says which weights change most; select={select} has no use for it. Leave it out.")
        self.select, self.k, self.seed = select, k, seed
        self.changes, self.start, self.previous = changes, start, previous
        self.layers: dict[str, ChangedWeights] = {}
        """The attached layers by plain name."""
        self._model: nn.Module | None = None
        self._start: WeightDelta | None = None
        self._folded = False

    def attach(self, model: nn.Module) -> None:
        """Freeze ``model`` and put layers whose weights learn into the places of its own; with a start, it computes with that."""
        if self._model is not None:
            raise ConfigError("This SparseFineTuning is attached to a model already; make one tuner a model.")
        if self.select == "most-changed" and not self.changes:
            raise ConfigError(
                "Sparse fine-tuning takes two tunings: one with select=all (graftwork tune --method sft-full), whose delta says which "
                "weights change most, and one with changes=FILE, that delta's. `changes` is missing."
            )
        state = plain_state(model)
        tensors = maskable(model)
        start = _expand(_read(self.start, state), tensors, "start")
        earlier = _measured(_read(self.previous, state), start, tensors, "previous")
        held = {name: (tensor.abs() > LEAST_CHANGE).flatten().nonzero().flatten() for name, tensor in earlier.items()}
        places = self._places(state, tensors, start, held)
        model.requires_grad_(False)
        for module in model.modules():
            if is_batch_norm(module):
                fix_mode(module)
        for name in dict.fromkeys(item.rpartition(".")[0] for item in (*places, *start)):
            own = [item for item in tensors if item.rpartition(".")[0] == name]

            def of_layer(mapping: Mapping[str, Tensor], own: list[str] = own) -> dict[str, Tensor]:
                return {item.rpartition(".")[2]: mapping[item] for item in own if item in mapping}

            layer = ChangedWeights(
                model.get_submodule(plain_module(model, name)),
                {item.rpartition(".")[2]: places[item] for item in own if item in places},
                start=of_layer(start),
                begin=of_layer(earlier),
            )
            put_module(model, plain_module(model, name), layer)
            self.layers[name] = layer
        self._model, self._start = model, _read(self.start, state)

    def _places(
        self, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], start: Mapping[str, Tensor], held: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor | None]:
        if self.select == "all":
            return dict.fromkeys(tensors)
        total = sum(tensor.numel() for tensor in tensors.values())
        count = int(self.k) if self.k >= 1 else max(1, round(self.k * total))
        if self.select == "random":
            generator = torch.Generator().manual_seed(self.seed)
            sizes = {name: tensor.numel() for name, tensor in tensors.items()}
            found = random_places(sizes, count, generator, besides=held)
        else:
            moved = _measured(_read(self.changes, state), start, tensors, "changes")
            # What a file leaves out has not moved.
            found = largest_places(
                {name: moved.get(name, torch.zeros_like(tensor)) for name, tensor in tensors.items()}, count, besides=held
            )
        names = [name for name in tensors if name in found or name in held]
        parts = {name: [item[name] for item in (found, held) if name in item] for name in names}
        return {name: torch.cat(some).sort().values for name, some in parts.items()}

    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the changes, tensor by tensor."""
        for layer in self.layers.values():
            yield from layer.changes.values()

    def delta(self, model: nn.Module | None = None) -> WeightDelta:
        """Return the difference from the base, the start included, sparse unless all weights learn; see :class:`.Tuner`."""
        own = self.learned(model)
        if self._start is None:
            return own
        total = self._start + own
        total.lineage = {**own.lineage, "start": dict(self._start.lineage)}
        return total

    def learned(self, model: nn.Module | None = None) -> WeightDelta:
        """Return what was learned alone, ``phi = theta_2 - theta_start``: what is added to the difference of another language.

        Args:
            model: A copy of the attached model, with other weights; None takes the attached model itself.

        Raises:
            ConfigError: If the tuner is attached to no model, or was folded.
        """
        if self._model is None:
            raise ConfigError("This SparseFineTuning is attached to no model yet; call attach(model) first.")
        if self._folded:
            raise ConfigError("This SparseFineTuning is folded, so its base is gone; take the delta before.")
        source = self._model if model is None else model
        parts: dict[str, Part] = {}
        for name in self.layers:
            layer = source.get_submodule(plain_module(source, name))
            assert isinstance(layer, ChangedWeights), "a copy of the attached model has its layers"
            for parameter in layer.names:
                parts[f"{name}.{parameter}"] = _stored(layer.learned(parameter))
        base = plain_state(source)
        return WeightDelta(
            parts,
            {name: base[name].shape for name in parts},
            base_fingerprint=state_fingerprint(base),
            base_prints=tensor_prints(base),
            lineage={"tuner": type(self).__name__, "select": self.select},
        )

    def fold(self) -> None:
        """Write start and changes into plain weights and put the plain layers back."""
        if self._model is None or self._folded:
            return
        fold_layers(self._model)
        for module in list(self._model.modules()):
            release_mode(module)
        self._folded = True


def maskable(model: nn.Module) -> dict[str, Tensor]:
    """Return what can be selected, by plain name: weights and biases of linear layers, convolutions and embeddings.

    Raises:
        ConfigError: If there is none, or one tensor has two names (tied weights).
    """
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name and isinstance(module, _LAYERS):
            plain = ".".join(part for part in name.split(".") if part != "base")
            found |= {f"{plain}.{key}": value for key, value in module.named_parameters(recurse=False)}
    if not found:
        raise ConfigError(
            f"Sparse fine-tuning needs linear layers, convolutions or embeddings inside the model; {type(model).__name__} has none."
        )
    seen: dict[int, str] = {}
    for name, tensor in found.items():
        if seen.setdefault(id(tensor), name) != name:
            raise ConfigError(
                f"{seen[id(tensor)]!r} and {name!r} are one tensor, which cannot change in two ways. Untie them first."
            )
    return found


def _read(item: str | Path | WeightDelta, state: Mapping[str, Tensor]) -> WeightDelta | None:
    """Return a delta of this base, or of its file."""
    if not item:
        return None
    delta = item if isinstance(item, WeightDelta) else WeightDelta.load(item)
    check_base(delta, state, delta.shapes, check=True)
    return delta


def _expand(delta: WeightDelta | None, tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    if delta is None:
        return {}
    other = sorted(set(delta.names()) - set(tensors))
    if other:
        raise ConfigError(
            f"`{what}` changes {other[0]!r}, which sparse fine-tuning leaves as it is. Give a delta of linear layers, convolutions and "
            "embeddings alone (graftwork tune --method sft-full)."
        )
    return {name: delta.change(name, tensors[name].detach()) for name in delta.names()}


def _measured(
    delta: WeightDelta | None, start: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """Return the changes of a delta from the start, dense."""
    found = _expand(delta, tensors, what)
    if delta is None:
        return {}
    return {
        name: found.get(name, torch.zeros_like(tensors[name])) - start.get(name, torch.zeros_like(tensors[name]))
        for name in dict.fromkeys((*found, *start))
    }


def _stored(part: Dense | Sparse) -> Dense | Sparse:
    if isinstance(part, Dense):
        return part
    kept = part.values.abs() > LEAST_CHANGE
    return Sparse(part.indices[kept], part.values[kept])
