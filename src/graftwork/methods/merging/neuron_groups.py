"""Which axes of which tensors stand for the same units of a network, so that the units can change places without changing answers.

A *group* is the outputs of one layer (of several that are added up) together with everything that reads them: rows of a weight, its
bias, the statistics of a norm, columns of the next weight. It is found by tracing the network with ``torch.fx``, or named by hand as
pairs of layers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.names import did_you_mean

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Axis", "NeuronGroups", "groups_of_network", "groups_of_pairs"]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a tensor that counts the units of a group; each unit may take several neighbouring entries (after flattening)."""

    tensor: str
    axis: int


@dataclass(frozen=True, slots=True)
class NeuronGroups:
    """Groups of units of a network."""

    groups: Mapping[str, tuple[Axis, ...]]
    """By the name of the layer that makes the units."""
    sizes: Mapping[str, int]
    """Number of units of each."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Layers whose units keep their places, and why."""


def groups_of_pairs(shapes: Mapping[str, tuple[int, ...]], pairs: Sequence[tuple[str, str]]) -> NeuronGroups:
    """Return groups from pairs ``(layer that makes units, layer that reads them)``; several pairs may have the same first layer.

    The second layer reads by the second axis of its weight; a layer whose tensors have one axis (a norm) has the units on it.

    Args:
        shapes: Shapes of all tensors, by name (``"first.weight"``).
        pairs: Names of layers, as before ``.weight``.

    Raises:
        ConfigError: If there is no such layer.
        DataError: If the sizes of two layers do not fit.
    """
    layers = {name.rpartition(".")[0] for name in shapes}
    groups: dict[str, list[Axis]] = {}
    for pair in pairs:
        for layer in pair:
            if layer not in layers:
                raise ConfigError(
                    f"There is no layer {layer!r}.{did_you_mean(layer, layers)} Name layers as their tensors begin."
                )
        first, second = pair
        axes = groups.setdefault(first, _own(shapes, first, 0))
        weight = shapes.get(f"{second}.weight", ())
        axes += _own(shapes, second, 0) if len(weight) < 2 else [Axis(f"{second}.weight", 1)]
    sizes = {layer: shapes[axes[0].tensor][0] for layer, axes in groups.items()}
    for layer, axes in groups.items():
        for axis in axes:
            if shapes[axis.tensor][axis.axis] % sizes[layer]:
                raise DataError(
                    f"{layer} makes {sizes[layer]} units, and axis {axis.axis} of {axis.tensor} has {shapes[axis.tensor][axis.axis]}: "
                    "they do not belong together."
                )
    return NeuronGroups({layer: tuple(axes) for layer, axes in groups.items()}, sizes)


def _own(shapes: Mapping[str, tuple[int, ...]], layer: str, axis: int) -> list[Axis]:
    return [Axis(name, axis) for name in sorted(shapes) if name.rpartition(".")[0] == layer and len(shapes[name]) > axis]


def groups_of_network(network: nn.Module, *, concrete: Mapping[str, Any] | None = None) -> NeuronGroups:
    """Return the groups of a network of linear layers, convolutions, norms, activations, pooling and sums, traced by ``torch.fx``.

    Units that meet anything else (attention, grouped convolutions, group norms, concatenations, the output) keep their places.

    Args:
        network: Any network that ``torch.fx`` can trace.
        concrete: Arguments of ``forward`` with a fixed value.

    Raises:
        ConfigError: If it cannot be traced.
    """
    from torch import fx

    try:
        graph = fx.Tracer().trace(network, concrete_args=dict(concrete) if concrete else None)
    except Exception as error:
        raise ConfigError(
            f"{type(network).__name__} cannot be traced ({' '.join(str(error).split())[:160]}). Name the layers that belong together as "
            "pairs in its place."
        ) from error
    walk = _Walk(network)
    for node in graph.nodes:
        walk.visit(node)
    return walk.groups()


