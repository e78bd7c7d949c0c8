"""Keeps the weights that did best on validation; of each task by itself where tasks share nothing that learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graftwork.interfaces.shared_model import SharedModel
from graftwork.training.averaging import copy_sharing
from graftwork.training.learned import learned_state

__all__ = ["BestWeights", "last_improvement", "still_improves", "tensor_owners", "tensors_by_task"]

_ALL = "all"
_GAIN = 1e-3
"""Relative gain below which a better validation does not keep a training going."""
_LATE_GAIN = 0.01
"""Relative gain over the last quarter of the validations from which on more steps would probably help."""

History = Sequence[tuple[int, Mapping[str, float]]]
"""``(step, loss per task)`` of every validation, in order."""


class BestWeights:
    """A second set of the weights that learn, in a copy of the model that shares everything else with it.

    Args:
        model: The model, before its first forward pass. If tasks share nothing that learns, every task's tensors are kept from
            the moment that was best for this task; otherwise all are kept from the moment with the lowest mean.
    """

    def __init__(self, model: SharedModel) -> None:
        learned = [*(p for p in model.parameters() if p.requires_grad), *model.buffers()]
        self.model = copy_sharing(model, {id(tensor): tensor.detach().clone() for tensor in learned})
        self._groups = tensors_by_task(model) or {_ALL: list(learned_state(model))}
        self._best: dict[str, float] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the tasks whose weights are kept one by one; empty if all weights are kept from one moment."""
        return () if set(self._groups) == {_ALL} else tuple(self._groups)

    @property
    def is_filled(self) -> bool:
        """Whether anything was kept yet."""
        return bool(self._best)

    @torch.no_grad()
    def offer(self, model: SharedModel, losses: Mapping[str, float]) -> None:
        """Keep the weights of ``model`` where they are better than what was kept.

        Args:
            model: The model with the weights to judge (the averaged ones, say).
            losses: Validation loss per task over that of a constant prediction, so that tasks compare. NaN is never kept, and
                nothing is without any loss: no moment is then known to be better than a later one.
        """
        if not losses:
            return
        mean = sum(losses.values()) / len(losses)
        current, kept = learned_state(model), learned_state(self.model)
        for group, names in self._groups.items():
            loss = losses.get(group, mean)
            # The second condition takes a first loss that is infinite; NaN is not equal to itself and never passes.
            if loss < self._best.get(group, float("inf")) or (group not in self._best and loss == loss):
                self._best[group] = loss
                for name in names:
                    kept[name].copy_(current[name])

    @torch.no_grad()
    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep these tensors, whatever they would score; they count as the best of every group from now on."""
        kept = learned_state(self.model)
        for name, tensor in tensors.items():
            kept[name].copy_(tensor)
        self._best = dict.fromkeys(self._groups, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the kept weights and their losses; nothing before the first :meth:`offer`."""
        if not self._best:
            return {}
        return {"best": dict(self._best), "tensors": dict(learned_state(self.model))}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._best = {group: float(loss) for group, loss in state.get("best", {}).items()}
        kept = learned_state(self.model)
        for name, tensor in state.get("tensors", {}).items():
            kept[name].copy_(tensor)


def _series(history: History, groups: Sequence[str]) -> list[list[float]]:
    """Return the losses of each group in order; one series of means without groups."""
    means = [sum(losses.values()) / len(losses) if losses else float("nan") for _, losses in history]
    if not groups:
        return [means]
    return [[losses.get(group, mean) for (_, losses), mean in zip(history, means, strict=True)] for group in groups]


def last_improvement(history: History, groups: Sequence[str] = ()) -> int:
    """Return the step of the last validation that was better than all before, by more than rounding; 0 without any.

    Args:
        history: The validations.
        groups: Tasks that are judged one by one: one that improves is enough. Empty judges the mean.
    """
    last = 0
    for series in _series(history, groups):
        best = float("inf")
        for (step, _), loss in zip(history, series, strict=True):
            # NaN is never better.
            if loss < best * (1.0 - _GAIN):
                best, last = loss, max(last, step)
    return last


def still_improves(history: History, groups: Sequence[str] = ()) -> bool:
    """Return whether the last validation is the best one and clearly better than the best of the first three quarters.

    Args:
        history: The validations; fewer than four say nothing.
        groups: As for :func:`last_improvement`.
    """
    if len(history) < 4:
        return False
    early = len(history) - max(1, len(history) // 4)
    return any(
        series[-1] <= min(series) and series[-1] < min(series[:early]) * (1.0 - _LATE_GAIN) for series in _series(history, groups)
    )


def tensors_by_task(model: SharedModel) -> dict[str, list[str]]:
    """Return ``{task: names of what it learns}`` if tasks share nothing that learns; else an empty mapping.

    So it is with separate models, and with heads on fixed features.
    """
    owner = tensor_owners(model)
    return {} if None in owner.values() else {task: [name for name in owner if owner[name] == task] for task in model.task_names}


def tensor_owners(model: SharedModel) -> dict[str, str | None]:
    """Return for each tensor that training changes the only task that uses it; None where several do.

    A buffer belongs to the task that owns all parameters of the smallest module around it.
    """
    owner: dict[str, str | None] = {name: None for name, parameter in model.named_parameters() if parameter.requires_grad}
    ids = {id(parameter): name for name, parameter in model.named_parameters()}
    for task in model.task_names:
        for parameter in model.task_parameters(task):
            owner[ids[id(parameter)]] = task
    return {name: owner[name] if name in owner else _owner_of_buffer(name, owner) for name in learned_state(model)}


def _owner_of_buffer(name: str, owner: Mapping[str, str | None]) -> str | None:
    module = name
    while "." in module:
        module = module.rpartition(".")[0]
        owners = {task for parameter, task in owner.items() if parameter.startswith(f"{module}.")}
        if owners:
            return owners.pop() if len(owners) == 1 else None
    return None
