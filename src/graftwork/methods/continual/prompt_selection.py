"""Prompt selection on a frozen vision transformer: which prompts a picture gets is decided by the nearest keys.

Papers: Wang et al., "Learning to Prompt for Continual Learning" (L2P), CVPR 2022, https://arxiv.org/abs/2112.08654, and
"DualPrompt", ECCV 2022, https://arxiv.org/abs/2204.04799. The query is the class token of the frozen transformer alone, the
similarity is the cosine, and keys are pulled to the queries that chose them.

``select="pool"`` is L2P: the ``top_k`` nearest of ``pool_size`` prompts, in training as in use, shared by all experiences.
``select="experience"`` is DualPrompt: each experience has a prompt and a key of its own, known in training and guessed in use,
beside ``num_general`` prompts that all experiences go on training.

Departures: prompts of both are keys and values in front (as in DualPrompt), not tokens in front (as in L2P); general prompts and
those of experiences stand in the same blocks; features are scaled to length 1; older rows of the classifier are frozen; a new
experience's prompt starts as a copy of the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.continual_method import ContinualMethod
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.stream import Experience
from graftwork.interfaces.train_step import TrainStep
from graftwork.methods.continual.class_step import class_task, class_trainer
from graftwork.nn.freeze import fix_mode
from graftwork.nn.growing_head import GrowingHead
from graftwork.nn.prefix_attention import class_token_trunk, pre_norm_blocks, prefixed_block

__all__ = ["PromptNetwork", "PromptSelection", "Select"]

Select = Literal["pool", "experience"]


class PromptNetwork(SharedModel):
    """A frozen transformer with prompts in its first blocks; see :class:`PromptSelection` for the arguments."""

    def __init__(
        self,
        task: TaskSpec,
        backbone: Backbone,
        *,
        select: Select,
        num_prompts: int,
        prompt_blocks: int,
        pool_size: int,
        top_k: int,
        num_general: int,
        pull: float,
    ) -> None:
        super().__init__()
        self.trunk = class_token_trunk(backbone, "Prompt selection")
        self._parts = pre_norm_blocks(self.trunk.block_list(), "Prompt selection")
        problems = (
            [] if select in get_args(Select) else [f"`select` must be one of {', '.join(get_args(Select))}; got {select!r}"]
        )
        if num_prompts < 1 or num_general < 0:
            problems.append(f"`num_prompts` must be at least 1 and `num_general` 0; got {num_prompts} and {num_general}")
        if not 1 <= prompt_blocks <= len(self._parts):
            problems.append(f"`prompt_blocks` must be from 1 to {len(self._parts)}; got {prompt_blocks}")
        if select == "pool" and not 1 <= top_k <= pool_size:
            problems.append(f"`top_k` must be from 1 to `pool_size`; got {top_k} of {pool_size}")
        if not pull >= 0:
            problems.append(f"`pull` must be at least 0; got {pull!r}")
        if problems:
            raise ConfigError("The prompts cannot be made as asked.", problems)
        self.task_names = (task.name,)
        self.select, self._top_k, self.pull = select, top_k if select == "pool" else 1, pull
        self._width = self.trunk.feature_shape.width
        self._shape = (prompt_blocks, 2, num_prompts, self._width)
        self.prompts, self.keys = nn.ParameterList(), nn.ParameterList()
        self.general = nn.Parameter(torch.empty(prompt_blocks, 2, num_general, self._width).uniform_(-0.1, 0.1))
        self.head = GrowingHead(self._width, task.size)
        self._auxiliary: Tensor | None = None
        self.trunk.requires_grad_(False)
        fix_mode(self.trunk)
        for _ in range(pool_size if select == "pool" else 0):
            self._add_prompt()

    def _add_prompt(self) -> None:
        self.prompts.append(nn.Parameter(torch.empty(self._shape).uniform_(-0.1, 0.1)))
        self.keys.append(nn.Parameter(torch.empty(self._width).uniform_(-1.0, 1.0)))

    def begin(self, classes: Sequence[int]) -> None:
        """Make ready for new classes; with ``select="experience"`` a prompt and a key are added and older ones frozen.

        Raises:
            ConfigError: If a class is known already.
        """
        self.head.grow(classes)
        if self.select == "experience":
            self.prompts.requires_grad_(False)
            self.keys.requires_grad_(False)
            self._add_prompt()
            if len(self.prompts) > 1:
                with torch.no_grad():
                    self.prompts[-1].copy_(self.prompts[-2])

    def choose(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers of the prompts that rows get, int64 ``[B, k]``, and their cosines ``[B, k]``.

        Args:
            queries: ``[B, width]``.
        """
        similarity = F.normalize(queries, dim=-1) @ F.normalize(torch.stack(list(self.keys)), dim=-1).T
        # In training the experience is known: its own prompt, whatever the keys say. The key learns to be found later.
        if self.training and self.select == "experience":
            return torch.full((len(queries), 1), len(self.keys) - 1, device=queries.device), similarity[:, -1:]
        cosine, chosen = similarity.topk(self._top_k, dim=-1)
        return chosen, cosine

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the features, of length 1, ``[B, width]``."""
        with torch.no_grad():
            # A pass of its own without prompts: the query must not depend on what it selects.
            queries = self.trunk(inputs)
            states = self.trunk.embed(inputs)
        chosen, cosine = self.choose(queries)
        self._auxiliary = self.pull * (1.0 - cosine).mean() if self.training else None
        # [B, k, blocks, 2, P, C] to [blocks, B, 2, k * P, C]: the chosen prompts one after the other.
        prompts = torch.stack(list(self.prompts))[chosen].permute(2, 0, 3, 1, 4, 5).flatten(3, 4)
        # [blocks, B, 2, G, C]
        general = self.general[:, None].expand(-1, len(states), -1, -1, -1)
        prompts = torch.cat([general, prompts], dim=3)
        for number, parts in enumerate(self._parts):
            states = prefixed_block(parts, states, prompts[number] if number < len(prompts) else None)
        return F.normalize(self.trunk.finish(states, inputs), dim=-1)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the logits."""
        assert isinstance(representation, Tensor)
        logits = self.head(representation)
        return dict.fromkeys(self.task_names if tasks is None else tasks, logits)

    def pop_auxiliary_loss(self) -> Tensor | None:
        """Return what pulls the chosen keys to the queries of the last training pass."""
        found, self._auxiliary = self._auxiliary, None
        return found

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the classifier."""
        return self.head.parameters()


class PromptSelection(ContinualMethod):
    """Prompts that are selected by keys, learned experience by experience.

    Args:
        tasks: The one task, multiclass or multilabel.
        backbone: A pretrained vision transformer whose features are its class token; it is frozen.
        select: ``pool`` (L2P) or ``experience`` (DualPrompt).
        num_prompts: Keys and values of one prompt in each block.
        prompt_blocks: Number of blocks with prompts, the first ones.
        pool_size: Prompts of the pool.
        top_k: Prompts of the pool that a picture gets.
        num_general: Keys and values that all pictures get, besides.
        pull: Weight of the mean of one minus the cosine between queries and chosen keys.

    Raises:
        ConfigError: If a setting is out of range, or the backbone has no class token or other blocks.
    """

    model: PromptNetwork

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        backbone: Backbone,
        *,
        select: Select = "pool",
        num_prompts: int = 5,
        prompt_blocks: int = 5,
        pool_size: int = 10,
        top_k: int = 5,
        num_general: int = 0,
        pull: float = 0.5,
    ) -> None:
        self.task = class_task(tasks, "Prompt selection")
        self.model = PromptNetwork(
            self.task,
            backbone,
            select=select,
            num_prompts=num_prompts,
            prompt_blocks=prompt_blocks,
            pool_size=pool_size,
            top_k=top_k,
            num_general=num_general,
            pull=pull,
        )

    def begin(self, experience: Experience) -> TrainStep[Batch]:
        """Make ready for the experience's classes."""
        self.model.begin(experience.classes[self.task.name])
        return class_trainer(self.model, self.task, experience)
