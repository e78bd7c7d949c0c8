"""The sparse mixture of experts: feed-forward experts and attention experts behind one router, for tokens of any layout.

A layer computes ``y = sum over the k chosen experts of p_e * expert_e(x)`` (see :mod:`graftwork.nn.moe_router` for ``p``). The
task that is routed for is state of the layer, set by whoever owns it before the call (:func:`set_task`); in training, or while
:func:`recording`, every call is written into the layer's journal, from which losses and usage are computed.

Exported graphs are sparse as well: a traced graph gathers each expert's tokens, computes the expert for them alone and brings
the results back, for any number of tokens (:class:`graftwork.nn.moe_dispatch.TracedDispatch`). That takes a few small operations
per expert. Where too little is saved to pay for them (:attr:`RoutedLayer.exports_sparse`), and in the newer graph capture, all
experts are computed and those not chosen are multiplied by zero. Numbers are equal up to rounding; where two experts of a token
are equal up to rounding, either may be chosen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.moe_dispatch import Dispatch, GroupedLinear, TracedDispatch
from graftwork.nn.moe_losses import RoutingJournal, RoutingRecord
from graftwork.nn.moe_router import Router, Routing

__all__ = ["MoEAttention", "MoELayer", "RoutedLayer", "recording", "routed_layers", "set_task"]

_WORTH_GATHERING = 4096
"""Multiplications that a token must save per expert for a sparse graph. Measured in ONNX Runtime 1.31 on one thread with 2 to 16
experts, 1 to 6 a
token, widths 16 to 192: for one picture of 64 tokens, gathering is slower below about this value and faster above it; for 32
pictures that point lies between 1000 and 2000."""


class RoutedLayer(nn.Module):
    """What all routed layers share: the router, the task, the journal, and experts that can be dropped and added.

    Args:
        router: The router.
        top_k: Experts a token.

    Raises:
        ConfigError: If ``top_k`` is below 1.
    """

    def __init__(self, router: Router, top_k: int) -> None:
        super().__init__()
        if top_k < 1:
            raise ConfigError(f"`top_k` must be at least 1; got {top_k!r}.")
        self.router, self.top_k = router, top_k
        self.task = 0
        self.records_always = False
        self.journal = RoutingJournal()

    def banks(self) -> list[GroupedLinear]:
        """Return the parts that have one linear layer per expert."""
        return [module for module in self.modules() if isinstance(module, GroupedLinear)]

    @property
    def num_experts(self) -> int:
        """Number of experts."""
        # All banks of a layer have equally many: experts are added and dropped in all of them.
        return self.banks()[0].num_experts

    @property
    def exports_sparse(self) -> bool:
        """Whether a traced graph computes chosen experts only: if ``(1 - k / E)`` times the weights of an expert is large enough.

        This is how many multiplications a token saves per expert; what gathering costs in time grows with the number of experts,
        too.
        """
        weights = sum(bank.width_in * bank.width_out for bank in self.banks())
        return (1.0 - min(self.top_k, self.num_experts) / self.num_experts) * weights >= _WORTH_GATHERING

    def route(self, tokens: Tensor) -> Routing:
        """Return the decisions for ``[N, d]`` and write them down if that is asked for."""
        routing: Routing = self.router(tokens, self.top_k, self.task)
        if self.training or self.records_always:
            self.journal.add(self.task, routing)
        return routing

    def _dispatch(self, routing: Routing) -> Dispatch | TracedDispatch | None:
        """Return the ways of the tokens; None if all experts are to be computed."""
        if not _is_exporting():
            return Dispatch.of(routing.experts, self.num_experts)
        # The newer graph capture does not take row counts that the data decide.
        if not (torch.jit.is_tracing() and self.exports_sparse):  # type: ignore[attr-defined]
            return None
        # An older task's router does not see experts that were added later: they are no part of its graph.
        return TracedDispatch.of(routing.experts, int(routing.probabilities.shape[1]))

    def keep_experts(self, experts: Sequence[int]) -> None:
        """Drop all other experts; the kept ones are renumbered in the given order and count as much as before.

        Raises:
            ConfigError: If none is kept, or one does not exist.
        """
        for bank in self.banks():
            bank.keep_experts(experts)
        self.router.keep_experts(experts)

    def add_task(self, new_experts: int = 0) -> None:
        """Add the router of one more task, over all experts and ``new_experts`` more; older tasks never choose the new experts.

        Raises:
            ConfigError: See :meth:`graftwork.nn.moe_router.Router.add_task`.
        """
        self.router.add_task(self.num_experts + new_experts)
        if new_experts:
            for bank in self.banks():
                bank.add_experts(new_experts)


class MoELayer(RoutedLayer):
    """Two-layer perceptrons with GELU as experts; takes the place of a feed-forward network.

    Args:
        width: Width ``d`` of a token.
        hidden: Hidden width ``h`` of each expert.
        num_experts: Number of experts ``E``.
        top_k: Experts a token, ``k``.
        router: The router; None takes one for a single task.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(
        self, width: int, hidden: int, num_experts: int, top_k: int = 2, *, router: Router | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(Router(width, num_experts) if router is None else router, top_k)
        self.expand = GroupedLinear(num_experts, width, hidden)
        self.contract = GroupedLinear(num_experts, hidden, width)
        self.dropout = dropout
        self.runner: Callable[[Tensor, Sequence[int]], Tensor] | None = None
        """Runs the experts in place of :meth:`run_experts` (see :mod:`graftwork.nn.moe_queue`)."""

    def run_experts(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Return ``[R, d]`` for rows ``[R, d]`` sorted by expert."""
        hidden = F.dropout(F.gelu(self.expand(rows, counts)), self.dropout, self.training)
        return self.contract(hidden, counts)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the mixture for tokens ``[..., d]``, in their layout."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        routing = self.route(flat)
        dispatch = self._dispatch(routing)
        if dispatch is None:
            return self.all_experts(flat, routing).view(tokens.shape)
        if isinstance(dispatch, TracedDispatch):
            expanded = self.expand.each(dispatch.to_experts(flat))
            hidden = [F.dropout(F.gelu(rows), self.dropout, self.training) for rows in expanded]
            results = dispatch.to_tokens(self.contract.each(hidden))
            return (results * routing.gates.unsqueeze(2)).sum(dim=1).view(tokens.shape)
        run = self.run_experts if self.runner is None else self.runner
        results = dispatch.to_tokens(run(dispatch.to_experts(flat), dispatch.counts))
        return (results * routing.gates.unsqueeze(2)).sum(dim=1).view(tokens.shape)

    def all_experts(self, flat: Tensor, routing: Routing) -> Tensor:
        """Return the same from all experts, masked by their gates, for tokens ``[N, d]``."""
        gates = _all_gates(routing, self.num_experts)
        hidden = F.dropout(F.gelu(self.expand.all_experts(flat)), self.dropout, self.training)
        weight, bias = self.contract.stacked()
        # sum_e g_e (h_e W_e + b_e) as one product: [N, E * h] with [E * h, d], and [N, E] with [E, d].
        return (hidden * gates.unsqueeze(2)).flatten(1) @ weight.flatten(0, 1) + gates @ bias


class MoEAttention(RoutedLayer):
    """Self-attention whose heads are experts: each has its own query and output projection, keys and values are shared by all.

    A token attends with the ``k`` heads that it is routed to; every head can be read by every token. Zhang et al., "Mixture of
    Attention Heads", https://arxiv.org/abs/2210.05144.

    Args:
        width: Model width ``d``.
        head_width: Width of a head.
        num_experts: Number of heads to choose from.
        top_k: Heads a token.
        router: The router; None takes one for a single task.
        dropout: Probability of dropping an attention weight.
    """

    def __init__(
        self, width: int, head_width: int, num_experts: int, top_k: int = 4, *, router: Router | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(Router(width, num_experts) if router is None else router, top_k)
        self.query = GroupedLinear(num_experts, width, head_width)
        self.output = GroupedLinear(num_experts, head_width, width)
        self.key_value = nn.Linear(width, 2 * head_width)
        self.dropout = dropout

    def forward(self, states: Tensor) -> Tensor:
        """Return the attended states, ``[B, L, d]``."""
        batch, length, width = states.shape
        flat = states.reshape(-1, width)
        routing = self.route(flat)
        dispatch = self._dispatch(routing)
        if dispatch is None:
            chosen = routing.experts.unsqueeze(2).expand(-1, -1, self.query.width_out)
            # [N, k, head_width]
            queries = self.query.all_experts(flat).gather(1, chosen)
        else:
            queries = dispatch.of_tokens(self.query, flat)
        heads = queries.shape[1]
        query = queries.view(batch, length, heads, self.query.width_out).transpose(1, 2)
        # One key and value for all heads, [B, k, L, head_width]: heads differ in their queries only.
        key, value = (part.unsqueeze(1).expand(-1, heads, -1, -1) for part in self.key_value(states).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        # [B, k, L, head_width] to [N, k, head_width]
        pairs = mixed.transpose(1, 2).flatten(0, 1)
        if dispatch is None:
            # As a product: the traced exporter would freeze zeros to scatter into at the example's size.
            place = (routing.experts.unsqueeze(2) == torch.arange(self.num_experts, device=flat.device)).to(flat.dtype)
            weighted = (place * routing.gates.unsqueeze(2)).transpose(1, 2) @ pairs
            weight, bias = self.output.stacked()
            return (weighted.flatten(1) @ weight.flatten(0, 1) + _all_gates(routing, self.num_experts) @ bias).view(states.shape)
        results = dispatch.of_pairs(self.output, pairs.flatten(0, 1))
        return (results * routing.gates.unsqueeze(2)).sum(dim=1).view(states.shape)


def routed_layers(module: nn.Module) -> dict[str, RoutedLayer]:
    """Return the routed layers inside a module by name, in order."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, RoutedLayer)}


def set_task(module: nn.Module, task: int) -> None:
    """Route for the task with index ``task`` in all routed layers from now on."""
    for layer in routed_layers(module).values():
        layer.task = task


@contextlib.contextmanager
def recording(module: nn.Module) -> Iterator[dict[str, list[RoutingRecord]]]:
    """Write down the calls of all routed layers inside the block, in evaluation mode too.

    Yields:
        ``{layer: records}``, filled when the block ends.
    """
    layers = routed_layers(module)
    found: dict[str, list[RoutingRecord]] = {}
    for layer in layers.values():
        # What was recorded before the block is not part of it.
        layer.journal.pop()
        layer.records_always = True
    try:
        yield found
    finally:
        for name, layer in layers.items():
            layer.records_always = False
            found[name] = layer.journal.pop()


def _all_gates(routing: Routing, num_experts: int) -> Tensor:
    """Return the gates as ``[N, E]``, zero for experts that the router does not see, too."""
    gates = routing.dense_gates()
    unseen = num_experts - int(gates.shape[1])
    return F.pad(gates, (0, unseen)) if unseen else gates


def _is_exporting() -> bool:
    return torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