class _Walk:
    """Follows units through a graph. Spaces of units are merged where tensors are added (union-find)."""

    def __init__(self, network: nn.Module) -> None:
        self.modules = dict(network.named_modules())
        self.parent: list[int] = []
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.axes: list[list[Axis]] = []
        self.pinned: dict[int, str] = {}
        self.space: dict[Any, int] = {}
        self.maps: set[Any] = set()
        """Nodes whose units have places behind them: what reads the last axis does not read their units."""

    def new(self, name: str, size: int, reason: str = "") -> int:
        number = len(self.parent)
        self.parent.append(number)
        self.names.append(name)
        self.sizes.append(size)
        self.axes.append([])
        if reason:
            self.pinned[number] = reason
        return number

    def find(self, number: int) -> int:
        while self.parent[number] != number:
            number = self.parent[number]
        return number

    def join(self, first: int, second: int) -> int:
        first, second = self.find(first), self.find(second)
        if first == second:
            return first
        self.parent[second] = first
        self.axes[first] += self.axes[second]
        if second in self.pinned:
            self.pinned.setdefault(first, self.pinned[second])
        if self.sizes[first] != self.sizes[second]:
            self.pinned.setdefault(first, "layers of other widths are added to it")
        return first

    def visit(self, node: Any) -> None:
        from torch import fx, nn

        # Flattening and means over places leave none; what makes new units says so itself.
        ends = str(node.target).rpartition(".")[2].startswith(("flatten", "mean")) or getattr(node.target, "__name__", "") in (
            "flatten",
            "mean",
        )
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        ends = ends or isinstance(module, nn.Flatten | nn.Linear)
        makes = isinstance(module, nn.modules.conv._ConvNd)
        if makes or (not ends and any(item in self.maps for item in node.all_input_nodes)):
            self.maps.add(node)
        given = [item for item in node.all_input_nodes if item in self.space]
        if node.op == "placeholder" or node.op == "get_attr":
            self.space[node] = self.new(node.name, 0, "it is an input")
        elif node.op == "output":
            for item in given:
                self.pin(item, "it is an output")
        elif node.op == "call_module":
            self.space[node] = self.module(node, given)
        elif self.is_sum(node) and all(isinstance(item, fx.Node | int | float) for item in node.args):
            first, *others = given
            found = self.space[first]
            for item in others:
                found = self.join(found, self.space[item])
            self.space[node] = found
        elif self.is_plain(node) and len(given) == 1:
            self.space[node] = self.space[given[0]]
        else:
            self.space[node] = self.unknown(node, given, f"{node.target} is not followed")

    def module(self, node: Any, given: Sequence[Any]) -> int:
        from torch import nn

        module, name = self.modules[node.target], str(node.target)
        own = [key for key, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]
        if len(given) == 1:
            source = given[0]
            plain = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and not getattr(module, "transposed", False)
            if source in self.maps and isinstance(module, nn.Linear | nn.LayerNorm):
                return self.unknown(node, given, f"{name} ({type(module).__name__}) reads places and not units")
            if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
                return self.unknown(node, given, f"{name} (Flatten) begins elsewhere than at the units")
            if isinstance(module, nn.Linear) or (plain and module.groups == 1):
                self.use(source, Axis(f"{name}.weight", 1))
                found = self.new(name, int(module.weight.shape[0]))
                self.axes[found] += [Axis(f"{name}.{key}", 0) for key in own]
                return found
            width = int(module.num_features) if isinstance(module, nn.modules.batchnorm._BatchNorm) else 0
            if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
                width = int(module.normalized_shape[0])
            if plain and module.groups == module.in_channels == module.out_channels:
                width = int(module.out_channels)
            if width:
                for key in own:
                    if getattr(module, key).dim():
                        self.use(source, Axis(f"{name}.{key}", 0))
                return self.space[source]
            if not own and isinstance(module, self.plain_modules()):
                return self.space[source]
        return self.unknown(node, given, f"{name} ({type(module).__name__}) is not followed")

    def use(self, source: Any, axis: Axis) -> None:
        self.axes[self.find(self.space[source])].append(axis)

    def pin(self, source: Any, reason: str) -> None:
        self.pinned.setdefault(self.find(self.space[source]), reason)

    def unknown(self, node: Any, given: Sequence[Any], reason: str) -> int:
        for item in given:
            self.pin(item, reason)
        return self.new(node.name, 0, reason)

    @staticmethod
    def plain_modules() -> tuple[type, ...]:
        from torch import nn

        acts = (
            "ReLU",
            "ReLU6",
            "LeakyReLU",
            "ELU",
            "CELU",
            "SELU",
            "GELU",
            "SiLU",
            "Mish",
            "Tanh",
            "Sigmoid",
            "Hardswish",
            "Hardsigmoid",
        )
        pools = [
            f"{kind}{dims}d"
            for kind in ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "Dropout")
            for dims in (1, 2, 3)
        ]
        names = (*acts, "Softplus", "Identity", "Dropout", "Flatten", *pools)
        return tuple(found for name in names if (found := getattr(nn, name, None)) is not None)

    @staticmethod
    def is_sum(node: Any) -> bool:
        import torch

        functions: tuple[Callable[..., Any], ...] = (
            operator.add,
            operator.iadd,
            operator.sub,
            operator.mul,
            torch.add,
            torch.mul,
        )
        return (node.op == "call_function" and node.target in functions) or (
            node.op == "call_method" and node.target in ("add", "add_", "sub", "mul")
        )

    @staticmethod
    def is_plain(node: Any) -> bool:
        """Whether it works on each unit by itself and leaves the units where they are."""
        import torch
        from torch.nn import functional as F

        names = "relu relu6 leaky_relu elu gelu silu mish hardswish dropout dropout2d max_pool2d avg_pool2d adaptive_avg_pool2d"
        functions: set[Any] = {getattr(F, name) for name in names.split()}
        functions |= {torch.relu, torch.tanh, torch.sigmoid, torch.clone, operator.truediv, operator.neg}
        if node.op == "call_method":
            if node.target == "flatten" or node.target == "mean":
                return _keeps_units(node.args[1:], node.kwargs, flatten=node.target == "flatten")
            return node.target in ("relu", "tanh", "sigmoid", "contiguous", "clone", "float", "double")
        if node.target in (torch.flatten, torch.mean):
            return _keeps_units(node.args[1:], node.kwargs, flatten=node.target is torch.flatten)
        return node.target in functions

    def groups(self) -> NeuronGroups:
        found: dict[str, tuple[Axis, ...]] = {}
        sizes: dict[str, int] = {}
        fixed: dict[str, str] = {}
        for number, name in enumerate(self.names):
            if self.find(number) != number or not self.sizes[number]:
                continue
            if number in self.pinned:
                fixed[name] = self.pinned[number]
            else:
                # A module that is called twice is listed once.
                found[name], sizes[name] = tuple(dict.fromkeys(self.axes[number])), self.sizes[number]
        return NeuronGroups(found, sizes, fixed)


def _keeps_units(args: Sequence[Any], kwargs: Mapping[str, Any], *, flatten: bool) -> bool:
    """Whether flattening begins at the axis of the units, or a mean goes over the places behind it."""
    if flatten:
        begin = args[0] if args else kwargs.get("start_dim", 0)
        return begin == 1 and len(args) < 2 and kwargs.get("end_dim", -1) == -1
    axes = args[0] if args else kwargs.get("dim")
    axes = tuple(axes) if isinstance(axes, list | tuple) else (axes,)
    # Of [B, units, h, w] the places are 2 and 3, or -1 and -2 together.
    return axes in ((2, 3), (3, 2), (-2, -1), (-1, -2)) and not kwargs.get("keepdim")
