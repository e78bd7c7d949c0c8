"""TaskExpert: a decoder whose task features are mixed anew for every sample, from experts that tasks share and a memory of each
task.

Paper: Ye and Xu, "TaskExpert: Dynamically Assembling Multi-Task Representations with Memorial Mixture-of-Experts", ICCV 2023,
https://arxiv.org/abs/2307.15324. No code of it was available; what the paper leaves open is marked below.

A vision transformer is tapped at ``L`` layers. At each, ``N`` experts decompose the features ``X_l`` into task-generic maps
``Z_n``; the gate of task ``t`` mixes them with the task's memory, ``F_t = sum_n g_n Z_n + g_{N+1} M_t``, and the memory is
written. Nothing is selected (dense, soft gates, no balance loss). The memory lives within one forward pass.

Choices where the paper is not precise: weights per sample (``gate="spatial"`` is the finer form); ``M_0`` is a learned constant
of each task; the memory is written as ``M + conv(F)``; the memories after all taps (``fusion="all"``) or the last one alone
(``"last"``) go to the head; no preliminary
predictions. Departures: the library's small transformer in place of ViT-B and ViT-L, and its heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone, BlockBackbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.vit import block_trunk
from graftwork.nn.decoders import MultiScaleDecoder
from graftwork.nn.heads import output_size
from graftwork.nn.memorial_experts import ConvExperts, GateKind, MemorialMixture

__all__ = ["TaskExpert", "even_taps", "tapped_maps"]


def even_taps(depth: int, num_taps: int) -> tuple[int, ...]:
    """Return ``num_taps`` block numbers, evenly spaced, the last block among them.

    Raises:
        ConfigError: If there are more taps than blocks, or none.

    Example:
        >>> even_taps(8, 4)
        (1, 3, 5, 7)
    """
    if not 1 <= num_taps <= depth:
        raise ConfigError(f"`num_taps` must be 1 to the {depth} blocks of the transformer; got {num_taps}.")
    return tuple((index + 1) * depth // num_taps - 1 for index in range(num_taps))


def tapped_maps(trunk: BlockBackbone, inputs: Mapping[str, Tensor], taps: Sequence[int]) -> list[Tensor]:
    """Return the maps ``[B, width, side, side]`` after the tapped blocks; the last block's pass the final norm."""
    tokens, maps, depth = trunk.embed(inputs), [], len(trunk.block_list())
    for number in range(depth):
        tokens = trunk.run_block(number, tokens, inputs)
        if number in taps:
            # Only the last block's output is what the trunk's final norm was made for.
            states = trunk.final_norm(tokens) if number == depth - 1 else tokens
            maps.append(_as_map(trunk.read_states(number, states)))
    return maps


def _as_map(states: Tensor) -> Tensor:
    """Return tokens ``[B, side ** 2, width]`` of a square picture as a map; maps as they are."""
    if states.dim() == 4:
        return states
    # [B, side ** 2, C] to [B, C, side, side]; `_tap_width` has checked that the picture is square.
    side = math.isqrt(states.shape[1])
    return states.transpose(1, 2).unflatten(2, (side, side))


def _tap_width(trunk: BlockBackbone, taps: Sequence[int]) -> int:
    """Return the width of the tapped maps.

    Raises:
        ConfigError: If they have several widths or sizes, or are no maps of square pictures.
    """
    shapes = [trunk.block_shapes()[number] for number in taps]
    extents = {shape.extent for shape in shapes}
    is_square = all(len(extent) == 2 or (len(extent) == 1 and math.isqrt(extent[0]) ** 2 == extent[0]) for extent in extents)
    if len({(shape.width, shape.extent) for shape in shapes}) != 1 or not is_square:
        raise ConfigError(
            "TaskExpert hands a memory from tap to tap, so the maps after the tapped blocks must have one width and size; "
            f"{type(trunk).__name__} has {[(shape.width, *shape.extent) for shape in shapes]}. Choose a vision transformer, or "
            "fewer taps."
        )
    return shapes[0].width


