"""Progressive layered extraction: shared and task-specific experts, level by level.

Paper: Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized
Recommendations", RecSys 2020, https://doi.org/10.1145/3383313.3412236 (section 4.1: customised gate control, one level; section
4.2: several levels).

Departures: the first level reads the features of any backbone in place of raw inputs; the gates start at equal weights; on maps
and tokens the experts act on every position and a gate chooses once a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.experts import ExpertBank, Gate, from_positions, mix_experts, to_positions
from graftwork.nn.heads import build_head, output_size

__all__ = ["PLE"]


class PLE(SharedModel):
    """Backbone, levels of experts, and a head a task.

    At each level a task's gate mixes the shared experts with the task's own; before the last level a further gate mixes all
    experts into the shared state of the next level. So all experts before the last level serve all tasks; what a task owns are
    its experts of the last level, its gates of the last two levels, and its head. The representation ends where that begins; its
    parts lie side by side along the channels.

    Args:
        tasks: The tasks.
        make_backbone: Returns a fresh backbone.
        inputs: The suite's inputs (dense heads need the size of its pictures).
        num_levels: Levels of experts, at least 1 (which is CGC).
        shared_experts: Shared experts a level, at least 1.
        task_experts: Experts a task and level, at least 1.
        expert_width: Width of an expert, hidden layer and output.
        dropout: Probability of dropping a hidden unit of an expert.
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        num_levels: int = 2,
        shared_experts: int = 2,
        task_experts: int = 1,
        expert_width: int = 64,
        dropout: float = 0.1,
        head_hidden: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("num_levels", num_levels), ("shared_experts", shared_experts), ("task_experts", task_experts)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1; got {value!r}.")
        self.task_names = tuple(task.name for task in tasks)
        self.backbone = make_backbone()
        self._shape, self._width, self._num_levels = self.backbone.feature_shape, expert_width, num_levels
        widths = [self._shape.width] + [expert_width] * (num_levels - 1)

        def banks(count: int, width: int) -> ExpertBank:
            return ExpertBank(count, width, expert_width, dropout=dropout)

        self.shared_banks = nn.ModuleList(banks(shared_experts, width) for width in widths)
        self.task_banks = nn.ModuleList(nn.ModuleList(banks(task_experts, width) for _ in tasks) for width in widths)
        self.task_gates = nn.ModuleList(
            nn.ModuleList(Gate(width, shared_experts + task_experts) for _ in tasks) for width in widths
        )
        # The shared gate reads the experts of all tasks, so it and what lies before it is nobody's own.
        everyone = shared_experts + task_experts * len(self.task_names)
        self.shared_gates = nn.ModuleList(Gate(width, everyone) for width in widths[:-1])
        mixed, size = FeatureShape(self._shape.layout, expert_width, self._shape.extent), output_size(inputs)
        self.heads = nn.ModuleList(build_head(mixed, task, hidden=head_hidden, size=size) for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}
        own, common = task_experts * expert_width, shared_experts * expert_width
        # One level: features | shared experts. More: states | experts of the last level but one, task by task | its shared
        # experts | shared experts of the last level. After one level the tasks' states are the features still: they stand there
        # once.
        states = [widths[0]] if num_levels <= 2 else [expert_width] * len(self.task_names)
        self._parts = [*states, common] if num_levels == 1 else [*states, *[own] * len(self.task_names), common, common]

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the shared representation; all tasks' experts before the last level are part of it, whichever ``tasks`` are
        asked."""
        features = self.backbone(inputs)
        shared = to_positions(features, self._shape)
        states = [shared] * len(self.task_names)
        parts: list[Tensor] = [shared]
        for level in range(self._num_levels - 1):
            common = self.shared_banks[level](shared)
            banks: Any = self.task_banks[level]
            gates: Any = self.task_gates[level]
            own = [bank(state) for bank, state in zip(banks, states, strict=True)]
            # Overwritten at each level: only the last one's parts are handed on, in the order of `_parts`.
            parts = [*(states if level > 0 else [shared]), *(experts.flatten(2) for experts in own), common.flatten(2)]
            # The states after the last shared level belong to the tasks: `decode` computes them.
            if level < self._num_levels - 2:
                states = [mix_experts(gate(state), [mine, common]) for gate, state, mine in zip(gates, states, own, strict=True)]
            shared = mix_experts(self.shared_gates[level](shared), [*own, common])
        parts.append(self.shared_banks[-1](shared).flatten(2))
        return from_positions(torch.cat(parts, dim=2), self._shape, features.shape[2:])

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks; what the others own does not run."""
        assert isinstance(representation, Tensor)
        parts = to_positions(representation, self._shape).split(self._parts, dim=2)
        last = parts[-1].unflatten(2, (-1, self._width))
        task_banks: Any = self.task_banks
        task_gates: Any = self.task_gates
        outputs = {}
        for name in self.task_names if tasks is None else tasks:
            index = self._index[name]
            state = parts[index if self._num_levels > 2 else 0]
            if self._num_levels > 1:
                # Counted from the end: the number of states at the front depends on the number of levels.
                own = parts[len(parts) - 2 - len(self.task_names) + index].unflatten(2, (-1, self._width))
                common = parts[-2].unflatten(2, (-1, self._width))
                state = mix_experts(task_gates[-2][index](state), [own, common])
            experts = task_banks[-1][index](state)
            mixed = mix_experts(task_gates[-1][index](state), [experts, last])
            outputs[name] = self.heads[index](from_positions(mixed, self._shape, representation.shape[2:]))
        return outputs

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's experts of the last level, its gates of the last two levels, and its head."""
        index = self._index[task]
        banks: Any = self.task_banks[-1]
        yield from banks[index].parameters()
        for level in range(max(self._num_levels - 2, 0), self._num_levels):
            gates: Any = self.task_gates[level]
            yield from gates[index].parameters()
        yield from self.heads[index].parameters()
