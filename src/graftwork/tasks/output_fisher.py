"""How much an answer tells about the raw output that it is drawn from: the Fisher information of outputs, as scores.

A *score* is the gradient of the log-probability of an answer with respect to a row's raw output. The information of an output is
the mean of ``score score^T`` over the model's own answers; it equals the Hessian of the divergence of
:mod:`graftwork.tasks.divergence` where both outputs are equal. So every kind of task has it that has a divergence, in the units
of its loss: means over logits and positions, values in standard deviations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import TaskKind, task_kind
from graftwork.tasks.categorical import Categorical

__all__ = ["LARGEST_EXACT", "output_scores"]

LARGEST_EXACT = 256
"""Most numbers in a row's output for which all answers are enumerated."""


def output_scores(spec: TaskSpec, output: Tensor, *, num_samples: int = 0, generator: torch.Generator | None = None) -> Tensor:
    """Return scores whose outer products add up to each row's information.

    With ``num_samples`` 0 they do so exactly: one score for each number of the output, weighted by how probable the answer is.
    Otherwise they are drawn, and do so in expectation: classes from the model's own probabilities, everything else as random
    signs along the axes of the information.

    Args:
        spec: The task.
        output: Raw outputs, ``[B, num_outputs]`` or ``[B, num_outputs, *positions]``; no gradient flows through the result.
        num_samples: Scores for each row, or 0.
        generator: Draws the scores; None takes the global one.

    Returns:
        ``[S, *output.shape]``, ``S`` the number of scores.

    Raises:
        ConfigError: If the task compares rows, so that a row alone has no distribution; if ``num_samples`` is negative; or if
            the exact scores would be more than :data:`LARGEST_EXACT`.

    Example:
        >>> task = TaskSpec(name="digit", kind="multiclass", size=3)
        >>> scores = output_scores(task, torch.zeros(1, 3))
        >>> torch.einsum("sbi,sbj->bij", scores, scores)[0, 0].tolist()  # (diag(p) - p p^T) for p = 1/3
        [0.2222222..., -0.1111111..., -0.1111111...]
    """
    kind = task_kind(spec)
    if kind.compares_rows:
        raise ConfigError(
            f"Task {spec.name!r} ({spec.kind_words}) compares rows with each other, so a row alone has no Fisher information. "
            "Leave the task out."
        )
    if num_samples < 0:
        raise ConfigError(f"`num_samples` must be at least 0 (0 takes the exact expectation); got {num_samples!r}.")
    size = math.prod(output.shape[1:])
    if num_samples == 0 and size > LARGEST_EXACT:
        raise ConfigError(
            f"Task {spec.name!r} has {size:,} numbers in each output; the exact expectation goes up to {LARGEST_EXACT}. "
            "Draw answers with `num_samples`, such as 4."
        )
    output = output.detach()
    positions = output.shape[2:]
    # every position is a distribution of its own: one row of `[R, num_outputs]`
    rows = output.flatten(2).movedim(1, 2).flatten(0, 1) if positions else output
    share = 1.0 / math.sqrt(math.prod(positions))  # the loss is a mean over positions
    if num_samples:
        drawn = share * _drawn(kind, spec, rows, num_samples, generator)
        return drawn.view(num_samples, len(output), *positions, -1).movedim(-1, 2) if positions else drawn
    exact = share * _exact(kind, spec, rows)
    return _one_position_each(exact, len(output), positions) if positions else exact


def _exact(kind: TaskKind, spec: TaskSpec, rows: Tensor) -> Tensor:
    """Return ``[K, R, K]``."""
    if isinstance(kind, Categorical):
        shares = rows.softmax(dim=1)
        classes = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        # The Fisher information of a softmax is sum_k p_k (e_k - p)(e_k - p)^T; the root of p_k makes it one outer product
        # each.
        return shares.sqrt().T[:, :, None] * (classes[:, None, :] - shares[None])
    return _axes(kind, spec, rows).permute(2, 0, 1)


def _drawn(kind: TaskKind, spec: TaskSpec, rows: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
    """Return ``[S, R, K]``."""
    if isinstance(kind, Categorical):
        shares = rows.softmax(dim=1)
        drawn = torch.multinomial(shares, num_samples, replacement=True, generator=generator).T
        # The score of class k is e_k - p; the scatter adds e_k.
        scores = -shares.expand(num_samples, -1, -1).clone()
        scores.scatter_add_(2, drawn[:, :, None], torch.ones_like(scores[:, :, :1]))
    else:
        signs = torch.randint(0, 2, (num_samples, *rows.shape), generator=generator, device=rows.device)
        scores = torch.einsum("rij,srj->sri", _axes(kind, spec, rows), signs.to(rows.dtype) * 2.0 - 1.0)
    # By the root of S, so that outer products add up to their mean over draws.
    return scores / math.sqrt(num_samples)


def _axes(kind: TaskKind, spec: TaskSpec, rows: Tensor) -> Tensor:
    """Return ``[R, K, K]`` whose columns' outer products add up to the Hessian of the divergence."""
    shape = (1, rows.shape[1], *(1,) * int(kind.over_positions))

    def divergence(output: Tensor, reference: Tensor) -> Tensor:
        return kind.divergence(spec, reference.view(shape), output.view(shape))

    # The Hessian where both outputs are equal. [R, K, K]
    found = vmap(jacrev(grad(divergence)))(rows, rows)
    # Symmetric but for rounding; eigh reads one triangle only.
    values, axes = torch.linalg.eigh((found + found.mT) / 2.0)
    return axes * values.clamp(min=0.0).sqrt()[:, None, :]  # rounding may leave tiny negative values


def _one_position_each(scores: Tensor, num_rows: int, positions: torch.Size) -> Tensor:
    """Return ``[P * K, B, K, *positions]`` from ``[K, B * P, K]``: each score is that of one position, zero elsewhere."""
    size, count = scores.shape[2], math.prod(positions)
    apart = scores.view(size, num_rows, count, size).permute(2, 0, 1, 3)  # [P, K, B, K]
    spread = torch.diag_embed(apart.movedim(0, -1)).movedim(-1, 0)  # [P, K, B, K, P]
    return spread.reshape(count * size, num_rows, size, *positions)