class TaskExpert(SharedModel):
    """A vision transformer and a memorial mixture of experts per tapped layer.

    The representation holds the tapped features and the experts' outputs side by side along the channels: everything that tasks
    share. Gates, memories and heads are the tasks' own.

    Args:
        tasks: The tasks, dense or with one prediction a row.
        make_backbone: Returns a vision transformer (own or timm's). In place of the small untrained trunk of a plan from scratch
            a new one is built, sized by the pictures, ``width``, ``depth`` and ``num_heads``.
        inputs: The suite's inputs: pictures.
        num_experts: Number of experts per tapped layer, ``N``.
        expert_width: Channels of experts and memory, ``C'``.
        num_taps: Number of tapped layers ``L``, evenly spaced.
        gate: What the mixing weights depend on; ``static`` (the task alone) is the ablation.
        memory: Whether tasks have a memory; False is the ablation.
        residual: Whether writing adds to the memory.
        fusion: Whether the head reads the task's features of all taps or of the last one.
        channels: Channels of each of these in the head.
        head_hidden: Hidden width of the heads.
        width: Width of a new transformer.
        depth: Number of its blocks.
        num_heads: Number of its attention heads.

    Raises:
        ConfigError: If there are no pictures, the backbone has no blocks whose maps are alike, or a setting is out of range.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        num_experts: int = 5,
        expert_width: int = 32,
        num_taps: int = 4,
        gate: GateKind = "sample",
        memory: bool = True,
        residual: bool = True,
        fusion: Literal["all", "last"] = "all",
        channels: int = 16,
        head_hidden: int | None = None,
        width: int = 64,
        depth: int = 8,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        if fusion not in ("all", "last"):
            raise ConfigError(f"`fusion` must be 'all' or 'last'; got {fusion!r}.")
        if fusion == "last" and not memory:
            raise ConfigError("`fusion` 'last' needs `memory`: without it nothing of the earlier taps reaches the head.")
        self.task_names = tuple(task.name for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}
        trunk = block_trunk(make_backbone, inputs, method="TaskExpert", width=width, depth=depth, num_heads=num_heads)
        self.backbone = trunk
        self.fusion = fusion
        self._taps = even_taps(len(trunk.block_list()), num_taps)
        tap_width = _tap_width(trunk, self._taps)
        # Channels of the representation: features and experts of each tap in turn.
        self._split = [tap_width, num_experts * expert_width] * num_taps
        self.experts = nn.ModuleList(ConvExperts(tap_width, expert_width, num_experts) for _ in self._taps)
        self.mixtures = nn.ModuleList(
            nn.ModuleList(
                MemorialMixture(tap_width, expert_width, num_experts, gate=gate, memory=memory, residual=residual)
                for _ in self._taps
            )
            for _ in tasks
        )
        self.first_memories = nn.ParameterList(nn.Parameter(torch.zeros(expert_width)) for _ in tasks if memory)
        size, num_read = output_size(inputs), num_taps if fusion == "all" else 1
        self.heads = nn.ModuleList(
            MultiScaleDecoder(task, [expert_width] * num_read, channels=channels, size=size, head_hidden=head_hidden)
            for task in tasks
        )

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return tapped features and experts, ``[B, L * (C + N * C'), side, side]``."""
        maps = tapped_maps(self.backbone, inputs, self._taps)
        pairs = [(features, experts(features)) for features, experts in zip(maps, self.experts, strict=True)]
        return torch.cat([part for pair in pairs for part in pair], dim=1)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks; gates and memories of the others are not computed."""
        assert isinstance(representation, Tensor)
        outputs = {}
        for name in self.task_names if tasks is None else tasks:
            states, _ = self._assemble(self._index[name], representation)
            outputs[name] = self.heads[self._index[name]](states if self.fusion == "all" else states[-1:])
        return outputs

    def gates(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the mixing weights of the asked tasks, ``[L, B, N (+ 1)]``, means over places for spatial gates; the memory's
        come last."""
        representation = self.encode(inputs)
        weights = {name: self._assemble(self._index[name], representation)[1] for name in tasks or self.task_names}
        return {name: torch.stack([item.mean(dim=(2, 3)) for item in items]) for name, items in weights.items()}

    def _assemble(self, index: int, representation: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one task's features and mixing weights after each tap."""
        parts = representation.split(self._split, dim=1)
        memory: Tensor | None = None
        if len(self.first_memories):
            # A sum, no view of the parameter: each sample's memory is a tensor of its own.
            memory = torch.zeros_like(parts[0][:, :1]) + self.first_memories[index].view(1, -1, 1, 1)
        states, weights = [], []
        mixtures: Any = self.mixtures[index]
        for layer, mixture in enumerate(mixtures):
            state, weight = mixture(parts[2 * layer], parts[2 * layer + 1], memory)
            states.append(state)
            weights.append(weight)
            # The mixture returns the written memory, which the next tap reads.
            memory = state if memory is not None else None
        return states, weights

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's gates, convolutions, first memory and head."""
        index = self._index[task]
        yield from self.mixtures[index].parameters()
        if len(self.first_memories):
            yield self.first_memories[index]
        yield from self.heads[index].parameters()
