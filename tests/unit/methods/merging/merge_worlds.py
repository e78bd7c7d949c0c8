"""Small worlds for mergers with data: two tasks on rows of their own, one base, one model a task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.workflows.merge_kinds import merge_context

__all__ = ["COLOUR", "FEATURES", "LATE", "SIZE", "context_of", "make_suite", "model_of", "models_of"]

FEATURES = 4
COLOUR = TaskSpec(name="colour", kind="multiclass", size=3, classes=("a", "b", "c"))
LATE = TaskSpec(name="late", kind="binary", size=1)
SIZE = TaskSpec(name="size", kind="regression", size=1)


def make_suite(num_rows: int = 80, tasks: tuple[TaskSpec, ...] = (COLOUR, LATE), *, labels: bool = True) -> Suite:
    """Return rows of which each is labelled for one task, in turns; without labels if asked."""
    random = np.random.default_rng(0)
    numeric = random.normal(size=(num_rows, FEATURES)).astype(np.float32)
    whole: dict[str, np.ndarray] = {
        "colour": numeric[:, :3].argmax(axis=1).astype(np.int64),
        "late": (numeric[:, 3] > 0).astype(np.int64),
        "size": numeric[:, :1].copy(),
    }
    turn = np.arange(num_rows) % len(tasks)
    targets = {}
    for place, task in enumerate(tasks):
        value = whole[task.name]
        missing = (turn != place) | (not labels)
        value[missing] = -1 if value.dtype == np.int64 else np.nan
        targets[task.name] = value
    part = np.arange(num_rows)
    return Suite.of_arrays(
        name="two",
        input_specs=table_input(FEATURES),
        tasks=tasks,
        inputs={"numeric": numeric, "categorical": np.zeros((num_rows, 0), np.int64)},
        targets=targets,
        splits={"train": part[: num_rows // 2], "val": part[num_rows // 2 : -10], "test": part[-10:]},
    )


def context_of(suite: Suite, seed: int = 0) -> MergeContext:
    return merge_context(suite, {}, seed=seed)


def build(tasks: tuple[TaskSpec, ...], seed: int) -> SharedTrunk:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SharedTrunk(tasks, lambda: TableBackbone(FEATURES, width=6, num_blocks=1, dropout=0.0), inputs={}, head_hidden=0)


def model_of(tensors: Mapping[str, np.ndarray], make: Callable[[], nn.Module], name: str = "m") -> MergeModel:
    def made() -> nn.Module:
        network = make()
        network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tensors.items()})
        return network

    return MergeModel(name=name, tensors=tensors, network=made)


def models_of(*tasks: tuple[TaskSpec, ...], noise: float = 0.3) -> tuple[MergeModel, list[MergeModel]]:
    """Return a base and one model for each group of tasks, with heads of its own: the base's trunk and some noise."""
    start = build((COLOUR,), 0).state_dict()
    trunk = {name: value.numpy() for name, value in start.items() if not name.startswith("heads.")}
    experts = []
    for seed, group in enumerate(tasks, start=1):
        random = np.random.default_rng(seed)
        make: Any = functools.partial(build, group, seed)
        heads = {name: value.numpy() for name, value in make().state_dict().items() if name.startswith("heads.")}
        moved = {
            name: (value + noise * random.normal(size=value.shape)).astype(np.float32)
            for name, value in {**trunk, **heads}.items()
        }
        experts.append(model_of(moved, make, f"m{seed}"))
    return MergeModel(name="base", tensors=trunk), experts
