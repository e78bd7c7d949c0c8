"""How unsure a model's answers are: a signal that needs no labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["answer_entropy", "has_entropy"]


def has_entropy(spec: TaskSpec) -> bool:
    """Return whether answers of the task are choices among finitely many: classes, or labels that apply or not."""
    import torch

    kind = task_kind(spec)
    if kind.compares_rows:
        return False
    # Choices are at most so far from the flat answer; the divergence of numbers grows without bound.
    flat = torch.zeros(1, kind.num_outputs(spec), dtype=torch.float64)
    far, further = flat.clone(), flat.clone()
    far[:, 0], further[:, 0] = 1e3, 2e3
    try:
        found = [float(kind.divergence(spec, answer, flat)) for answer in (far, further)]
    except (RuntimeError, ValueError, IndexError):
        # Outputs with positions have other shapes.
        return False
    return abs(found[1] - found[0]) < 1e-6


def answer_entropy(spec: TaskSpec, output: Tensor) -> Tensor:
    """Return the mean entropy of the answers, less that of the flat answer: at most 0, and 0 where a model knows nothing.

    The constant does not matter to who minimises; without it this is the negative divergence from the flat answer, which every
    kind of task defines.

    Args:
        spec: A task that :func:`has_entropy`.
        output: Raw outputs, ``[B, num_outputs]``.
    """
    return -task_kind(spec).divergence(spec, output, output.new_zeros(output.shape))
