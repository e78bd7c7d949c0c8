"""Where in the trunk do tasks pull apart? Cosines of the tasks' gradients, stage by stage, sampled while a model trains.

A negative cosine between two tasks' gradients of the same parameters is a conflict (Yu et al. 2020, PCGrad,
https://arxiv.org/abs/2001.06782): a step for one undoes some of the other. Layers differ in it, and so do the early and the late
part of a training, so both are kept apart. Gradients are taken in evaluation mode on the batch that the step learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.evaluation.affinity import cosines_of_products, layer_products
from graftwork.evaluation.paired import paired_interval
from graftwork.interfaces.callback import Callback, LoopView
from graftwork.interfaces.shared_model import SharedModel

__all__ = ["GradientWatch", "stage_names", "summarise_gradients"]

MOST_STAGES = 12
PERIODS = 6
"""Parts of the training whose means are shown."""


def stage_names(layers: Sequence[str], most: int = MOST_STAGES) -> list[str]:
    """Return the stage of each layer: the longest common depth of dotted names at which there are no more than ``most`` stages.

    Layers of one module stay together; with a single level of more than ``most`` names, consecutive layers are merged and named
    after the first and the last.

    Args:
        layers: Dotted names of modules, in the model's order.
        most: Largest number of stages, at least 1.

    Example:
        >>> stage_names(["stem", "block.0.a", "block.0.b", "block.1.a", "block.1.b"], most=3)
        ['stem', 'block.0', 'block.0', 'block.1', 'block.1']
    """
    if most < 1:
        raise ValueError(f"`most` must be at least 1; got {most}.")
    parts = [layer.split(".") for layer in layers]
    deepest = max((len(part) for part in parts), default=0)
    for depth in range(deepest, 0, -1):
        names = [".".join(part[:depth]) for part in parts]
        if len(set(names)) <= most:
            return names
    # More names at the top than stages: neighbours are merged, which keeps the order of depth.
    names = [part[0] for part in parts]
    order = list(dict.fromkeys(names))
    merged: dict[str, str] = {}
    for chunk in np.array_split(np.array(order, dtype=object), most):
        label = str(chunk[0]) if len(chunk) == 1 else f"{chunk[0]} to {chunk[-1]}"
        merged |= {str(name): label for name in chunk}
    return [merged[name] for name in names]


class GradientWatch(Callback):
    """Samples the inner products of the tasks' gradients every ``every`` steps; the model and its random numbers stay untouched.

    Args:
        tasks: The tasks, in the order of the model's.
        every: Steps between samples, at least 1. A sample costs one forward and one backward pass a task.

    Raises:
        ValueError: If ``every`` is below 1.
    """

    def __init__(self, tasks: Sequence[TaskSpec], every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"`every` must be at least 1; got {every}.")
        self.tasks, self.every = tuple(tasks), every
        self.steps: list[int] = []
        """Steps at which samples were taken."""
        self.samples: list[dict[str, Tensor]] = []
        """``{layer: inner products [T, T]}``, one a step in :attr:`steps`."""

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        """Take a sample if it is time.

        Raises:
            ConfigError: If the loop trains no shared model.
        """
        if not isinstance(loop.model, SharedModel):
            raise ConfigError(
                f"GradientWatch compares the gradients of a SharedModel's tasks; this loop trains a {type(loop.model).__name__}."
            )
        if loop.step % self.every == 0:
            found = layer_products(loop.model, self.tasks, batch)
            # Nothing is found where the tasks share no layer that learns.
            if found:
                self.steps.append(loop.step)
                self.samples.append({layer: products.cpu() for layer, products in found.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return what was sampled so far."""
        state: dict[str, Any] = {"steps": list(self.steps)}
        if self.samples:
            state["layers"] = list(self.samples[0])
            # [samples, layers, T, T]
            state["products"] = torch.stack([torch.stack(list(sample.values())) for sample in self.samples])
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.steps = [int(step) for step in state["steps"]]
        layers = list(state.get("layers", ()))
        self.samples = [dict(zip(layers, sample.unbind(0), strict=True)) for sample in state["products"]] if layers else []


