"""A modular vision model: task-routed experts in feed-forward networks and in attention, trained on differently labelled data
sets at once.

Paper: Chen et al., "An Efficient General-Purpose Modular Vision Model via Multi-Task Heterogeneous Training", 2023,
https://arxiv.org/abs/2306.17165; the layer is that of its predecessor, Chen et al., "Mod-Squad",
https://arxiv.org/abs/2212.08066 (code: UMass-Foundation-Model/Mod-Squad).

Kept: every block has feed-forward experts and attention experts (own query and output projections, shared keys and values);
every task has its own routers, which start at zero with learned noise, and a learned embedding that is added to all tokens
before each block; probabilities get a floor of 1e-4 and are not renormalised; minus the mutual information of task and expert is
a loss over all tasks of a step; each data set of a step goes through the model with
its own task only, gradients are added up. Afterwards: a task's model is cut out by use of experts (:meth:`ModMoE.extract`), a
new task gets routers and head alone or new experts as well, while all that is older stays as it is (:meth:`ModMoE.add_task`,
:meth:`ModMoE.train_only`).

Departures:

- Noise is drawn in training only; the released predecessor draws it in evaluation too.
- The mutual information is the exact formula; the released code adds 1e-4 to the marginals and inside the logarithm.
- A dropped expert leaves the softmax of the others as it was, so that tokens that never chose it give the same result.
- Heads are the library's (pooled or convolutional); detection is a map of centres, without boxes.
- A step's rows of all data sets come as one batch and are parted by their labels, in place of one batch per worker.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.vit import block_trunk
from graftwork.nn.block_parts import replace_attention, replace_feed_forward
from graftwork.nn.heads import build_head, output_size
from graftwork.nn.moe import MoEAttention, MoELayer, RoutedLayer, routed_layers
from graftwork.nn.moe_losses import balance_loss, mutual_information_loss
from graftwork.nn.moe_router import Router

__all__ = ["ModMoE", "kept_experts"]

_FLOOR = 1e-4


def kept_experts(usage: Tensor, top_k: int, *, threshold: float | None = None, share: float | None = None) -> list[int]:
    """Return which experts of a layer a task keeps, in their order; at least ``top_k``.

    Args:
        usage: Share of the task's choices that fell on each expert, ``[E]`` (:func:`graftwork.nn.moe_losses.expert_usage`).
        top_k: Experts a token; an expert that every token chooses has a share of ``1 / top_k``.
        threshold: Keep experts with at least ``threshold / top_k``.
        share: Keep this share of the experts, the most used ones.

    Raises:
        ConfigError: If not exactly one of both is given, in ``[0, 1]``.

    Example:
        >>> kept_experts(torch.tensor([0.5, 0.01, 0.45, 0.04]), 2, threshold=0.05)
        [0, 2, 3]
    """
    given = threshold if share is None else share
    if given is None or (threshold is not None and share is not None) or not 0 <= given <= 1:
        raise ConfigError(f"Give either `threshold` or `share`, from 0 to 1; got {threshold!r} and {share!r}.")
    # Stable: among equally used experts the first ones stay, on every machine.
    order = torch.argsort(usage, descending=True, stable=True).tolist()
    if share is not None:
        count = int(share * len(order))
    else:
        count = int((usage >= given / top_k).sum())
    return sorted(order[: max(count, min(top_k, len(order)))])


class ModMoE(SharedModel):
    """A vision transformer of routed blocks.

    Args:
        tasks: The tasks.
        make_backbone: Returns a fresh backbone whose blocks have one width (own or timm's vision transformer; text encoders of
            the BERT family with ``attention_experts=0``), whose attention and feed-forward networks are replaced. In place of the
            small untrained trunk of a plan from scratch a transformer is built from the size of the pictures, which averages
            pictures of more than 48 pixels down.
        inputs: The suite's inputs.
        num_experts: Feed-forward experts of a block.
        top_k: Feed-forward experts a token.
        expert_hidden: Hidden width of a feed-forward expert; None takes the model width.
        attention_experts: Attention experts of a block; 0 keeps plain attention.
        attention_top_k: Attention experts (heads) a token.
        head_width: Width of an attention expert; None takes ``width / attention_top_k``.
        mutual_information: Weight of minus the mutual information of task and expert in each routed layer.
        balance: Weight of the balance loss of each routed layer and task, for comparison; the paper switches it off.
        noise: Noise of the routers in training: ``"learned"``, or its standard deviation times the number of experts.
        every: Every so many blocks the last one is routed.
        width: Model width of a transformer built here; likewise ``depth``.
        depth: See ``width``.
        head_hidden: Hidden width of the heads; 0 makes them linear, None takes the default of
            :func:`graftwork.nn.heads.build_head`.

    Raises:
        ConfigError: If the backbone has no blocks or blocks of several widths, a transformer is to be built and the data are no
            pictures, or a number is out of range.
    """

    has_shared_representation = False

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone] | None = None,
        *,
        inputs: InputSpecs,
        num_experts: int = 8,
        top_k: int = 2,
        expert_hidden: int | None = None,
        attention_experts: int = 8,
        attention_top_k: int = 4,
        head_width: int | None = None,
        mutual_information: float = 0.01,
        balance: float = 0.0,
        noise: float | Literal["learned"] = "learned",
        every: int = 1,
        width: int = 64,
        depth: int = 4,
        head_hidden: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("mutual_information", mutual_information), ("balance", balance)):
            if not value >= 0:
                raise ConfigError(f"`{name}` must be at least 0; got {value!r}.")
        if not 1 <= top_k <= num_experts:
            raise ConfigError(f"`top_k` must be from 1 to `num_experts`; got {top_k} of {num_experts}.")
        if attention_experts and not 1 <= attention_top_k <= attention_experts:
            raise ConfigError(
                f"`attention_top_k` must be from 1 to `attention_experts`; got {attention_top_k} of {attention_experts}."
            )
        self.task_names = tuple(task.name for task in tasks)
        self.backbone = block_trunk(make_backbone, inputs, method="Mod-MoE", width=width, depth=depth)
        blocks = list(self.backbone.block_list())
        widths = sorted({shape.width for shape in self.backbone.block_shapes()})
        if len(widths) != 1:
            raise ConfigError(
                f"Mod-MoE adds a task's embedding before every block, so all blocks need one width; "
                f"{type(self.backbone).__name__} has {widths}. Choose a plain vision transformer."
            )
        model_width = widths[0]
        if not 1 <= every <= len(blocks):
            raise ConfigError(f"`every` must be from 1 to the number of blocks; got {every} of {len(blocks)}.")

        def router(count: int) -> Router:
            return Router(model_width, count, num_tasks=len(tasks), noise=noise, floor=_FLOOR, zero_start=True)

        for block in blocks[every - 1 :: every]:
            if attention_experts:
                each = model_width // attention_top_k if head_width is None else head_width
                attention = MoEAttention(model_width, each, attention_experts, attention_top_k, router=router(attention_experts))
                replace_attention(block, attention, method="Mod-MoE")
            hidden = model_width if expert_hidden is None else expert_hidden
            feed = MoELayer(model_width, hidden, num_experts, top_k, router=router(num_experts))
            replace_feed_forward(block, feed, method="Mod-MoE")
        self.mutual_information, self.balance = mutual_information, balance
        self.embeddings = nn.ParameterList(nn.Parameter(0.02 * torch.randn(model_width)) for _ in tasks)
        self._size, self._head_hidden = output_size(inputs), head_hidden
        self.heads = nn.ModuleList(self._head(task) for task in tasks)
        self._rows: dict[str, Tensor] = {}
        self._num_rows = 0

    def _head(self, task: TaskSpec) -> nn.Module:
        return build_head(self.backbone.feature_shape, task, hidden=self._head_hidden, size=self._size)

    def routed_layers(self) -> list[RoutedLayer]:
        """Return attention and feed-forward mixtures in order of depth."""
        return list(routed_layers(self.backbone).values())

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> tuple[Tensor, ...]:
        """Return one representation per asked task, of all rows."""
        return self._encode(inputs, tasks, {}, 0)

    def encode_batch(self, batch: Batch, tasks: Sequence[str] | None = None) -> tuple[Tensor, ...]:
        """Return one representation per asked task: of the task's labelled rows in training, of all rows otherwise."""
        asked = self.task_names if tasks is None else tasks
        masks = {name: batch.mask[name] for name in asked if name in batch.mask} if self.training else {}
        # Tasks whose rows all have labels need no selection.
        rows = {name: mask.nonzero().squeeze(1) for name, mask in masks.items() if not bool(mask.all())}
        return self._encode(batch.inputs, tasks, rows, len(batch))

    def _encode(
        self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None, rows: dict[str, Tensor], num_rows: int
    ) -> tuple[Tensor, ...]:
        """Run each task on its ``rows`` of the ``num_rows`` rows, or on all where none are given."""
        layers = self.routed_layers()
        for layer in layers:
            layer.journal.pop()
        asked = self.task_names if tasks is None else tuple(tasks)
        # `decode` gets the features only, and must know which rows of the batch they belong to.
        self._rows, self._num_rows = rows, num_rows
        # Once for all tasks: the embedding of the input knows no task.
        tokens = self.backbone.embed(inputs)
        found = []
        for name in asked:
            index = self.task_names.index(name)
            for layer in layers:
                layer.task = index
            state, read = tokens, inputs
            if name in self._rows:
                state = tokens.index_select(0, self._rows[name])
                read = {key: value.index_select(0, self._rows[name]) for key, value in inputs.items()}
            for number in range(len(self.backbone.block_list())):
                state = self.backbone.run_block(number, state + self.embeddings[index], read)
            found.append(self.backbone.finish(state, read))
        return tuple(found)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the outputs of the asked heads for all rows; zero for rows of a training batch that have no label of the
        task."""
        outputs = {}
        for name, features in zip(self.task_names if tasks is None else tasks, representation, strict=True):
            output = self.heads[self.task_names.index(name)](features)
            if name in self._rows:
                # Rows without a label are never read by the loss, but outputs must line up with the batch.
                output = output.new_zeros(self._num_rows, *output.shape[1:]).index_copy(0, self._rows[name], output)
            outputs[name] = output
        return outputs

    def pop_auxiliary_loss(self) -> Tensor | None:
        """Return the weighted losses of all routers of the last training pass: mutual information over the tasks, and balance."""
        terms: list[Tensor] = []
        for records in (layer.journal.pop() for layer in self.routed_layers()):
            # A task without rows in this batch has no probabilities to average.
            used = [item for item in records if item.num_tokens]
            if used and self.mutual_information:
                terms.append(self.mutual_information * mutual_information_loss(used))
            if used and self.balance:
                terms.append(self.balance * balance_loss(used))
        return torch.stack(terms).sum() if terms else None

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the task's routers, embedding and head."""
        index = self.task_names.index(task)
        for layer in self.routed_layers():
            yield from layer.router.own_parameters(index)
        yield self.embeddings[index]
        yield from self.heads[index].parameters()

    def extract(self, task: str, keep: Mapping[str, Sequence[int]]) -> Self:
        """Return a model of its own for one task: only its routers, embedding and head, and in each routed layer only some
        experts.

        Args:
            task: Name of the task.
            keep: ``{layer: experts}`` with the names of :func:`graftwork.nn.moe.routed_layers` of this model; layers not named
                keep all.
        """
        # The copy must not carry the row numbers of the last batch.
        self._rows = {}
        index, model = self.task_names.index(task), copy.deepcopy(self)
        for name, layer in routed_layers(model).items():
            layer.router.keep_task(index)
            if name in keep:
                layer.keep_experts(keep[name])
        model.task_names = (task,)
        model.embeddings = nn.ParameterList([model.embeddings[index]])
        model.heads = nn.ModuleList([model.heads[index]])
        return model

    def add_task(self, task: TaskSpec, *, new_experts: int = 0) -> None:
        """Add a task: routers over all experts there are and ``new_experts`` more in each routed layer, an embedding, a head.

        Older tasks never choose the new experts: while the rest is frozen (:meth:`train_only`), their outputs stay bit for bit.

        Raises:
            ConfigError: If there is a task of this name, or experts were dropped.
        """
        if task.name in self.task_names:
            raise ConfigError(f"There is a task {task.name!r} already; the tasks are {', '.join(self.task_names)}.")
        for layer in self.routed_layers():
            layer.add_task(new_experts)
        self.embeddings.append(nn.Parameter(0.02 * torch.randn_like(self.embeddings[0])))
        # Where the rest of the model is, and in its precision.
        self.heads.append(self._head(task).to(self.embeddings[0]))
        self.task_names = (*self.task_names, task.name)

    def train_only(self, task: str, *, newest_experts: bool = False) -> None:
        """Freeze everything but what ``task`` owns and, if asked, the experts that were added last."""
        self.requires_grad_(False)
        for parameter in self.task_parameters(task):
            parameter.requires_grad_(True)
        if newest_experts:
            for bank in (bank for layer in self.routed_layers() for bank in layer.banks()):
                # Experts of one addition share one parameter, the last.
                bank.weights[-1].requires_grad_(True)
                bank.biases[-1].requires_grad_(True)
