"""MTLoRA: low-rank adaptation of one frozen hierarchical transformer for several tasks at once.

Paper: Agiza, Neseem and Reda, "MTLoRA: A Low-Rank Adaptation Approach for Efficient Multi-Task Learning", CVPR 2024,
https://arxiv.org/abs/2403.20320 (code: scale-lab/MTLoRA, which decides where paper and code differ).

Every linear layer of every block (query-key-value, projection, both feed-forward layers) has a task-agnostic low-rank update. In
the last block of each stage projection and feed-forward layers have one more update per task: there the stream forks at the
projection, and residual, norm and feed-forward network are applied to each task's stream. The shared stream goes on to the next
stage; the task streams pass the stage's patch merging and end in the tasks' multi-scale decoders.

Symbols: ``r`` = ``shared_rank``, ``r_t`` = ``task_rank``, the scale (4.0, not divided by the rank) = ``scaling``.

Departures: the decoder has group norm in place of batch norm and ends in the library's head in place of a 1x1 convolution; no
stochastic depth; the shared update of the very last layer, which nothing reads in modes ``matrix`` and ``addition``, is left
out. Kept from the released code
though surprising: in mode ``matrix`` a task's output leaves out the shared update, and the frozen map reads the shared stream
only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs, input_of_kind
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.swin import SwinBackbone, SwinBlock
from graftwork.nn.backbones.swin_timm import as_swin
from graftwork.nn.decoders import MultiScaleDecoder
from graftwork.nn.heads import output_size
from graftwork.nn.lora import wrap_layer
from graftwork.nn.task_lora import SharedMode, TaskLowRankLinear

__all__ = ["MTLoRA", "Mode"]

Mode = Literal["matrix", "matrixv2", "addition", "lora_only"]
"""See :class:`graftwork.nn.task_lora.TaskLowRankLinear`; ``lora_only`` never forks: all tasks read the shared stream."""

FORKED = ("output", "expand", "contract")
"""Layers of a stage's last block that have an update per task."""