def summarise_gradients(
    watch: GradientWatch, tasks: Sequence[str], *, most_stages: int = MOST_STAGES, level: float = 0.95
) -> dict[str, Any] | None:
    """Return cosines and conflicts by stage as JSON; None if nothing was sampled or there are fewer than two tasks.

    Args:
        watch: After a training.
        tasks: Names of the tasks, in the order of the samples.
        most_stages: Layers are merged into at most so many stages; gradients of a stage count as one vector.
        level: Confidence of the intervals: Student's t over the samples.

    Returns:
        ``{"tasks", "pairs", "stages", "layers", "value", "low", "high", "conflict", "conflict_share", "steps", "periods",
        "over_time", "all_over_time", "method"}``. Tables have a row a stage and a column a pair: ``value`` is the mean cosine,
        ``conflict`` the share of samples in which it is negative. ``conflict_share`` is that share over all pairs, one a stage,
        and ``layers`` the same for every layer. ``over_time`` is the mean cosine over pairs by stage (row) and part of the
        training (column), ``all_over_time`` that of the whole trunk by part (row) and pair (column). None where nothing is known.
    """
    if not watch.samples or len(tasks) < 2:
        return None
    layers = list(watch.samples[0])
    products = torch.stack(
        [torch.stack([sample[layer] for layer in layers]) for sample in watch.samples]
    )  # [samples, layers, T, T]
    of_layer = stage_names(layers, most_stages)
    stages = list(dict.fromkeys(of_layer))
    # [stages, layers]
    member = torch.tensor([[name == stage for name in of_layer] for stage in stages], dtype=products.dtype)
    first, second = np.triu_indices(len(tasks), 1)
    # Inner products add up over the layers of a stage, cosines do not: sum first, divide afterwards. [samples, stages, pairs]
    by_stage = cosines_of_products(torch.einsum("gl,nlij->ngij", member, products))[:, :, first, second].numpy()
    by_layer = cosines_of_products(products)[:, :, first, second].numpy()
    whole = cosines_of_products(products.sum(dim=1))[:, first, second].numpy()
    intervals = [
        [paired_interval(by_stage[:, stage, pair], level=level) for pair in range(len(first))] for stage in range(len(stages))
    ]
    periods = [part for part in np.array_split(np.arange(len(watch.steps)), min(PERIODS, len(watch.steps))) if len(part)]
    return {
        "tasks": list(tasks),
        "pairs": [[tasks[int(i)], tasks[int(j)]] for i, j in zip(first, second)],
        "stages": stages,
        "layers": [
            {"layer": layer, "stage": of_layer[k], "conflict_share": _share(by_layer[:, k])} for k, layer in enumerate(layers)
        ],
        **{key: [[_json_number(getattr(item, key)) for item in row] for row in intervals] for key in ("value", "low", "high")},
        "conflict": [[_share(by_stage[:, stage, pair]) for pair in range(len(first))] for stage in range(len(stages))],
        "conflict_share": [_share(by_stage[:, stage]) for stage in range(len(stages))],
        "steps": list(watch.steps),
        "periods": [[watch.steps[part[0]], watch.steps[part[-1]]] for part in periods],
        "over_time": [[_mean(by_stage[part, stage]) for part in periods] for stage in range(len(stages))],
        "all_over_time": [[_mean(whole[part, pair]) for pair in range(len(first))] for part in periods],
        "method": f"cosines of the tasks' gradients on training batches, {len(watch.steps)} samples during one training",
    }


def _mean(cosines: Any) -> float | None:
    known = cosines[~np.isnan(cosines)]
    return float(known.mean()) if known.size else None


def _share(cosines: Any) -> float | None:
    """Return the share of known cosines below zero."""
    known = cosines[~np.isnan(cosines)]
    return float((known < 0).mean()) if known.size else None


def _json_number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
