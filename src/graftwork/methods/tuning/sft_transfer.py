"""What is done with sparse differences of languages and tasks: found in rounds, measured from a start, held near it, and added.

Paper: Ansell et al., "Composable Sparse Fine-Tuning for Cross-Lingual Transfer", ACL 2022, https://arxiv.org/abs/2110.07560: a task
that was learned with labels of a source language is done in a target language by ``theta_0 + phi_task + phi_target``.

Example:
    >>> import torch
    >>> from graftwork.nn.weight_delta import Sparse
    >>> def change(place: int, value: float) -> WeightDelta:
    ...     part = Sparse(torch.tensor([place]), torch.tensor([value]))
    ...     return WeightDelta({"weight": part}, {"weight": torch.Size([4])})
    >>> source, target = change(0, 1.0), change(1, 2.0)
    >>> tuned = source + change(2, 3.0)  # a task, learned on top of its source language
    >>> transferred(tuned, source=source, target=target).tensor("weight").tolist()
    [0.0, 2.0, 3.0, 0.0]
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.sft_compose import LEAST_CHANGE, SparseFineTuning
from graftwork.nn.changed_weights import ChangedWeights
from graftwork.nn.delta_parts import Dense, Part, Sparse
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["Phase", "lottery_ticket", "measured_from", "start_distance", "transferred"]

Phase = Literal["full", "sparse"]
TrainPhase = Callable[[nn.Module, SparseFineTuning, Phase], object]


def lottery_ticket(
    model: nn.Module, train: TrainPhase, *, k: int, rounds: int = 1, start: WeightDelta | None = None
) -> WeightDelta:
    """Return the sparse difference that lottery-ticket tuning finds; ``model`` stays as it is.

    Args:
        model: The base.
        train: Called with a copy of the model, the tuner attached to it, and the phase: it trains what the tuner yields as
            trainable, with a new optimiser and schedule, in place. What else learns (a head) it rewinds itself.
        k: Weights that change in all.
        rounds: How often weights are selected, ``k / rounds`` of them each time.
        start: Difference that is part of the start.

    Returns:
        The difference measured from the start.

    Raises:
        ConfigError: If ``rounds`` is not between 1 and ``k``, or there are fewer than ``k`` weights.
    """
    if not 1 <= rounds <= k:
        raise ConfigError(f"`rounds` must be from 1 to `k` ({k}); got {rounds!r}.")
    begins, previous = start or "", None
    for number in range(rounds):
        deltas: dict[Phase, WeightDelta] = {}
        share = k // rounds + (number < k % rounds)
        for phase in ("full", "sparse"):
            tuner = (
                SparseFineTuning(select="all", start=begins, previous=previous or "")
                if phase == "full"
                else SparseFineTuning(changes=deltas["full"], k=share, start=begins, previous=previous or "")
            )
            own = copy.deepcopy(model)
            tuner.attach(own)
            train(own, tuner, phase)
            deltas[phase], learned = tuner.delta(), tuner.learned()
        previous = deltas["sparse"]
    return learned


def measured_from(tuned: WeightDelta, start: WeightDelta) -> WeightDelta:
    """Return what was learned on top of a start, ``tuned - start``, without what is smaller than rounding.

    Args:
        tuned: Difference of the tuned model from the base.
        start: Difference of the start from the same base.

    Raises:
        ConfigError: If they belong to different bases.
    """
    difference = tuned - start
    parts: dict[str, Part] = {name: _pruned(part) for name, part in difference.parts.items()}
    return WeightDelta(
        parts,
        difference.shapes,
        base_fingerprint=difference.base_fingerprint,
        base_prints=difference.base_prints,
        lineage={"measured": dict(tuned.lineage), "from": dict(start.lineage)},
    )


def transferred(tuned: WeightDelta, *, source: WeightDelta, target: WeightDelta) -> WeightDelta:
    """Return the difference from the base that does a task in another language.

    Args:
        tuned: Of the model that learned the task on top of its source language (:meth:`.SparseFineTuning.delta`, so the source
            language is in it).
        source: Of the source language; it is taken out.
        target: Of the target language; it is put in.

    Raises:
        ConfigError: If they belong to different bases.
    """
    return measured_from(tuned, source) + target


def start_distance(model: nn.Module) -> Tensor:
    """Return the mean of ``|theta - theta_start|`` over all numbers of a model whose weights change, a scalar with a graph: the paper
    adds 0.1 times it to the loss of a language, and nothing to that of a task.

    Args:
        model: A model to which :class:`.SparseFineTuning` is attached.

    Raises:
        ConfigError: If it is attached to none of its layers.
    """
    layers = [module for module in model.modules() if isinstance(module, ChangedWeights)]
    if not layers:
        raise ConfigError("The distance from the start is known where SparseFineTuning is attached; attach it first.")
    # Weights and biases as they were before: those that do not learn count, too.
    added = {id(item) for layer in layers for item in layer.changes.values()}
    size = sum(item.numel() for item in model.parameters() if id(item) not in added)
    return torch.stack([change.abs().sum() for layer in layers for change in layer.changes.values()]).sum() / size


def _pruned(part: Part) -> Part:
    if isinstance(part, Sparse):
        kept = part.values.abs() > LEAST_CHANGE
        return Sparse(part.indices[kept], part.values[kept])
    if isinstance(part, Dense):
        return Dense(torch.where(part.values.abs() > LEAST_CHANGE, part.values, 0.0))
    return part
