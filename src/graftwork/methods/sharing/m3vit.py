"""M3ViT: every second feed-forward network of a vision transformer is a sparse mixture of experts whose router depends on the
task.

Paper: Liang et al., "M3ViT: Mixture-of-Experts Vision Transformer for Efficient Multi-task Learning with Model-Accelerator
Co-design", NeurIPS 2022, https://arxiv.org/abs/2210.14793 (code: VITA-Group/M3ViT). Paper to arguments: ``E`` is
``num_experts``, ``K`` is ``top_k``, the expert's width ratio is ``expert_hidden / width``, the weight of the balance loss is
``balance``.

Kept: one router a task (``per_task``) or one router that reads token and task embedding (``conditioned``); softmax over all
experts before the choice, kept gates not renormalised; balance loss of every task's router in every layer; one pass of the
encoder a task in training, only the asked task's pass in prediction; execution expert by expert
(:func:`graftwork.nn.moe_queue.expert_queues`) with equal results.

Departures:

- Blocks before the first mixture know no task: they run once for all tasks, which changes no number.
- With noise, the smooth load compares logits with thresholds among the logits; the released code takes the thresholds after the
  softmax.
- No class token, and a small transformer from scratch in place of a pretrained one.
- The accelerator is not built: its schedule runs on the processor, with weights in a mapped file in place of memory outside of a
  chip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.vit import block_trunk
from graftwork.nn.block_parts import has_feed_forward, replace_feed_forward
from graftwork.nn.heads import build_head, output_size
from graftwork.nn.moe import MoELayer
from graftwork.nn.moe_losses import balance_loss
from graftwork.nn.moe_router import Router, RouterKind

__all__ = ["M3ViT"]


class M3ViT(SharedModel):
    """A vision transformer with task-routed experts, and a head a task.

    ``encode`` returns one representation per asked task, since the features depend on the task; with ``router="shared"`` (the
    task-agnostic baseline) there is one for all.

    Args:
        tasks: The tasks.
        make_backbone: Returns a fresh backbone with blocks (own or timm's vision transformer, timm's Swin, a text encoder of the
            BERT family). In place of the small untrained trunk of a plan from scratch a transformer is built from the size of the
            pictures, with ``width``, ``depth``, ``num_heads`` and dense blocks of hidden width ``top_k * expert_hidden``; it
            averages pictures of more than 48 pixels down.
        inputs: The suite's inputs.
        num_experts: Number of experts ``E`` of each mixture.
        top_k: Experts a token.
        expert_hidden: Hidden width of an expert; None takes the model width.
        router: ``per_task``, ``conditioned`` or ``shared``.
        balance: Weight of the balance loss, which is summed over layers and tasks.
        noise: Standard deviation of the routers' noise in training times ``E``; the released settings have none.
        every: Every so many blocks with a feed-forward network the last one is a mixture.
        width: Model width of a transformer built here; likewise ``depth`` and ``num_heads``.
        depth: See ``width``.
        num_heads: See ``width``.
        dropout: Probability of dropping a hidden unit of an expert.
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.

    Raises:
        ConfigError: If the backbone has no blocks, or fewer than ``every``, a transformer is to be built and the data are no
            pictures, or a number is out of range.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone] | None = None,
        *,
        inputs: InputSpecs,
        num_experts: int = 8,
        top_k: int = 2,
        expert_hidden: int | None = None,
        router: RouterKind = "per_task",
        balance: float = 0.01,
        noise: float = 0.0,
        every: int = 2,
        width: int = 64,
        depth: int = 4,
        num_heads: int = 4,
        dropout: float = 0.0,
        head_hidden: int | None = None,
    ) -> None:
        super().__init__()
        if not balance >= 0:
            raise ConfigError(f"`balance` must be at least 0; got {balance!r}.")
        if not 1 <= top_k <= num_experts:
            raise ConfigError(f"`top_k` must be from 1 to `num_experts`; got {top_k} of {num_experts}.")
        self.task_names = tuple(task.name for task in tasks)
        # Dense blocks as wide as the experts that one token uses, so that dense and sparse blocks cost the same.
        hidden = top_k * (width if expert_hidden is None else expert_hidden)
        self.backbone = block_trunk(
            make_backbone, inputs, method="M3ViT", width=width, depth=depth, num_heads=num_heads, hidden=hidden
        )
        blocks, shapes = list(self.backbone.block_list()), self.backbone.block_shapes()
        fitting = [number for number, block in enumerate(blocks) if has_feed_forward(block)]
        if not 1 <= every <= len(fitting):
            raise ConfigError(f"`every` must be from 1 to the number of blocks; got {every} of {len(fitting)}.")

        def experts(model_width: int) -> MoELayer:
            return MoELayer(
                model_width,
                model_width if expert_hidden is None else expert_hidden,
                num_experts,
                top_k,
                router=Router(model_width, num_experts, num_tasks=len(tasks), kind=router, noise=noise),
                dropout=dropout,
            )

        routed = fitting[every - 1 :: every]
        self._layers: list[MoELayer] = []
        for number in routed:
            layer = experts(shapes[number].width)
            replace_feed_forward(blocks[number], layer, method="M3ViT")
            self._layers.append(layer)
        # No block before the first mixture depends on the task.
        self._first, self._num_blocks = routed[0], len(blocks)
        self.balance, self.has_shared_representation = balance, router == "shared"
        shape, size = self.backbone.feature_shape, output_size(inputs)
        self.heads = nn.ModuleList(build_head(shape, task, hidden=head_hidden, size=size) for task in tasks)
        self._index = {name: index for index, name in enumerate(self.task_names)}

    def moe_layers(self) -> list[MoELayer]:
        """Return the mixtures in order of depth."""
        return list(self._layers)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return one representation per asked task, each from a pass with this task's routers; other tasks' passes do not run."""
        for layer in self._layers:
            # Records of a pass whose loss was never asked for would be added to this one's.
            layer.journal.pop()
        tokens = self.backbone.embed(inputs)
        for number in range(self._first):
            tokens = self.backbone.run_block(number, tokens, inputs)
        if self.has_shared_representation:
            return self._routed(tokens, 0, inputs)
        return tuple(self._routed(tokens, self._index[name], inputs) for name in (self.task_names if tasks is None else tasks))

    def _routed(self, tokens: Tensor, task: int, inputs: Mapping[str, Tensor]) -> Tensor:
        for layer in self._layers:
            # State of the layer, since blocks of other libraries pass no task on.
            layer.task = task
        for number in range(self._first, self._num_blocks):
            tokens = self.backbone.run_block(number, tokens, inputs)
        return self.backbone.finish(tokens, inputs)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked heads, from :meth:`encode`'s result for the same ``tasks``."""
        names = self.task_names if tasks is None else tuple(tasks)
        parts = (representation,) * len(names) if isinstance(representation, Tensor) else representation
        return {name: self.heads[self._index[name]](features) for name, features in zip(names, parts, strict=True)}

    def pop_auxiliary_loss(self) -> Tensor | None:
        """Return the balance loss of the last training pass: squared variations of importance and load, all layers, all tasks."""
        records = [records for records in (layer.journal.pop() for layer in self._layers) if records]
        if not records or self.balance == 0:
            return None
        return self.balance * torch.stack([balance_loss(calls) for calls in records]).sum()

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's head and, with ``per_task``, its routers."""
        for layer in self._layers:
            yield from layer.router.own_parameters(self._index[task])
        yield from self.heads[self._index[task]].parameters()
