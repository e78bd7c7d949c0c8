"""MultiTab-Net: a transformer over table cells with one token per task, which masks keep from competing.

Paper: Sinodinos, Wei and Armanfard, "MultiTab: A Scalable Foundation for Multitask Learning on Tabular Data", AAAI 2026,
https://arxiv.org/abs/2511.09970 (code: Armanfard-Lab/MultiTab).

Tokens of a row: ``T`` task tokens, then one token per column. A block is attention between the tokens of a row under one of four
masks, then a second attention in which a row is one long vector of all its tokens. Task token ``t`` feeds task ``t``'s tower.

The second attention comes in two forms, and both are here:

- ``att_type="row_col"`` is the paper's text, and the released code without rotary positions: the ``B`` rows of a batch are the
  sequence, and read each other.
- ``att_type="row_self"`` is what the released code computes with rotary positions, the setting of all its data sets but one: the
  sequence has length one, each row reads itself, and what is left of the attention are its value and output layers. Predictions
  do not depend on the batch.

Departures and choices:

- Attention between rows makes a prediction depend on the rows it is batched with. Plans of ``graftwork fit`` therefore use
  ``att_type="col"``; whoever uses ``"row_col"`` must fix batch size and order in evaluation (the recipe does).
- Query and key layers are left out of ``"row_self"``: a softmax over one place is 1 whatever they are.
- A mask is in force in training and in evaluation alike, as in the released code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, get_args

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

__all__ = ["Mask", "MultiTabNet", "RowAttention", "task_mask"]

Mask = Literal["none", "TxT", "FxT", "FxT_TxT"]
RowAttention = Literal["col", "row_col", "row_self"]


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


class _SelfRead(nn.Module):
    """An attention block over sequences of length one: a row reads itself, ``[B, width]`` to ``[B, width]``."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows + self.output(self.value(self.attention_norm(rows)))
        return rows + self.feed(self.feed_norm(rows))


class _Block(nn.Module):
    def __init__(self, columns: AttentionBlock, rows: AttentionBlock | _SelfRead | None) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.columns(tokens)
        if self.rows is None:
            return tokens
        if isinstance(self.rows, _SelfRead):
            return self.rows(tokens.flatten(1)).view_as(tokens)
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
        att_type: ``"col"`` attends between cells of a row; ``"row_col"`` also between rows of the batch, ``"row_self"`` also of
            each row to itself alone, as the released code does with rotary positions.
        rotary: Whether ``"row_col"`` sees rotary positions (the order of rows in the batch).
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
        att_type: RowAttention = "col",
        rotary: bool = False,
        single_token: bool = False,
        tower: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = input_of_kind(inputs, "table", needed_by="MultiTab-Net").sizes
        if mask not in get_args(Mask) or att_type not in get_args(RowAttention):
            raise ConfigError(
                f"`mask` is none, TxT, FxT or FxT_TxT and `att_type` col, row_col or row_self; got {mask!r} and {att_type!r}."
            )
        if rotary and att_type != "row_col":
            raise ConfigError(f"`rotary` gives positions to the rows of a batch: it needs att_type='row_col'; got {att_type!r}.")
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
            if att_type == "row_self":
                return _Block(columns, _SelfRead(width * length, hidden, dropout))
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
