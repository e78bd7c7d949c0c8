"""DTRN: a bottom representation of its own for every task, cheaply, under a multi-task head.

Paper: "Deep Task-specific Bottom Representation Network for Multi-Task Recommendation", CIKM 2023,
https://arxiv.org/abs/2308.05996.

- **Task-specific interest module** (``tim``): for task ``k`` and behaviour ``s`` a hypernetwork reads ``[t_k ; b_s]`` (two
  learned vectors) and specialises one shared sequence encoder; attention from the item shown then gives the interest vector
  ``u_{k,s}``.
- **Task-specific representation refinement** (``trm``): for task ``k`` every field vector ``f_i`` (columns and interests) is
  weighted by ``w_k = 2 sigmoid(W2_k relu(W1_k z))``, with ``z`` the means of the field vectors.
- The fields side by side are task ``k``'s bottom ``r_k``. It feeds task ``k``'s gate and the experts, whose weights tasks share
  while their inputs differ (``head="mmoe"``), or shared and own experts (``"ple"``), or a tower alone (``"tower"``).

Both modules start neutral: the hypernetwork changes nothing, all ``w`` are 1. The model then equals MMoE on
:class:`graftwork.nn.backbones.behaviour.BehaviourBackbone` with the same weights.

Departures and choices: the paper's text on what the hypernetwork generates was not at hand; ``film`` (scale and shift of layer
norms) is the default and ``lowrank`` (changes of the encoder's matrices) the option. Without a declared sequence (any table of a
user) there is nothing for the
interest module to read: it is absent, and the refinement module alone makes the bottoms task-specific.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.behaviour import Conditioner, QueryAttention, SequenceEncoder
from graftwork.nn.experts import ExpertBank, Gate, mix_experts
from graftwork.nn.fields import FieldLayout, Fields
from graftwork.nn.heads import build_head

__all__ = ["DTRN", "FieldGate"]


class FieldGate(nn.Module):
    """Squeeze and excitation over fields: one weight in (0, 2) per field and row, 1 at the start.

    Paper: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507.

    Args:
        num_fields: Number of fields ``F``.
        reduction: The hidden layer has ``F / reduction`` units, at least 1.
    """

    def __init__(self, num_fields: int, *, reduction: int = 2) -> None:
        super().__init__()
        hidden = max(1, num_fields // reduction)
        self.squeeze, self.excite = nn.Linear(num_fields, hidden), nn.Linear(hidden, num_fields)
        # With zeros the weights are 2 * sigmoid(0) = 1: the network starts as if the gate were not there.
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, fields: Tensor) -> Tensor:
        """Return the weighted fields, ``[B, F, d]``."""
        weights = 2.0 * torch.sigmoid(self.excite(torch.relu(self.squeeze(fields.mean(dim=2)))))  # [B, F]
        return fields * weights.unsqueeze(2)


class DTRN(SharedModel):
    """Task-specific bottoms under shared experts.

    Args:
        tasks: The tasks.
        make_backbone: Not called: fields and encoder are the network's own.
        inputs: The suite's inputs: a table; sequences are declared as :mod:`graftwork.nn.fields` says.
        width: Width ``d`` of a field.
        tim: ``"film"`` or ``"lowrank"``; ``"none"`` leaves the interest module out (all tasks read the sequences alike).
        trm: Whether fields are weighted per task.
        head: ``"mmoe"``, ``"ple"`` (one level) or ``"tower"``.
        num_experts: Shared experts.
        task_experts: Experts of each task, for ``"ple"``.
        expert_width: Width of an expert, hidden layer and output.
        head_hidden: Hidden width of each task's tower, 0 for a linear one.
        num_heads: Heads of the sequence encoder.
        num_layers: Layers of the sequence encoder.
        encoder_hidden: Hidden width of its feed-forward networks.
        condition_width: Width of task and behaviour vectors.
        rank: Rank of ``lowrank``.
        reduction: Reduction of the field gates.
        dropout: Probability of dropping a hidden unit of an expert.

    Raises:
        ConfigError: If the inputs are not those of a table, or an option is unknown.
    """

    has_shared_representation = False

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone] | None = None,
        *,
        inputs: InputSpecs,
        width: int = 16,
        tim: Literal["none", "film", "lowrank"] = "film",
        trm: bool = True,
        head: Literal["mmoe", "ple", "tower"] = "mmoe",
        num_experts: int = 4,
        task_experts: int = 1,
        expert_width: int = 32,
        head_hidden: int = 16,
        num_heads: int = 2,
        num_layers: int = 1,
        encoder_hidden: int = 32,
        condition_width: int = 8,
        rank: int = 4,
        reduction: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if tim not in ("none", "film", "lowrank") or head not in ("mmoe", "ple", "tower"):
            raise ConfigError(f"DTRN: `tim` is none, film or lowrank and `head` mmoe, ple or tower; got {tim!r} and {head!r}.")
        self.task_names = tuple(task.name for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}
        layout = FieldLayout.from_inputs(inputs, needed_by="DTRN")
        self.fields = Fields(layout, width)
        self.encoder: SequenceEncoder | None = None
        self.conditioner: Conditioner | None = None
        if layout.sequences:
            self.encoder = SequenceEncoder(
                width, num_heads=num_heads, hidden=encoder_hidden, num_layers=num_layers, conditioning=tim, rank=rank
            )
            self.attention = QueryAttention(width)
            if tim != "none":
                self.task_vectors = nn.ParameterList(nn.Parameter(torch.randn(condition_width)) for _ in tasks)
                self.behaviour_vectors = nn.Parameter(torch.randn(len(layout.sequences), condition_width))
                self.conditioner = Conditioner(2 * condition_width, self.encoder.change_sizes)
        num_fields = layout.num_fields + len(layout.sequences)
        self.refine = nn.ModuleList(FieldGate(num_fields, reduction=reduction) for _ in tasks) if trm else None
        bottom = num_fields * width
        self.experts = ExpertBank(num_experts, bottom, expert_width, dropout=dropout) if head != "tower" else None
        self.own_experts = (
            nn.ModuleList(ExpertBank(task_experts, bottom, expert_width, dropout=dropout) for _ in tasks)
            if head == "ple"
            else None
        )
        choices = num_experts + (task_experts if head == "ple" else 0)
        self.gates = nn.ModuleList(Gate(bottom, choices) for _ in tasks) if head != "tower" else None
        shape = FeatureShape("vector", bottom if head == "tower" else expert_width)
        self.heads = nn.ModuleList(build_head(shape, task, hidden=head_hidden) for task in tasks)

    def _condition(self, asked: Sequence[str]) -> dict[str, Tensor] | None:
        if self.conditioner is None:
            return None
        tasks = torch.stack([self.task_vectors[self._index[name]] for name in asked])
        # [K, S, condition_width] each: every asked task with every sequence.
        grid = [len(asked), len(self.behaviour_vectors), -1]
        pairs = torch.cat([tasks.unsqueeze(1).expand(grid), self.behaviour_vectors.unsqueeze(0).expand(grid)], dim=-1)
        return self.conditioner(pairs)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> tuple[Tensor, ...]:
        """Return the asked tasks' bottoms, ``[B, F d]`` each; the sequences are encoded for all of them at once."""
        asked = self.task_names if tasks is None else tuple(tasks)
        plain, states, filled = self.fields(inputs)
        bottoms = [plain] * len(asked)
        if self.encoder is not None and states is not None and filled is not None:
            encoded = self.encoder(states, filled, self._condition(asked))
            interests = self.attention(
                self.fields.query(plain), encoded, filled
            )  # [B, K, S, d]; K is 1 without the interest module
            # The modulo: without conditions there is one reading, which all tasks share.
            bottoms = [torch.cat([plain, interests[:, index % interests.shape[1]]], dim=1) for index in range(len(asked))]
        if self.refine is not None:
            bottoms = [self.refine[self._index[name]](fields) for name, fields in zip(asked, bottoms, strict=True)]
        return tuple(fields.flatten(1) for fields in bottoms)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks, from :meth:`encode`'s tuple for the same ``tasks``."""
        asked = self.task_names if tasks is None else tuple(tasks)
        if self.experts is None or self.gates is None:
            return {name: self.heads[self._index[name]](bottom) for name, bottom in zip(asked, representation, strict=True)}
        bottoms = torch.stack(list(representation), dim=1)
        shared = self.experts(bottoms)  # tasks in place of positions: [B, K, E, O]
        outputs = {}
        for place, name in enumerate(asked):
            # A slice, not an index: the bank expects an axis of positions, [B, 1, D].
            index, bottom = self._index[name], bottoms[:, place : place + 1]
            banks = [shared[:, place : place + 1]]
            if self.own_experts is not None:
                banks.append(self.own_experts[index](bottom))
            outputs[name] = self.heads[index](mix_experts(self.gates[index](bottom), banks).squeeze(1))
        return outputs

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield what only ``task`` uses: its task vector, field gate, own experts, gate and tower."""
        index = self._index[task]
        if self.conditioner is not None:
            yield self.task_vectors[index]
        for parts in (self.refine, self.own_experts, self.gates, self.heads):
            if parts is not None:
                yield from parts[index].parameters()
