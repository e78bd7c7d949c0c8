"""What can be done to models around a merge: units in one order before it, running statistics measured anew after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.merging.sources import shape
from graftwork.workflows.merge_kinds import Merging

if TYPE_CHECKING:
    from torch import nn

    from graftwork.methods.merging.neuron_groups import NeuronGroups

__all__ = ["AlignWith", "align_models", "measure_statistics"]

Array = NDArray[Any]
AlignWith = bool | Sequence[tuple[str, str]]
"""Whether models are aligned by what their network says, or by pairs of layers."""
_MOST_ROWS = 4096


def align_models(models: Sequence[MergeModel], pairs: AlignWith, *, seed: int = 0) -> tuple[list[MergeModel], str]:
    """Return models whose units are in the order of those of the first one, and what was moved in a sentence.

    Aligned models are held in memory.

    Args:
        models: The first one stays as it is: the base, or the first of the models.
        pairs: True traces the network of the first model; pairs name layers that belong together.
        seed: Order in which layers are visited.

    Raises:
        ConfigError: If the network is not known or cannot be traced, a layer is not there, or nothing can be moved.
        DataError: If the models have other tensors.
    """
    from graftwork.methods.merging.alignment import match_weights, permuted

    first, *others = models
    groups = _groups(first, pairs)
    reached = sorted({axis.tensor for axes in groups.groups.values() for axis in axes})
    reference = {name: np.asarray(first.tensors[name]) for name in reached if name in first.tensors}
    found, moved = [first], 0
    for model in others:
        own = {name: np.asarray(model.tensors[name]) for name in reached if name in model.tensors}
        orders = match_weights(reference, own, groups, seed=seed)
        moved += sum(int((order != np.arange(len(order))).sum()) for order in orders.values())
        tensors = {**{name: np.array(model.tensors[name]) for name in model.tensors}, **permuted(own, groups, orders)}
        build = None if model.network is None else _aligned_network(model.network, tensors)
        found.append(replace(model, tensors=tensors, network=build))
    total = sum(groups.sizes.values()) * len(others)
    said = f"aligned {len(groups.groups)} layers: {moved:,} of {total:,} units changed places"
    if groups.fixed:
        name, reason = next(iter(groups.fixed.items()))
        said += f"; {len(groups.fixed)} layers kept theirs, such as {name} ({reason})"
    return found, f"{said}."


def _groups(first: MergeModel, pairs: AlignWith) -> NeuronGroups:
    from graftwork.methods.merging.neuron_groups import groups_of_network, groups_of_pairs

    if not isinstance(pairs, bool):
        return groups_of_pairs({name: shape(first.tensors, name) for name in first.tensors}, pairs)
    from graftwork.interfaces.shared_model import SharedModel

    network = first.build()
    # Which tasks are asked is fixed while a network is traced.
    groups = groups_of_network(network, concrete={"tasks": None} if isinstance(network, SharedModel) else None)
    if not groups.groups:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(groups.fixed.items())[:3])
        raise ConfigError(
            f"No unit of {first.name} can change its place ({reasons or 'it has no layers that are followed'}). Name the layers that "
            "belong together as pairs, or leave the alignment out."
        )
    return groups


def _aligned_network(build: Callable[[], nn.Module], tensors: Mapping[str, Array]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        import torch

        network = build()
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
        return network

    return made


def measure_statistics(merging: Merging, model: MergeModel, context: MergeContext, *, role: str = "train") -> Merging:
    """Return the merge with running statistics of BatchNorm measured on rows; all of its tensors are held in memory.

    Args:
        merging: A merge that is about to be written.
        model: Its network gets the merged weights; what it answers does not matter.
        context: Tasks, rows and device.
        role: Rows that are shown to it, at most 4,096.

    Raises:
        ConfigError: If there are no rows, the network is not known, or it has no BatchNorm with running statistics.
    """
    from graftwork.methods.merging.batch_norm import estimate_statistics
    from graftwork.methods.merging.model_answers import Answering

    tensors = {name: np.array(values) for name, values in merging.tensors}
    for name, indices, values in merging.corrections:
        tensors[name].reshape(-1)[indices] = values
    answering = Answering(model, context.tasks)
    own = {name.removeprefix("inner.") for name in answering.network.state_dict()}
    answering.load((name, values) for name, values in tensors.items() if name in own)
    names = [task.name for task in answering.tasks]
    network = answering.network.to(context.device)
    seen = 0

    def rows() -> Any:
        nonlocal seen
        for batch in context.batches(role):
            # One row alone has no variance.
            if len(batch) > 1 and seen < _MOST_ROWS:
                seen += len(batch)
                yield batch

    found = estimate_statistics(network, rows(), lambda batch: network(batch.inputs, names))
    found = {name.removeprefix("inner."): values for name, values in found.items()}
    known = [name for name in found if name in tensors]
    if not known:
        raise ConfigError(
            f"{model.name} has no BatchNorm whose running statistics could be measured"
            + ("." if seen else f", or there are too few {role!r} rows.")
            + " Leave --repair out: networks without BatchNorm are not rescaled."
        )
    tensors |= {name: found[name].astype(tensors[name].dtype) for name in known}
    note = f"measured running statistics of {len(known) // 2} BatchNorm layers on {seen:,} {role} rows."
    return replace(merging, tensors=tensors.items(), corrections=(), notes=(*merging.notes, note))
