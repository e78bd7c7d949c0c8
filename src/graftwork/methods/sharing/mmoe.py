"""Multi-gate mixture of experts: shared experts, one softmax gate a task.

Paper: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018,
https://doi.org/10.1145/3219819.3220007 (equations 5 to 7).

Departures: experts and gates read the features of any backbone in place of raw inputs; the gates start at equal weights; on maps
and tokens the experts act on every position and a gate chooses once a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.experts import ExpertBank, Gate, from_positions, mix_experts, to_positions
from graftwork.nn.heads import build_head, output_size

__all__ = ["MMoE"]


class MMoE(SharedModel):
    """Backbone, experts that all tasks share, and for each task a gate and a head.

    The representation is the backbone's features and the experts' outputs side by side along the channels, since gates read the
    former and heads the latter: everything that tasks share lies before it.

    Args:
        tasks: The tasks.
        make_backbone: Returns a fresh backbone.
        inputs: The suite's inputs (dense heads need the size of its pictures).
        num_experts: Number of experts, at least 1.
        expert_width: Width of an expert, hidden layer and output.
        dropout: Probability of dropping a hidden unit of an expert.
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        num_experts: int = 6,
        expert_width: int = 64,
        dropout: float = 0.1,
        head_hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        self.backbone = make_backbone()
        self._shape = self.backbone.feature_shape
        self._width = expert_width
        self.experts = ExpertBank(num_experts, self._shape.width, expert_width, dropout=dropout)
        self.gates = nn.ModuleList(Gate(self._shape.width, num_experts) for _ in tasks)
        mixed, size = FeatureShape(self._shape.layout, expert_width, self._shape.extent), output_size(inputs)
        self.heads = nn.ModuleList(build_head(mixed, task, hidden=head_hidden, size=size) for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return features and expert outputs, ``[B, D + E * O]`` for vectors (maps and tokens likewise along their channels)."""
        features = self.backbone(inputs)
        positions = to_positions(features, self._shape)
        # [B, P, D + E * O]
        joined = torch.cat([positions, self.experts(positions).flatten(2)], dim=2)
        return from_positions(joined, self._shape, features.shape[2:])

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks; the gates of the others do not run."""
        assert isinstance(representation, Tensor)
        positions = to_positions(representation, self._shape)
        features, experts = positions[..., : self._shape.width], positions[..., self._shape.width :]
        # [B, P, E, O]
        experts = experts.unflatten(2, (-1, self._width))
        outputs = {}
        for name in self.task_names if tasks is None else tasks:
            mixed = mix_experts(self.gates[self._index[name]](features), [experts])
            outputs[name] = self.heads[self._index[name]](from_positions(mixed, self._shape, representation.shape[2:]))
        return outputs

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's gate and head."""
        yield from self.gates[self._index[task]].parameters()
        yield from self.heads[self._index[task]].parameters()
