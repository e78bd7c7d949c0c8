"""Differences of weights: dense, low rank, sparse, CP, decomposed or rescaled, tensor by tensor; attached, scaled, added, made sparse, counted, saved.

A difference of two models' weights is also called a task vector (Ilharco et al., "Editing Models with Task Arithmetic", ICLR
2023, https://arxiv.org/abs/2212.04089); a low-rank one is what LoRA learns (Hu et al., ICLR 2022,
https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graftwork.core.errors import ConfigError
from graftwork.interfaces.delta import Delta
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.nn.delta_base import check_base, check_same_base, once_each
from graftwork.nn.delta_file import DeltaFile, read_delta_file, write_delta_file
from graftwork.nn.delta_parts import (
    CP,
    Decomposed,
    Dense,
    LowRank,
    Part,
    Rescaled,
    Sparse,
    change_of,
    check_part,
    describe_part,
    read_part,
    sum_parts,
)
from graftwork.nn.foldable import plain_state

__all__ = ["CP", "Decomposed", "Dense", "LowRank", "Part", "Rescaled", "Sparse", "WeightDelta", "call_with", "sum_deltas"]


class WeightDelta(Delta):
    """A difference of weights to one base.

    Args:
        parts: The difference of each tensor, by the tensor's name in the base.
        shapes: Shape of each of these tensors.
        base_fingerprint: The base that it belongs to; empty if unknown.
        lineage: What it was made by, from what; JSON values.
        base_prints: Print of each tensor of the base (:func:`.tensor_prints`), so that a mismatch can be named; empty if unknown.

    Raises:
        ConfigError: If a part has no shape, or does not fit it.

    Example:
        >>> delta = WeightDelta({"weight": Dense(torch.ones(2, 2))}, {"weight": torch.Size([2, 2])})
        >>> (delta.scale(0.5) + delta).tensor("weight")[0, 0].item()
        1.5
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        shapes: Mapping[str, torch.Size],
        *,
        base_fingerprint: str = "",
        lineage: Mapping[str, Any] | None = None,
        base_prints: Mapping[str, str] | None = None,
    ) -> None:
        self.parts, self.shapes = dict(parts), {name: torch.Size(shapes[name]) for name in parts if name in shapes}
        self.base_fingerprint, self.lineage = base_fingerprint, dict(lineage or {})
        self.base_prints = dict(base_prints or {})
        self._model: nn.Module | None = None
        self._before: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            if name not in self.shapes:
                raise ConfigError(f"The delta of {name!r} has no shape; give one for each tensor.")
            check_part(name, part, self.shapes[name])

    @classmethod
    def between(
        cls, base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], *, lineage: Mapping[str, Any] | None = None
    ) -> Self:
        """Return ``tuned - base`` over all floating-point tensors that differ, dense.

        Raises:
            ConfigError: If names or shapes differ.
        """
        if set(base) != set(tuned):
            odd = sorted(set(base) ^ set(tuned))
            raise ConfigError(
                f"Base and tuned model have different tensors, {odd[0]!r} for one ({len(odd)} in all). Name one architecture."
            )
        for name, tensor in base.items():
            if tensor.shape != tuned[name].shape:
                raise ConfigError(
                    f"Tensor {name!r} is {list(tensor.shape)} in the base and {list(tuned[name].shape)} in the tuned model."
                )
        parts: dict[str, Part] = {
            # Equal tensors are left out, so that a delta is as small as what was tuned.
            name: Dense((tuned[name] - tensor).detach().clone())
            for name, tensor in base.items()
            if tensor.is_floating_point() and not torch.equal(tensor, tuned[name])
        }
        return cls(
            parts,
            {name: base[name].shape for name in parts},
            base_fingerprint=state_fingerprint(base),
            base_prints=tensor_prints(base),
            lineage=lineage,
        )

    def names(self) -> Iterator[str]:
        """Yield the names of the base tensors that differ."""
        return iter(self.parts)

    def tensor(self, name: str) -> Tensor:
        """Return the dense difference of one tensor.

        Raises:
            ConfigError: If it is weight-decomposed (DoRA) or a rescaling (IA3): then only :meth:`change` can tell.
        """
        return self.parts[name].expand(self.shapes[name])

    def change(self, name: str, base: Tensor) -> Tensor:
        """Return by how much one tensor of a base changes; see :meth:`.Delta.change`."""
        return change_of(self.parts[name], base)

    @torch.no_grad()
    def dense(self, model: nn.Module) -> WeightDelta:
        """Return the same difference with dense parts, so that what depends on the base can be added, mixed and made sparse.

        Raises:
            ConfigError: If ``model`` is another base, or something is attached to it.
        """
        state = plain_state(model)
        check_base(self, state, self.shapes, check=True)
        return self._with({name: Dense(self.change(name, state[name]).clone()) for name in self.parts})

    def count(self) -> int:
        """Return how many numbers are stored; the index of a sparse entry counts as one."""
        return sum(tensor.numel() for part in self.parts.values() for tensor in part.tensors().values())

    def scale(self, factor: float) -> WeightDelta:
        """Return ``factor`` times this delta."""
        return self._with({name: part.scaled(factor) for name, part in self.parts.items()})

    def __add__(self, other: WeightDelta) -> WeightDelta:
        """Return the sum; parts of factors stay so, with the sum of the ranks.

        Raises:
            ConfigError: If the deltas belong to different bases, or shapes differ.
        """
        check_same_base(self, other)
        shapes = {**other.shapes, **self.shapes}
        unequal = [name for name in self.shapes if other.shapes.get(name, self.shapes[name]) != self.shapes[name]]
        if unequal:
            name = unequal[0]
            raise ConfigError(
                f"Tensor {name!r} is {list(self.shapes[name])} in one delta and {list(other.shapes[name])} in the other."
            )
        parts = {**other.parts, **self.parts}
        for name in self.parts.keys() & other.parts.keys():
            # Only where both have a part; the others were joined above.
            parts[name] = sum_parts(self.parts[name], other.parts[name], shapes[name])
        return WeightDelta(
            parts,
            shapes,
            base_fingerprint=self.base_fingerprint or other.base_fingerprint,
            base_prints=self.base_prints or other.base_prints,
            lineage={"sum_of": [dict(self.lineage), dict(other.lineage)]},
        )

    def __neg__(self) -> WeightDelta:
        """Return the delta that takes away what this one adds."""
        return self.scale(-1.0)

    def __sub__(self, other: WeightDelta) -> WeightDelta:
        """Return this delta without another one."""
        return self + other.scale(-1.0)

    def compose(self, other: Delta) -> Delta:
        """Return both deltas as one: the sum, where the other is a difference of weights, too."""
        return self + other if isinstance(other, WeightDelta) else other.after(self)

    def sparsify(self, density: float) -> WeightDelta:
        """Return the delta with only the largest entries of each tensor kept, by magnitude.

        Args:
            density: Share of the entries to keep, in (0, 1]; at least one entry of a tensor stays.

        Raises:
            ConfigError: If ``density`` is out of range.
        """
        if not 0.0 < density <= 1.0:
            raise ConfigError(f"`density` must be in (0, 1]; got {density!r}.")
        parts: dict[str, Part] = {}
        for name in self.parts:
            flat = self.tensor(name).flatten()
            # Sorted: `Sparse` wants increasing places, topk gives them by size.
            kept = torch.topk(flat.abs(), max(1, round(density * flat.numel()))).indices.sort().values
            parts[name] = Sparse(kept, flat[kept])
        return self._with(parts)

    @torch.no_grad()
    def attach(self, model: nn.Module, *, check: bool = True) -> None:
        """Add the difference to the weights of ``model``, in place; see :meth:`.Delta.attach`."""
        if self._model is not None:
            raise ConfigError("This delta is attached to a model already. Detach or fold it first.")
        state = plain_state(model)
        check_base(self, state, self.shapes, check=check)
        names = once_each(self, state)
        self._model = model
        for name in names:
            self._before[name] = state[name].data  # kept, not subtracted again: rounding would leave other bits
            state[name].data = state[name].data + self.change(name, state[name].data).to(state[name])

    @torch.no_grad()
    def detach(self) -> None:
        """Put the old weights back, bit for bit."""
        if self._model is None:
            raise ConfigError("This delta is attached to no model. Call attach(model) first.")
        state = plain_state(self._model)
        for name, before in self._before.items():
            state[name].data = before
        self.fold()

    def fold(self) -> None:
        """Forget the old weights; the model stays as it is."""
        self._model, self._before = None, {}

    def substituted(self, base: Mapping[str, Tensor], factor: float | Tensor = 1.0) -> dict[str, Tensor]:
        """Return ``base + factor * delta`` for the tensors that differ, for ``torch.func.functional_call``; differentiable in
        ``factor``."""
        return {name: base[name] + factor * self.change(name, base[name]).to(base[name]) for name in self.parts}

    def call(self, model: nn.Module, inputs: Any, factor: float | Tensor = 1.0) -> Any:
        """Return what ``model`` would compute with ``factor`` times this delta; its own weights are not touched.

        Args:
            model: The base.
            inputs: Its one argument, or a tuple of all.
            factor: Gradients flow into it.
        """
        return call_with(model, [(self, factor)], inputs)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with metadata, atomically."""
        tensors = {f"{name}:{key}": value for name, part in self.parts.items() for key, value in part.tensors().items()}
        write_delta_file(path, DeltaFile.of(self, self.described(), tensors))

    def described(self) -> dict[str, Any]:
        """Return kind, shape and factors of every part, as JSON values."""
        return {name: {**describe_part(part), "shape": list(self.shapes[name])} for name, part in self.parts.items()}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; see :meth:`.Delta.load`."""
        return read_delta_file(path, cls.of_file)

    @classmethod
    def of_file(cls, file: DeltaFile) -> Self:
        """Return the difference of weights in a file that was read.

        Raises:
            ConfigError: If it holds modules besides.
        """
        if file.grafts:
            raise ConfigError("it holds modules (adapters, prompts), not weights alone; read it with load_delta")
        stored: dict[str, dict[str, Tensor]] = {name: {} for name in file.parts}
        for key, tensor in file.tensors.items():
            name, _, part = key.rpartition(":")
            if name in stored:
                stored[name][part] = tensor
        return cls(
            {name: read_part(facts, stored[name]) for name, facts in file.parts.items()},
            {name: torch.Size(facts["shape"]) for name, facts in file.parts.items()},
            base_fingerprint=file.base_fingerprint,
            base_prints=file.base_prints,
            lineage=file.lineage,
        )

    def _with(self, parts: Mapping[str, Part]) -> WeightDelta:
        facts: dict[str, Any] = {"base_fingerprint": self.base_fingerprint, "base_prints": self.base_prints}
        return WeightDelta(parts, self.shapes, **facts, lineage=self.lineage)


