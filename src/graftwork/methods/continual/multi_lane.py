"""MULTI-LANE: every experience owns a lane beside a frozen vision transformer; all lanes run, and no prompt is selected.

Paper: De Min et al., "Less is more: Summarizing Patch Tokens for efficient Multi-Label Class-Incremental Learning", CoLLAs 2024
(code: tdemin16/multi-lane). Symbols to arguments: ``S`` is ``num_selectors``, ``P`` is ``num_prompts``, prompts stand in the
first ``prompt_blocks`` blocks; ``T`` is the number of lanes, ``N`` that of patches, ``C`` the width.

A lane is a class token and ``S`` selectors. In each block of the frozen transformer, with its own norms and weights:

- the selectors ``s`` summarise the frozen patches ``x``: ``r = softmax(s x' / sqrt(C)) x``, both normalised by the block's norm;
- the class token attends to itself, to the summaries and to the lane's prompts. Summaries are dropped afterwards;
- class token and selectors go through the feed-forward network. The patches go through the whole block, untouched by any lane.

The last class token, scaled to length 1, gives the logits of the classes that its experience owns.

Kept: lanes never mix; summaries of the frozen stream in every block, without gradient into it; a new lane starts as a copy of the
last one, and older ones are frozen with their rows of the classifier; logits of other classes are constant in training.

Departures:

- Only the class token asks in the attention, since the other tokens' results are dropped; and selectors, which nothing of a
  picture reaches, are computed once a batch. Neither changes a number.
- Labels of other classes are left out of the mean of the binary cross-entropy, where the paper's code counts them as constants:
  the same gradient, on another scale.
- The classifier has its rows experience by experience, in place of one matrix with masked gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.continual_method import ContinualMethod
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.stream import Experience
from graftwork.interfaces.train_step import TrainStep
from graftwork.methods.continual.class_step import class_task, class_trainer
from graftwork.nn.freeze import fix_mode
from graftwork.nn.growing_head import GrowingHead
from graftwork.nn.prefix_attention import class_token_trunk, pre_norm_blocks, prefix_attention, prefixed_block

__all__ = ["Lane", "LaneNetwork", "MultiLane"]


class Lane(nn.Module):
    """What one experience owns, besides its rows of the classifier. Prompts start small, so that the class token begins near to
    what the frozen transformer makes of it.

    Args:
        width: Width ``C`` of the transformer.
        num_selectors: Number of selectors ``S``.
        prompts: Number of blocks with prompts, and of prompts ``P`` in each.
    """

    def __init__(self, width: int, num_selectors: int, prompts: tuple[int, int]) -> None:
        super().__init__()
        self.selectors = nn.Parameter(torch.empty(num_selectors, width).uniform_(-1.0, 1.0))
        self.prompts = nn.Parameter(torch.empty(prompts[0], 2, prompts[1], width).uniform_(-0.1, 0.1))
        """Keys and values of each block, ``[blocks, 2, P, C]``."""


class LaneNetwork(SharedModel):
    """A frozen transformer and its lanes.

    In training only the newest lane runs; in evaluation mode all lanes do, in one batch. The backbone is frozen and stays in
    evaluation mode.

    Args:
        task: The task whose classes come one after the other.
        backbone: A vision transformer whose features are its class token.
        num_selectors: Number of selectors ``S`` of a lane.
        num_prompts: Number of prompts ``P`` of a lane in each of the first blocks.
        prompt_blocks: Number of blocks with prompts.
        summarise: Whether lanes read summaries. Without them a lane is all tokens of the picture, led through all blocks with the
            lane's prompts, and has no selectors: as many passes as lanes.

    Raises:
        ConfigError: If a number is out of range, or the backbone has no class token or other blocks.
    """

    has_shared_representation = True

    def __init__(
        self,
        task: TaskSpec,
        backbone: Backbone,
        *,
        num_selectors: int = 20,
        num_prompts: int = 20,
        prompt_blocks: int = 5,
        summarise: bool = True,
    ) -> None:
        super().__init__()
        self.trunk = class_token_trunk(backbone, "MULTI-LANE")
        self._parts = pre_norm_blocks(self.trunk.block_list(), "MULTI-LANE")
        ranges = {
            "num_selectors": (num_selectors, 1, math.inf),
            "num_prompts": (num_prompts, 0, math.inf),
            "prompt_blocks": (prompt_blocks, 0, len(self._parts)),
        }
        problems = [
            f"`{name}` must be from {low} to {high}; got {value!r}"
            for name, (value, low, high) in ranges.items()
            if not low <= value <= high
        ]
        if problems:
            raise ConfigError("The lanes cannot be made as asked.", problems)
        self.task_names = (task.name,)
        self.summarise, self._num_selectors = summarise, num_selectors if summarise else 0
        self._prompt_sizes = (prompt_blocks, num_prompts)
        width = self.trunk.feature_shape.width
        self.lanes = nn.ModuleList()
        self.head = GrowingHead(width, task.size)
        self.trunk.requires_grad_(False)
        fix_mode(self.trunk)

    def add_lane(self, classes: Sequence[int]) -> None:
        """Freeze the lanes and add one that owns some classes; it starts as a copy of the last one.

        Raises:
            ConfigError: If a class has an owner.
        """
        self.head.grow(classes)
        lane = Lane(self.trunk.feature_shape.width, self._num_selectors, self._prompt_sizes)
        if self.lanes:
            # A state dict carries values only: the copy of a frozen lane still learns.
            lane.load_state_dict(self.lanes[-1].state_dict())
        self.lanes.requires_grad_(False)
        self.lanes.append(lane)

    def _running(self) -> list[int]:
        """Return the numbers of the lanes that run: the newest one in training, else all of them."""
        if not self.lanes:
            raise GraftworkError("There is no lane yet: begin an experience (add_lane) before the network is asked.")
        return [len(self.lanes) - 1] if self.training else list(range(len(self.lanes)))

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the class tokens of the lanes that run, each of length 1, ``[B, T, C]``."""
        lanes = [self.lanes[number] for number in self._running()]
        selectors, prompts = (torch.stack([getattr(lane, name) for lane in lanes]) for name in ("selectors", "prompts"))
        with torch.no_grad():
            # The frozen stream is computed once and without a graph: no gradient of any lane goes into it.
            states = self.trunk.embed(inputs)
        run = self._run_summaries if self.summarise else self._run_whole
        tokens = run(states, inputs, selectors, prompts.transpose(0, 1))  # prompts [blocks, T, 2, P, C]
        features = self.trunk.finish(tokens.flatten(0, 1), inputs)
        return F.normalize(features, dim=-1).unflatten(0, tokens.shape[:2])

    def _run_summaries(self, states: Tensor, inputs: Mapping[str, Tensor], selectors: Tensor, prompts: Tensor) -> Tensor:
        """Return the class tokens after the last block, ``[B, T, 1, C]``."""
        lanes, _, width = selectors.shape
        # [B, 1 + N, C]: position 0 is the class token. Every lane starts from the same one, [B, T, 1, C].
        token = states[:, None, :1].expand(-1, lanes, -1, -1)
        for number, parts in enumerate(self._parts):
            with torch.no_grad():
                patches = parts.attention_norm(self.trunk.read_states(number, states))  # [B, N, C]
            # All selectors of all lanes side by side: one product for all of them, [B, T * S, N].
            scores = parts.attention_norm(selectors).flatten(0, 1) @ patches.transpose(1, 2) / math.sqrt(width)
            # [B, T, S, C]
            summaries = (scores.softmax(dim=-1) @ patches).unflatten(1, (lanes, -1))
            seen = torch.cat([parts.attention_norm(token), summaries], dim=2)  # [B, T, 1 + S, C]
            token = token + prefix_attention(parts, seen, prompts[number] if number < len(prompts) else None, queries=1)
            token = token + parts.feed(parts.feed_norm(token))
            # After the last block only the class token is read.
            if number + 1 < len(self._parts):
                selectors = selectors + parts.feed(parts.feed_norm(selectors))
                with torch.no_grad():
                    states = self.trunk.run_block(number, states, inputs)
        return token

    def _run_whole(self, states: Tensor, inputs: Mapping[str, Tensor], selectors: Tensor, prompts: Tensor) -> Tensor:
        """Return the class tokens after the last block, each lane led through the blocks with all tokens, ``[B, T, 1, C]``."""
        lanes = states[:, None].expand(-1, len(selectors), -1, -1)
        for number, parts in enumerate(self._parts):
            lanes = prefixed_block(parts, lanes, prompts[number] if number < len(prompts) else None)
        return lanes[:, :, :1]

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the logits, each class read from the lane of its owner."""
        assert isinstance(representation, Tensor)
        # [T, B, C]: one lane for each group of classes.
        logits = self.head(representation.transpose(0, 1), self._running())
        return dict.fromkeys(self.task_names if tasks is None else tasks, logits)

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the classifier."""
        return self.head.parameters()


class MultiLane(ContinualMethod):
    """Lanes, learned experience by experience.

    Args:
        tasks: The one task, multiclass or multilabel.
        backbone: A pretrained vision transformer; it is frozen.
        num_selectors: See :class:`LaneNetwork`; likewise the others.
        num_prompts: See :class:`LaneNetwork`.
        prompt_blocks: See :class:`LaneNetwork`.
        summarise: See :class:`LaneNetwork`.

    Raises:
        ConfigError: See :class:`LaneNetwork`; and if the task is of another kind.
    """

    model: LaneNetwork

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        backbone: Backbone,
        *,
        num_selectors: int = 20,
        num_prompts: int = 20,
        prompt_blocks: int = 5,
        summarise: bool = True,
    ) -> None:
        self.task = class_task(tasks, "MULTI-LANE")
        self.model = LaneNetwork(
            self.task,
            backbone,
            num_selectors=num_selectors,
            num_prompts=num_prompts,
            prompt_blocks=prompt_blocks,
            summarise=summarise,
        )

    def begin(self, experience: Experience) -> TrainStep[Batch]:
        """Add the experience's lane."""
        self.model.add_lane(experience.classes[self.task.name])
        return class_trainer(self.model, self.task, experience)