class MTLoRA(SharedModel):
    """A frozen Swin with task-agnostic and task-specific low-rank updates, and a multi-scale decoder a task.

    Args:
        tasks: The tasks, dense or with one prediction a row.
        make_backbone: Returns the pretrained base: the own Swin, or one of timm's.
        inputs: The suite's inputs (dense decoders need the size of its pictures).
        shared_rank: Rank of the task-agnostic updates; 0 is allowed with ``lora_only`` and leaves them out.
        task_rank: Rank of the task-specific updates, one for all tasks or ``{task: rank}``.
        scaling: Factor on every update.
        dropout: Probability of dropping an input of an update, in ``[0, 1)``.
        mode: What the streams get; see :data:`Mode`.
        train_patches: Train the patch embedding; like the next three as released.
        train_norms: Train all layer norms.
        train_position_bias: Train the relative position biases.
        train_merging: Train the reductions of the patch mergings.
        merging_lora: Give these reductions a low-rank update in place of training them (MTLoRA+).
        channels: Channels to which a decoder reduces the map of each stage; one number, or one for each stage.
        head_hidden: Hidden width of the heads.
        new_base: Settings of a new, untrained :class:`~graftwork.nn.backbones.swin.SwinBackbone` to take in place of
            ``make_backbone()``, for tests and for whoever loads weights of their own into ``model.backbone``.

    Raises:
        ConfigError: If the backbone is no Swin, a mode is unknown, or a rank or the number of channels does not fit.
    """

    has_shared_representation = False

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        shared_rank: int = 64,
        task_rank: int | Mapping[str, int] = 4,
        scaling: float = 4.0,
        dropout: float = 0.05,
        mode: Mode = "matrix",
        train_patches: bool = True,
        train_norms: bool = True,
        train_position_bias: bool = True,
        train_merging: bool = True,
        merging_lora: bool = False,
        channels: int | Sequence[int] = (18, 36, 72, 144),
        head_hidden: int | None = None,
        new_base: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}
        self.mode = mode
        ranks = [task_rank if isinstance(task_rank, int) else task_rank.get(name, 0) for name in self.task_names]
        self._check(shared_rank, ranks)
        self.backbone = as_swin(make_backbone()) if new_base is None else _new_base(new_base, inputs)
        # Before the updates are added: those must learn.
        self.backbone.requires_grad_(False)
        self.backbone.norm = nn.Identity()  # type: ignore[assignment] # it follows the last map; no stream passes it
        self._add_updates(shared_rank, ranks, scaling, dropout, merging_lora)
        for name, parameter in self.backbone.named_parameters():
            parent = self.backbone.get_submodule(name.rpartition(".")[0])
            if (
                (train_norms and isinstance(parent, nn.LayerNorm))
                or (train_position_bias and name.endswith("position_bias"))
                or (train_patches and name.startswith("patches."))
                or (train_merging and name.endswith("merge.reduction.weight"))
            ):
                parameter.requires_grad_(True)
        self._decoders = nn.ModuleList(
            MultiScaleDecoder(task, self._map_widths(), channels=channels, size=output_size(inputs), head_hidden=head_hidden)
            for task in tasks
        )

    def _check(self, shared_rank: int, ranks: Sequence[int]) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"`mode` must be one of {', '.join(get_args(Mode))}; got {self.mode!r}.")
        if shared_rank < (0 if self.mode == "lora_only" else 1):
            raise ConfigError(f"`shared_rank` must be at least 1 (0 with mode 'lora_only'); got {shared_rank}.")
        if self.mode != "lora_only" and min(ranks) < 1:
            raise ConfigError(f"`task_rank` must give every task a rank of at least 1; got {dict(zip(self.task_names, ranks))}.")

    def _add_updates(self, shared_rank: int, ranks: Sequence[int], scaling: float, dropout: float, merging_lora: bool) -> None:
        stages = self.backbone.stages()
        for stage in stages:
            for block in stage.blocks:
                forks = self.mode != "lora_only" and block is stage.blocks[-1]
                for name in ("project", "output", "expand", "contract"):
                    base: Any = getattr(block, name)
                    if forks and name in FORKED:
                        mode: SharedMode = self.mode  # type: ignore[assignment]
                        # No later layer reads the shared stream of the very last one.
                        ends = stage is stages[-1] and name == "contract"
                        layer: nn.Module = TaskLowRankLinear(
                            base, ranks, shared_rank=shared_rank, scaling=scaling, dropout=dropout, mode=mode, ends_shared=ends
                        )
                    elif shared_rank:
                        layer = wrap_layer(base, shared_rank, scaling, dropout)
                    else:
                        continue
                    setattr(block, name, layer)
            if merging_lora and shared_rank and stage.merge is not None:
                stage.merge.reduction = wrap_layer(stage.merge.reduction, shared_rank, scaling, dropout)  # type: ignore[assignment]

    def _map_widths(self) -> list[int]:
        """Return the channels of the maps that decoders get: those after each stage's merging."""
        widths = self.backbone.widths
        # Merging takes a stage's map to the next stage's width; the last stage has no merging.
        return [*widths[1:], widths[-1]]

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> tuple[Tensor, ...]:
        """Return the fused multi-scale features of the asked tasks' streams, ``[B, sum(channels), h, w]`` each.

        Streams that are not asked are not computed, save in mode ``addition``, whose shared stream is made of all of them.
        """
        asked = [self._index[name] for name in (self.task_names if tasks is None else tasks)]
        # Positions in `maps` follow `running`, not the order of the tasks.
        running = list(range(len(self.task_names))) if self.mode == "addition" else asked
        maps = self._stream_maps(inputs, running)
        single = self.mode == "lora_only"
        return tuple(
            self._decoder(index).fuse([streams[0 if single else running.index(index)] for streams in maps]) for index in asked
        )

    def _stream_maps(self, inputs: Mapping[str, Tensor], running: Sequence[int]) -> list[Tensor]:
        """Return the streams after each stage, ``[T, B, width, h, w]`` (``T`` is 1 if nothing forks)."""
        maps = []
        states = self.backbone.embed(inputs)
        for stage in self.backbone.stages():
            for block in stage.blocks[:-1]:
                states = block(states)
            last: Any = stage.blocks[-1]
            if self.mode == "lora_only":
                states = last(states)
                states = states if stage.merge is None else stage.merge(states)
                streams = states.unsqueeze(0)
            else:
                states, streams = _fork(last, states, running)
                if stage.merge is not None:
                    # Shared and task streams share the merging: one pass over [(1 + T) * B, S, S, width].
                    together = torch.cat([states.unsqueeze(0), streams]).flatten(0, 1)
                    merged = stage.merge(together).unflatten(0, (1 + len(running), -1))
                    states, streams = merged[0], merged[1:]
            # Swin keeps channels last, decoders want [T, B, width, h, w].
            maps.append(streams.permute(0, 1, 4, 2, 3))
        return maps

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked tasks from :meth:`encode`'s tuple for the same ``tasks``."""
        names = self.task_names if tasks is None else tasks
        return {name: self._decoder(self._index[name]).predict(fused) for name, fused in zip(names, representation, strict=True)}

    def _decoder(self, index: int) -> MultiScaleDecoder:
        decoder = self._decoders[index]
        assert isinstance(decoder, MultiScaleDecoder)
        return decoder

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's low-rank updates and of its decoder."""
        index = self._index[task]
        for module in self.backbone.modules():
            if isinstance(module, TaskLowRankLinear):
                yield from module.updates[index].parameters()
        yield from self._decoder(index).parameters()


def _fork(block: Any, states: Tensor, asked: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Run a block whose layers :data:`FORKED` are task-specific: the shared states ``[B, S, S, width]`` and the task streams
    ``[T, B, S, S, width]``."""
    assert isinstance(block, SwinBlock)
    output: Any = block.output
    # None: up to here all tasks share one stream, which forks in this layer.
    shared, streams = output(block.mix(block.attention_norm(states)), None, asked)
    shared, streams = states + shared, states + streams  # each stream keeps its own shortcut
    hidden, task_hidden = _call(block.expand, block.feed_norm(shared), block.feed_norm(streams), asked)
    fed, task_fed = _call(block.contract, F.gelu(hidden), F.gelu(task_hidden), asked)
    return shared + fed, streams + task_fed


def _call(layer: Any, shared: Tensor, streams: Tensor, asked: Sequence[int]) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = layer(shared, streams, asked)
    return result


def _new_base(settings: Mapping[str, Any], inputs: InputSpecs) -> SwinBackbone:
    sizes = input_of_kind(inputs, "image", needed_by="MTLoRA").sizes
    return SwinBackbone(**{"size": int(sizes["image_size"]), **settings})
