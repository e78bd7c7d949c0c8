"""A frozen linear layer with one low-rank update that all tasks share and one for each task: the layer of MTLoRA.

Paper: Agiza, Neseem and Reda, "MTLoRA: A Low-Rank Adaptation Approach for Efficient Multi-Task Learning", CVPR 2024,
https://arxiv.org/abs/2403.20320; the details follow the released code (scale-lab/MTLoRA).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.lora import LowRankUpdate

__all__ = ["SharedMode", "TaskLowRankLinear"]

SharedMode = Literal["matrix", "matrixv2", "addition"]
"""What the shared stream and the task streams get; see :class:`TaskLowRankLinear`."""


class TaskLowRankLinear(nn.Module):
    """From a shared stream and task streams to a shared output and task outputs.

    With ``y0 = base(x)`` of the shared stream ``x``, updates ``U`` and task streams ``x_t`` (``x`` itself before the fork):

    =============  =============================  =====================================
    mode           shared output                  output of task ``t``
    =============  =============================  =====================================
    ``matrix``     ``y0 + U_shared(x)``           ``y0 + U_t(x_t)``
    ``matrixv2``   ``y0 + U_shared(x)``           ``y0 + U_shared(x) + U_t(x_t)``
    ``addition``   ``y0 + LayerNorm(sum_t y_t)``  ``y_t = y0 + U_t(x_t)``
    =============  =============================  =====================================

    As released: the frozen map always reads the shared stream, a task stream passes through its update alone; dropout acts on
    the shared stream (one mask for all updates that read it), not on task streams.

    Args:
        base: The layer that is kept; its parameters stop requiring gradients.
        task_ranks: Rank of the update of each task, at least 1.
        shared_rank: Rank of the shared update, at least 1; not used in mode ``addition``.
        scaling: Factor on every update (the released configurations take 4, whatever the rank).
        dropout: Probability of dropping an input of the updates, in ``[0, 1)``.
        mode: See above.
        ends_shared: The shared output is read by nobody: what only serves it is left out, and it is ``y0`` (``matrix`` and
            ``addition``).

    Raises:
        ConfigError: If the mode is unknown, there is no task, or the dropout is out of range.
        ValueError: If a rank is out of range.
    """

    def __init__(
        self,
        base: nn.Linear,
        task_ranks: Sequence[int],
        *,
        shared_rank: int,
        scaling: float = 4.0,
        dropout: float = 0.05,
        mode: SharedMode = "matrix",
        ends_shared: bool = False,
    ) -> None:
        super().__init__()
        if mode not in get_args(SharedMode):
            raise ConfigError(f"`mode` must be one of {', '.join(get_args(SharedMode))}; got {mode!r}.")
        if not task_ranks:
            raise ConfigError("`task_ranks` must name the rank of at least one task.")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"`dropout` must be in [0, 1); got {dropout!r}.")
        self.base = base.requires_grad_(False)
        self.mode = mode
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        has_shared = mode == "matrixv2" or (mode == "matrix" and not ends_shared)
        self.shared = LowRankUpdate(base, shared_rank, scaling) if has_shared else None
        self.norm = nn.LayerNorm(base.out_features) if mode == "addition" and not ends_shared else None
        self.updates = nn.ModuleList(LowRankUpdate(base, rank, scaling) for rank in task_ranks)

    def forward(self, shared: Tensor, streams: Tensor | None, asked: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the shared output ``[..., out]`` and the outputs of the asked tasks ``[T, ..., out]``.

        Args:
            shared: The shared stream ``[..., in]``.
            streams: The asked tasks' streams ``[T, ..., in]``; None where the streams have not forked yet.
            asked: Indices of the asked tasks; in mode ``addition`` all of them, since the shared output is a sum over tasks.
        """
        plain, dropped = self.base(shared), self.dropout(shared)
        # Before the fork all tasks read the shared stream, under one dropout mask.
        sources = [dropped] * len(asked) if streams is None else list(streams.unbind(0))
        # [T, ..., out]: `plain` is broadcast over the tasks.
        outputs = plain + torch.stack([self.updates[index](source) for index, source in zip(asked, sources, strict=True)])
        if self.mode == "addition":
            # Without a norm nobody reads the shared output.
            return plain if self.norm is None else plain + self.norm(outputs.sum(dim=0)), outputs
        if self.shared is None:
            return plain, outputs
        common = self.shared(dropped)
        return plain + common, outputs + common if self.mode == "matrixv2" else outputs