def sum_deltas(deltas: Sequence[WeightDelta], weights: Sequence[float] | None = None) -> WeightDelta:
    """Return ``sum_i weights_i * deltas_i``.

    Args:
        deltas: At least one, of one base.
        weights: One for each; None weighs all by 1.

    Raises:
        ConfigError: If there is none, numbers differ, or bases or shapes do.
    """
    factors = [1.0] * len(deltas) if weights is None else list(weights)
    if not deltas or len(factors) != len(deltas):
        raise ConfigError(f"A sum takes at least one delta and one weight for each; got {len(deltas)} and {len(factors)}.")
    total = deltas[0].scale(factors[0])
    for delta, factor in zip(deltas[1:], factors[1:], strict=True):
        total = total + delta.scale(factor)
    total.lineage = {"sum_of": [dict(delta.lineage) for delta in deltas], "weights": factors}
    return total


def call_with(model: nn.Module, terms: Sequence[tuple[WeightDelta, float | Tensor]], inputs: Any) -> Any:
    """Return what a model computes with weights ``base + sum_i factor_i * delta_i`` in place of its own.

    Args:
        model: The base, without wrappers; it is not changed.
        terms: Deltas and their factors; gradients flow into factors that are tensors, so that they can be learned (through
            parameters, not through buffers: running statistics follow without a gradient).
        inputs: The model's one argument, or a tuple of all.
    """
    buffers = dict(model.named_buffers(remove_duplicate=False))
    base = {**dict(model.named_parameters(remove_duplicate=False)), **buffers}
    weights: dict[str, Tensor] = {}
    for delta, factor in terms:
        fixed = factor.detach() if isinstance(factor, Tensor) else factor
        # Tied tensors have several names, and functional_call wants one value for them.
        for name in once_each(delta, base):
            old = weights.get(name, base[name])
            weights[name] = old + (fixed if name in buffers else factor) * delta.change(name, base[name]).to(old)
    return functional_call(model, weights, inputs if isinstance(inputs, tuple) else (inputs,), tie_weights=True)
