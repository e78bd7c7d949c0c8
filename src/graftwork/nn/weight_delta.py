"""Differences of weights: dense, low rank or sparse, tensor by tensor; attached, scaled, added, made sparse, counted, saved.

A difference of two models' weights is also called a task vector (Ilharco et al., "Editing Models with Task Arithmetic", ICLR
2023, https://arxiv.org/abs/2212.04089); a low-rank one is what LoRA learns (Hu et al., ICLR 2022,
https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import write_bytes
from graftwork.interfaces.delta import Delta
from graftwork.math.fingerprint import state_fingerprint

__all__ = ["FORMAT", "Dense", "LowRank", "Part", "Sparse", "WeightDelta"]

FORMAT = "graftwork-delta-1"


@dataclass(frozen=True, slots=True)
class Dense:
    """A difference that is stored as it is."""

    values: Tensor

    def expand(self, shape: torch.Size) -> Tensor:
        """Return the difference in ``shape``."""
        return self.values.view(shape)

    def scaled(self, factor: float) -> Dense:
        """Return ``factor`` times the difference."""
        return Dense(self.values * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"values": self.values}


@dataclass(frozen=True, slots=True)
class LowRank:
    """``factor * up @ down``, in the shape of the base tensor; of a convolution ``down`` holds whole kernels."""

    down: Tensor
    """``[rank, in]``, or ``[rank, in, height, width]``."""
    up: Tensor
    """``[out, rank]``, or ``[out, rank, 1, 1]``."""
    factor: float = 1.0

    def expand(self, shape: torch.Size) -> Tensor:
        """Return the difference in ``shape``."""
        return (self.factor * (self.up.flatten(1) @ self.down.flatten(1))).view(shape)

    def scaled(self, factor: float) -> LowRank:
        """Return ``factor`` times the difference."""
        return replace(self, factor=self.factor * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"down": self.down, "up": self.up}


@dataclass(frozen=True, slots=True)
class Sparse:
    """A difference that is zero but at some places of the flat tensor."""

    indices: Tensor
    """int64, increasing."""
    values: Tensor

    def expand(self, shape: torch.Size) -> Tensor:
        """Return the difference in ``shape``."""
        flat = torch.zeros(shape.numel(), dtype=self.values.dtype, device=self.values.device)
        return flat.index_put_((self.indices,), self.values).view(shape)

    def scaled(self, factor: float) -> Sparse:
        """Return ``factor`` times the difference."""
        return replace(self, values=self.values * factor)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by name."""
        return {"indices": self.indices, "values": self.values}


Part = Dense | LowRank | Sparse
_KINDS: dict[str, type[Dense] | type[LowRank] | type[Sparse]] = {"dense": Dense, "low-rank": LowRank, "sparse": Sparse}


