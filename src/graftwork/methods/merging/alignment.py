"""Permutation alignment: units of a network are put in the order in which they are nearest to those of another, before a merge.

Paper: Ainsworth et al., "Git Re-Basin: Merging Models modulo Permutation Symmetries", ICLR 2023, https://arxiv.org/abs/2209.04836
(weight matching: coordinate descent over groups of units, one linear assignment a group).

Two networks that were trained from different starts may do the same with units in another order; averaged as they are, they answer
at random. What is aligned are the groups of :mod:`graftwork.methods.merging.neuron_groups`: attention heads, grouped convolutions and
concatenations are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.seeds import Seeds
from graftwork.methods.merging.neuron_groups import Axis, NeuronGroups

__all__ = ["match_weights", "permuted"]

Array = NDArray[Any]
Order = NDArray[np.int64]


def match_weights(
    reference: Mapping[str, Array], model: Mapping[str, Array], groups: NeuronGroups, *, seed: int = 0, sweeps: int = 100
) -> dict[str, Order]:
    """Return for each group the order of the model's units that is nearest to the reference: unit ``order[p]`` belongs at ``p``.

    The sum over all tensors of products with the reference never falls from one assignment to the next; a sweep that changes nothing
    is the last one.

    Args:
        reference: Tensors that stay as they are.
        model: Tensors of the same names and shapes.
        groups: Which axes stand for the same units.
        seed: Order in which groups are visited.
        sweeps: Most visits of all groups.

    Raises:
        DataError: If a tensor is missing or has another shape.
    """
    from scipy.optimize import linear_sum_assignment

    tensors = sorted({axis.tensor for axes in groups.groups.values() for axis in axes})
    for name in tensors:
        if name not in reference or name not in model or reference[name].shape != model[name].shape:
            shapes = [list(side[name].shape) if name in side else "missing" for side in (reference, model)]
            raise DataError(f"Models can be aligned only if they have equal tensors; {name!r} is {shapes[0]} and {shapes[1]}.")
    wide = {name: np.asarray(model[name], np.float64) for name in tensors}
    fixed = {name: np.asarray(reference[name], np.float64) for name in tensors}
    orders: dict[str, Order] = {name: np.arange(size) for name, size in groups.sizes.items()}
    random = Seeds(seed).numpy("alignment")
    names = sorted(groups.groups)
    for _ in range(sweeps):
        moved = False
        for place in random.permutation(len(names)):
            group = names[place]
            size = groups.sizes[group]
            gains = np.zeros((size, size))
            for axis in groups.groups[group]:
                # All other axes are where they are by now, this one as the model has it.
                others = permuted_tensor(axis.tensor, wide[axis.tensor], groups, orders, but=axis)
                gains += _units(fixed[axis.tensor], axis, size) @ _units(others, axis, size).T
            rows, columns = linear_sum_assignment(gains, maximize=True)
            # Equal gains keep the present order, or ties would never end.
            present = gains[np.arange(size), orders[group]].sum()
            if gains[rows, columns].sum() > present + 1e-9 * (1.0 + abs(present)):
                found = {**orders, group: columns.astype(np.int64)}
                if _is_better(group, found, orders, fixed, wide, groups):
                    orders, moved = found, True
        if not moved:
            break
    return orders


def permuted(model: Mapping[str, Array], groups: NeuronGroups, orders: Mapping[str, Order]) -> dict[str, Array]:
    """Return the tensors that groups reach, with their units in the given order; others are not among them."""
    names = sorted({axis.tensor for axes in groups.groups.values() for axis in axes})
    return {name: permuted_tensor(name, np.asarray(model[name]), groups, orders) for name in names}


def _is_better(
    group: str,
    found: Mapping[str, Order],
    present: Mapping[str, Order],
    fixed: Mapping[str, Array],
    model: Mapping[str, Array],
    groups: NeuronGroups,
) -> bool:
    """Return whether products with the reference grow. They do as the assignment says, unless a tensor has the group on two axes (a layer
    whose inputs are added to its outputs): both then move at once, and the assignment saw one of them move."""
    names = [axis.tensor for axis in groups.groups[group]]
    doubled = {name for name in names if names.count(name) > 1}
    if not doubled:
        return True

    def total(orders: Mapping[str, Order]) -> float:
        return sum(float((fixed[name] * permuted_tensor(name, model[name], groups, orders)).sum()) for name in set(names))

    before = total(present)
    return total(found) > before + 1e-9 * (1.0 + abs(before))


def permuted_tensor(
    name: str, values: Array, groups: NeuronGroups, orders: Mapping[str, Order], *, but: Axis | None = None
) -> Array:
    """Return one tensor with the units of all groups that it has in the given order, ``but`` those of one axis."""
    for group, axes in groups.groups.items():
        for axis in axes:
            if axis.tensor == name and axis != but:
                size = groups.sizes[group]
                block = values.shape[axis.axis] // size
                # Unit u of a flattened map takes the entries from u * block on.
                entries = (orders[group][:, None] * block + np.arange(block)).reshape(-1)
                values = np.take(values, entries, axis=axis.axis)
    return values


def _units(values: Array, axis: Axis, size: int) -> Array:
    """Return one row for each unit."""
    return np.moveaxis(values, axis.axis, 0).reshape(size, -1)
