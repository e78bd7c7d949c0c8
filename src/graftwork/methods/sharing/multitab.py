"""MultiTab-Net: a transformer over table cells with one token per task, which masks keep from competing.

Paper: "MultiTab: A Scalable Foundation for Multitask Learning on Tabular Data", 2025 (Armanfard lab; code:
Armanfard-Lab/MultiTab).

Tokens of a row: ``T`` task tokens, then one token per column. A block is attention between the tokens of a row under one of four
masks, then (``att_type="row_col"``) attention between the rows of a batch, each row being one long vector. Task token ``t``
feeds task ``t``'s tower.

Departures and choices:

- The released rotary attention between rows sees sequences of length one, so rows cannot read each other there; ours is over the
  ``B`` rows of the batch, as the paper describes it.
- Attention between rows makes a prediction depend on the rows it is batched with. Plans of ``graftwork fit`` therefore use
  ``att_type="col"``; whoever uses ``"row_col"`` must fix batch size and order in evaluation (the recipe does).
- A mask is in force in training and in evaluation alike, as in the released code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs, input_of_kind
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.mlp import mlp
from graftwork.nn.tokenizer import FeatureTokenizer

__all__ = ["Mask", "MultiTabNet", "task_mask"]

Mask = Literal["none", "TxT", "FxT", "FxT_TxT"]


def task_mask(num_tasks: int, num_features: int, mask: Mask) -> Tensor | None:
    """Return which token (row) may not read which (column), bool ``[T + F, T + F]``, task tokens first; None if nothing is
    blocked.

    Args:
        num_tasks: Number of task tokens ``T``.
        num_features: Number of feature tokens ``F``.
        mask: ``TxT`` keeps task tokens from reading other task tokens, ``FxT`` feature tokens from reading task tokens,
            ``FxT_TxT`` both.

    Example:
        >>> task_mask(2, 1, "FxT_TxT").int().tolist()
        [[0, 1, 0], [1, 0, 0], [1, 1, 0]]
    """
    if mask == "none":
        return None
    blocked = torch.zeros(num_tasks + num_features, num_tasks + num_features, dtype=torch.bool)
    if mask in ("TxT", "FxT_TxT"):
        blocked[:num_tasks, :num_tasks] = ~torch.eye(num_tasks, dtype=torch.bool)
    if mask in ("FxT", "FxT_TxT"):
        blocked[num_tasks:, :num_tasks] = True
    return blocked


class _Block(nn.Module):
    def __init__(self, columns: AttentionBlock, rows: AttentionBlock | None) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.columns(tokens)
        if self.rows is None:
            return tokens
        # [B, L, d] to [1, B, L * d]: the rows of the batch become the sequence.
        return self.rows(tokens.flatten(1).unsqueeze(0)).squeeze(0).view_as(tokens)


class MultiTabNet(SharedModel):
    """MultiTab-Net for tables.

    Args:
        tasks: The tasks; one token and one tower each.
        make_backbone: Not called: the network is its own trunk.
        inputs: The suite's inputs: a table.
        width: Token width ``d``.
        num_heads: Attention heads.
        hidden: Hidden width of feed-forward networks.
        num_blocks: Number of blocks.
        mask: Which attention is blocked; see :func:`task_mask`.
        att_type: ``"col"`` attends between cells of a row, ``"row_col"`` also between rows of the batch.
        rotary: Whether row attention sees rotary positions (the order of rows in the batch).
        single_token: One token for all tasks instead of one each (the paper's ablation).
        tower: Hidden width of each task's tower.
        dropout: Probability of dropping attention weights and hidden units.

    Raises:
        ConfigError: If the inputs are not those of a table, or an option has an unknown value.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone] | None = None,
        *,
        inputs: InputSpecs,
        width: int = 16,
        num_heads: int = 4,
        hidden: int = 256,
        num_blocks: int = 1,
        mask: Mask = "TxT",
        att_type: Literal["col", "row_col"] = "col",
        rotary: bool = False,
        single_token: bool = False,
        tower: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = input_of_kind(inputs, "table", needed_by="MultiTab-Net").sizes
        if mask not in ("none", "TxT", "FxT", "FxT_TxT") or att_type not in ("col", "row_col"):
            raise ConfigError(
                f"`mask` is none, TxT, FxT or FxT_TxT and `att_type` col or row_col; got {mask!r} and {att_type!r}."
            )
        self.task_names = tuple(task.name for task in tasks)
        self.has_shared_representation = single_token
        self.single_token = single_token
        self.tokenizer = FeatureTokenizer(int(sizes["num_numeric"]), list(sizes["cardinalities"]), width)
        self.num_task_tokens = 1 if single_token else len(tasks)
        self.task_tokens = nn.Parameter(torch.zeros(self.num_task_tokens, width))
        length = self.num_task_tokens + self.tokenizer.num_tokens
        blocked = task_mask(self.num_task_tokens, self.tokenizer.num_tokens, mask)

        def block() -> _Block:
            columns = AttentionBlock(width, num_heads, hidden, blocked=blocked, dropout=dropout)
            if att_type == "col":
                return _Block(columns, None)
            return _Block(columns, AttentionBlock(width * length, num_heads, hidden, rotary=rotary, dropout=dropout))

        self.blocks = nn.Sequential(*(block() for _ in range(num_blocks)))
        self.towers = nn.ModuleList(mlp([width, tower, task.num_outputs], dropout=dropout) for task in tasks)
        # Overwrites what the layers drew; the task tokens are no layer and follow by hand.
        self.apply(_start_small)
        nn.init.normal_(self.task_tokens, 0.0, 0.01)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the asked tasks' tokens after the last block, ``[B, d]`` each (one shared tensor with ``single_token``).

        All tokens are computed whatever is asked: feature tokens may read any task token.
        """
        cells = self.tokenizer(inputs["numeric"], inputs["categorical"])
        # [B, T, d]
        first = self.task_tokens.expand(cells.shape[0], -1, -1)
        tokens: Tensor = self.blocks(torch.cat([first, cells], dim=1))
        if self.single_token:
            return tokens[:, 0]
        asked = self.task_names if tasks is None else tasks
        return tuple(tokens[:, self.task_names.index(name)] for name in asked)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Run the asked towers."""
        asked = self.task_names if tasks is None else tuple(tasks)
        tokens = (representation,) * len(asked) if isinstance(representation, Tensor) else representation
        return {name: self.towers[self.task_names.index(name)](token) for name, token in zip(asked, tokens, strict=True)}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the tower's parameters; tokens and attention are shared (other tokens may read them)."""
        return self.towers[self.task_names.index(task)].parameters()


def _start_small(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 0.01)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