class WeightDelta(Delta):
    """A difference of weights to one base.

    Args:
        parts: The difference of each tensor, by the tensor's name in the base.
        shapes: Shape of each of these tensors.
        base_fingerprint: The base that it belongs to; empty if unknown.
        lineage: What it was made by, from what; JSON values.

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
    ) -> None:
        self.parts, self.shapes = dict(parts), {name: torch.Size(shapes[name]) for name in parts if name in shapes}
        self.base_fingerprint, self.lineage = base_fingerprint, dict(lineage or {})
        self._model: nn.Module | None = None
        self._before: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            if name not in self.shapes:
                raise ConfigError(f"The delta of {name!r} has no shape; give one for each tensor.")
            _check(name, part, self.shapes[name])

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
        return cls(parts, {name: base[name].shape for name in parts}, base_fingerprint=state_fingerprint(base), lineage=lineage)

    def names(self) -> Iterator[str]:
        """Yield the names of the base tensors that differ."""
        return iter(self.parts)

    def tensor(self, name: str) -> Tensor:
        """Return the dense difference of one tensor."""
        return self.parts[name].expand(self.shapes[name])

    def count(self) -> int:
        """Return how many numbers are stored; the index of a sparse entry counts as one."""
        return sum(tensor.numel() for part in self.parts.values() for tensor in part.tensors().values())

    def scale(self, factor: float) -> WeightDelta:
        """Return ``factor`` times this delta."""
        return self._with({name: part.scaled(factor) for name, part in self.parts.items()})

    def __add__(self, other: WeightDelta) -> WeightDelta:
        """Return the sum; low-rank parts stay so, with the sum of the ranks.

        Raises:
            ConfigError: If the deltas belong to different bases, or shapes differ.
        """
        if self.base_fingerprint and other.base_fingerprint and self.base_fingerprint != other.base_fingerprint:
            raise ConfigError(
                f"These deltas belong to different bases ({self.base_fingerprint[:12]}... and "
                f"{other.base_fingerprint[:12]}...), so they cannot be "
                "added. Tune both from one base."
            )
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
            parts[name] = _sum(self.parts[name], other.parts[name], shapes[name])
        return WeightDelta(
            parts,
            shapes,
            base_fingerprint=self.base_fingerprint or other.base_fingerprint,
            lineage={"sum_of": [dict(self.lineage), dict(other.lineage)]},
        )

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
        state = model.state_dict(keep_vars=True)
        self._check_base(state, check=check)
        names = self._names_once(state)
        self._model = model
        for name in names:
            self._before[name] = state[name].data  # kept, not subtracted again: rounding would leave other bits
            state[name].data = state[name].data + self.tensor(name).to(state[name])

    def _names_once(self, state: Mapping[str, Tensor]) -> list[str]:
        """Return one name for each tensor that differs: tied weights have several, and change once.

        Raises:
            ConfigError: If the delta says different things of one tensor.
        """
        first: dict[int, str] = {}
        for name in self.parts:
            other = first.setdefault(id(state[name]), name)
            if other != name and not torch.equal(self.tensor(other), self.tensor(name)):
                raise ConfigError(
                    f"{other!r} and {name!r} are one tensor in this model, but the delta changes them in different ways. "
                    "Attach it to a model in which they are not tied."
                )
        return list(first.values())

    @torch.no_grad()
    def detach(self) -> None:
        """Put the old weights back, bit for bit."""
        if self._model is None:
            raise ConfigError("This delta is attached to no model. Call attach(model) first.")
        state = self._model.state_dict(keep_vars=True)
        for name, before in self._before.items():
            state[name].data = before
        self.fold()

    def fold(self) -> None:
        """Forget the old weights; the model stays as it is."""
        self._model, self._before = None, {}

    def substituted(self, base: Mapping[str, Tensor], factor: float | Tensor = 1.0) -> dict[str, Tensor]:
        """Return ``base + factor * delta`` for the tensors that differ, for ``torch.func.functional_call``; differentiable in
        ``factor``."""
        return {name: base[name] + factor * self.tensor(name).to(base[name]) for name in self.parts}

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with metadata, atomically."""
        stored: dict[str, Tensor] = {}
        described: dict[str, Any] = {}
        for name, part in self.parts.items():
            kind = next(key for key, cls in _KINDS.items() if type(part) is cls)
            described[name] = {"kind": kind, "shape": list(self.shapes[name])}
            if isinstance(part, LowRank):
                described[name]["factor"] = part.factor
            for key, tensor in part.tensors().items():
                # A copy: safetensors refuses tensors that share memory.
                stored[f"{name}:{key}"] = tensor.detach().cpu().contiguous().clone()
        facts = {
            "format": FORMAT,
            "base_fingerprint": self.base_fingerprint,
            "parts": json.dumps(described),
            "lineage": json.dumps(dict(self.lineage)),
        }
        write_bytes(path, save(stored, metadata=facts))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; see :meth:`.Delta.load`."""
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                if facts.get("format") != FORMAT:
                    raise FileFormatError(
                        f"{path} is not a delta (format {facts.get('format')!r}, expected {FORMAT!r}). Give a "
                        f"file that a delta was saved to."
                    )
                described = json.loads(facts["parts"])
                parts = {name: _read_part(file, name, facts_of) for name, facts_of in described.items()}
                shapes = {name: torch.Size(facts_of["shape"]) for name, facts_of in described.items()}
                return cls(parts, shapes, base_fingerprint=facts["base_fingerprint"], lineage=json.loads(facts["lineage"]))
        except FileFormatError:
            raise  # it says what is wrong already
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, ConfigError) as error:
            raise FileFormatError(f"{path} is a damaged delta: {error}. Restore it from a copy, or tune again.") from error

    def _with(self, parts: Mapping[str, Part]) -> WeightDelta:
        return WeightDelta(parts, self.shapes, base_fingerprint=self.base_fingerprint, lineage=self.lineage)

    def _check_base(self, state: Mapping[str, Tensor], *, check: bool) -> None:
        for name, shape in self.shapes.items():
            if name not in state:
                raise ConfigError(f"The delta was made for another model: this one has no tensor {name!r}.")
            if state[name].shape != shape:
                raise ConfigError(
                    f"The delta was made for another model: {name!r} is {list(state[name].shape)} here, "
                    f"{list(shape)} in the delta."
                )
        if check and self.base_fingerprint:
            found = state_fingerprint(state)
            if found != self.base_fingerprint:
                raise ConfigError(
                    f"The delta was made for a base with fingerprint {self.base_fingerprint[:12]}..., but "
                    f"this model has {found[:12]}.... Load the base "
                    "that it was tuned from, or pass check=False to add it all the same."
                )


def _sum(one: Part, other: Part, shape: torch.Size) -> Part:
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        # [B1 B2] [A1; A2] = B1 A1 + B2 A2; the factors go into B, since the two may differ.
        return LowRank(torch.cat([one.down, other.down]), torch.cat([one.factor * one.up, other.factor * other.up], dim=1))
    return Dense(one.expand(shape) + other.expand(shape))


def _check(name: str, part: Part, shape: torch.Size) -> None:
    size = shape.numel()
    if isinstance(part, Dense):
        fits = part.values.numel() == size
    elif isinstance(part, LowRank):
        fits = len(part.down) == part.up.shape[1] and part.up.shape[0] * part.down[:1].numel() == size
    else:
        fits = len(part.indices) == len(part.values) and (
            not len(part.indices) or 0 <= int(part.indices.min()) <= int(part.indices.max()) < size
        )
    if not fits:
        raise ConfigError(f"The delta of {name!r} does not fit a tensor of shape {list(shape)}.")


def _read_part(file: Any, name: str, facts: Mapping[str, Any]) -> Part:
    cls = _KINDS[facts["kind"]]
    keys = {"dense": ("values",), "low-rank": ("down", "up"), "sparse": ("indices", "values")}[facts["kind"]]
    tensors = {key: file.get_tensor(f"{name}:{key}") for key in keys}
    if cls is LowRank:
        return LowRank(tensors["down"], tensors["up"], float(facts["factor"]))
    return cls(**tensors)
