"""Coefficients of models that are learned: one for each model, or one for each model and tensor, or for random parts of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from graftwork.core.seeds import Seeds
from graftwork.methods.merging.task_vectors import TaskVectors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Coefficients", "Grain", "detached"]

Grain = Literal["model", "tensor"]
"""``model``: one number for each model. ``tensor``: one for each model and tensor."""


class Coefficients:
    """Numbers that multiply the changes of models.

    Args:
        vectors: The changes.
        grain: How many numbers there are.
        start: Value of all of them at the start.
        parts: For ``tensor``: into how many random parts the entries of each tensor are divided, each with a number of its own.
        clamp: Whether they are held between 0 and 1 where they are used.
        seed: Draws the parts.
    """

    def __init__(
        self, vectors: TaskVectors, grain: Grain, start: float, *, parts: int = 1, clamp: bool = False, seed: int = 0
    ) -> None:
        import torch

        self.names, self.clamp, self.grain, self._start = vectors.names, clamp, grain, start
        device = next(iter(vectors.start.values())).device
        width = 1 if grain == "model" else len(self.names) * parts
        self.values: Tensor = torch.full((vectors.num_models, width), start, device=device, requires_grad=True)
        """``[models, 1]`` or ``[models, tensors * parts]``; what learns."""
        self._parts: dict[str, Tensor] = {}
        self._num_parts = parts
        if parts > 1:
            generator = Seeds(seed).torch("parts of tensors")
            for name, value in vectors.start.items():
                # Even shares, in a random order.
                order = torch.randperm(value.numel(), generator=generator) % parts
                self._parts[name] = order.reshape(value.shape).to(device)

    def by_name(self) -> dict[str, Tensor]:
        """Return the coefficients of each tensor, ``[models]`` or, with several parts, ``[models, *shape]``."""
        values = self.values.clamp(0.0, 1.0) if self.clamp else self.values
        if self.grain == "model":
            return dict.fromkeys(self.names, values[:, 0])
        if self._num_parts == 1:
            return dict(zip(self.names, values.unbind(dim=1), strict=True))
        blocks = values.reshape(len(values), len(self.names), self._num_parts)
        return {name: blocks[:, place][:, self._parts[name]] for place, name in enumerate(self.names)}

    def reset(self) -> None:
        """Set all of them to their first value."""
        import torch

        with torch.no_grad():
            self.values.fill_(self._start)
        self.values.grad = None

    def means(self) -> tuple[float, ...]:
        """Return the mean of each model's coefficients as they are used, for records."""
        values = self.values.detach().clamp(0.0, 1.0) if self.clamp else self.values.detach()
        return tuple(float(value) for value in values.mean(dim=1))


def detached(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without their graphs."""
    return {name: value.detach() for name, value in values.items()}
