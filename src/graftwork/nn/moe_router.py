"""Routers of sparse mixtures of experts: which ``k`` of ``E`` experts see a token, and how much each counts.

The softmax is over all experts and comes before the choice; the ``k`` kept values are used as they are, so that the router also
learns how much the experts together should add (Riquelme et al., "Scaling Vision with Sparse Mixture of Experts",
https://arxiv.org/abs/2106.05974).

Who is routed for is said by a task index: one weight matrix a task (``per_task``), one matrix over token and task embedding
(``conditioned``), or one matrix for all (``shared``). Noise is drawn in training only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError

__all__ = ["Router", "RouterKind", "Routing"]

RouterKind = Literal["per_task", "conditioned", "shared"]

_SMALLEST_NOISE = 1e-2
"""Added to a learned standard deviation (Shazeer et al., https://arxiv.org/abs/1701.06538, use the same)."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Decisions for ``N`` tokens."""

    probabilities: Tensor
    """Softmax over the experts, ``[N, E]``; rows sum to less than one if experts were dropped, to a little more with a floor."""
    gates: Tensor
    """Weights of the chosen experts, ``[N, k]``, largest first."""
    experts: Tensor
    """Indices of the chosen experts, int64 ``[N, k]``."""
    load: Tensor
    """Tokens that each expert gets, ``[E]``; with noise the expected number, which has a gradient."""

    def dense_gates(self) -> Tensor:
        """Return the gates as ``[N, E]``, zero where an expert was not chosen."""
        return torch.zeros_like(self.probabilities).scatter(1, self.experts, self.gates)


class Router(nn.Module):
    """Top-k routing with task-dependent weights.

    Args:
        width: Width ``d`` of a token.
        num_experts: Number of experts ``E``.
        num_tasks: Number of tasks.
        kind: How the task enters (see the module).
        embedding: Width of the task embedding of ``conditioned``, a two-layer perceptron of the one-hot task with a layer norm
            behind it.
        noise: Standard deviation of the noise on the logits, divided by ``E``; ``"learned"`` has a second matrix per router that
            gives it token by token. 0 is no noise.
        floor: Added to every probability.
        renormalise: Whether the kept gates are divided by their sum.
        zero_start: Start at equal probabilities in place of small uniform weights. Ties are then broken by noise alone.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        num_tasks: int = 1,
        kind: RouterKind = "per_task",
        embedding: int = 16,
        noise: float | Literal["learned"] = 0.0,
        floor: float = 0.0,
        renormalise: bool = False,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        if num_experts < 1 or num_tasks < 1:
            raise ConfigError(f"A router needs at least one expert and one task; got {num_experts} and {num_tasks}.")
        if kind not in ("per_task", "conditioned", "shared"):
            raise ConfigError(f"`kind` must be 'per_task', 'conditioned' or 'shared'; got {kind!r}.")
        if noise != "learned" and not (isinstance(noise, int | float) and noise >= 0):
            raise ConfigError(f"`noise` must be at least 0, or 'learned'; got {noise!r}.")
        self.width, self.num_tasks, self.kind = width, num_tasks, kind
        self.noise, self.floor, self.renormalise, self.zero_start = noise, floor, renormalise, zero_start
        self.embedding = _task_embedding(num_tasks, embedding) if kind == "conditioned" else None
        self.register_buffer("one_hot", torch.eye(num_tasks), persistent=False)
        self.one_hot: Tensor
        self._inputs = width + (embedding if kind == "conditioned" else 0)
        count = num_tasks if kind == "per_task" else 1
        self.weights = nn.ParameterList(self._drawn(num_experts) for _ in range(count))
        self.noise_weights = nn.ParameterList(self._silent(num_experts) for _ in range(count if noise == "learned" else 0))
        self.kept: Tensor | None
        # A buffer, so that it moves with the model and is saved once it is set.
        self.register_buffer("kept", None)

    def forward(self, tokens: Tensor, top_k: int, task: int = 0) -> Routing:
        """Return the decisions for tokens ``[N, d]``.

        Args:
            tokens: What is routed.
            top_k: Experts a token, at least 1; all if there are fewer.
            task: Index of the task that is routed for.
        """
        index = task if self.kind == "per_task" else 0
        if self.embedding is not None:
            tokens = torch.cat([tokens, self.embedding(self.one_hot[task]).expand(tokens.shape[0], -1)], dim=1)
        clean = tokens @ self.weights[index]
        logits, deviation = clean, None
        if self.training and self.noise:
            if self.noise == "learned":
                deviation = F.softplus(tokens @ self.noise_weights[index]) + _SMALLEST_NOISE
            else:
                # Divided by the number of experts before any were dropped.
                deviation = torch.full_like(clean, float(self.noise) / clean.shape[1])
            # Drawn for all experts, dropped ones too.
            logits = clean + torch.randn_like(clean) * deviation
        probabilities = torch.softmax(logits, dim=1)
        if self.floor:
            probabilities = probabilities + self.floor
        if self.kept is not None:  # the softmax stays over all experts: what the kept ones count does not change
            probabilities, clean, logits = (values.index_select(1, self.kept) for values in (probabilities, clean, logits))
            deviation = None if deviation is None else deviation.index_select(1, self.kept)
        num_chosen = min(top_k, probabilities.shape[1])
        gates, experts = probabilities.topk(num_chosen, dim=1)
        if deviation is not None and num_chosen < probabilities.shape[1]:
            load = _expected_load(clean, logits, deviation, num_chosen)
        else:
            # Without noise the load is a count, which has no gradient.
            load = torch.zeros_like(probabilities).scatter(1, experts, 1.0).sum(dim=0)
        if self.renormalise:
            gates = gates / gates.sum(dim=1, keepdim=True)
        return Routing(probabilities, gates, experts, load)

    def own_parameters(self, task: int) -> list[nn.Parameter]:
        """Return the parameters that only ``task`` uses; none unless routers are per task."""
        if self.kind != "per_task":
            return []
        return [self.weights[task], *([self.noise_weights[task]] if len(self.noise_weights) else [])]

    def keep_experts(self, experts: Sequence[int]) -> None:
        """Choose among some experts only from now on, renumbered in the given order; they count as much as before."""
        kept = torch.as_tensor(list(experts), dtype=torch.int64, device=self.weights[0].device)
        # Numbers refer to the experts that are left now, the buffer to those of the softmax.
        self.kept = kept if self.kept is None else self.kept[kept]

    def keep_task(self, task: int) -> None:
        """Forget the routers of all other tasks; the kept one has index 0 afterwards."""
        if self.kind == "per_task":
            self.weights = nn.ParameterList([self.weights[task]])
            self.noise_weights = nn.ParameterList([self.noise_weights[task]] if len(self.noise_weights) else [])
            self.num_tasks = 1

    def add_task(self, num_experts: int) -> None:
        """Add the router of one more task over ``num_experts`` experts; the older tasks go on choosing among theirs.

        Raises:
            ConfigError: If routers are not per task, or experts were dropped.
        """
        if self.kind != "per_task" or self.kept is not None:
            raise ConfigError("A task can be added to routers that are per task (`kind='per_task'`) and have all their experts.")
        like = self.weights[0]
        self.weights.append(nn.Parameter(self._drawn(num_experts).detach().to(like)))
        if self.noise == "learned":
            self.noise_weights.append(nn.Parameter(self._silent(num_experts).detach().to(like)))
        self.num_tasks += 1

    def _drawn(self, num_experts: int) -> nn.Parameter:
        weight = torch.zeros(self._inputs, num_experts)
        if not self.zero_start:
            # What the released code does by kaiming_uniform_(a=sqrt(5)) on [d, E], which takes E for the fan-in.
            nn.init.uniform_(weight, -1.0 / math.sqrt(num_experts), 1.0 / math.sqrt(num_experts))
        return nn.Parameter(weight)

    def _silent(self, num_experts: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(self._inputs, num_experts))  # all tokens begin with noise of one strength


def _task_embedding(num_tasks: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_tasks, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width, eps=1e-6))


def _expected_load(clean: Tensor, noisy: Tensor, deviation: Tensor, top_k: int) -> Tensor:
    """Return how many tokens each expert would get on average if its own noise alone were drawn again, ``[E]``.

    An expert is in if its noisy logit is above the ``k``-th largest of the others, which is the ``k + 1``-th of all where it is
    in now and the ``k``-th where it is not (Shazeer et al.).
    """
    highest = noisy.topk(top_k + 1, dim=1).values
    if_in, if_out = highest[:, top_k : top_k + 1], highest[:, top_k - 1 : top_k]
    # Those in now compete with the k + 1-th, all others with the k-th.
    threshold = torch.where(noisy > if_in, if_in, if_out)
    return (0.5 * (1.0 + torch.erf((clean - threshold) / (deviation * math.sqrt(2.0))))).sum(dim=0)
