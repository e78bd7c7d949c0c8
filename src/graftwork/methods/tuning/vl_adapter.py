"""Adapters of several tasks on one frozen backbone, with more or less of them shared: the schemes that VL-Adapter compares.

Paper: Sung, Cho and Bansal, "VL-Adapter: Parameter-Efficient Transfer Learning for Vision-and-Language Tasks", CVPR 2022,
https://arxiv.org/abs/2112.06825 (code: ylsung/VL_adapter).

==================  ===========================================================
``scheme``          what the tasks share
==================  ===========================================================
``"single"``        one adapter a place for all tasks
``"half-down"``     ``down``; each task has its own ``up``
``"half-up"``       ``up``; each task has its own ``down``
``"multiple"``      nothing: one adapter a place and task
==================  ===========================================================

``kind`` says how the matrices are made: ``"bottleneck"`` plain, ``"compacter"`` as sums of Kronecker products with small matrices that
all places and tasks share, ``"hyperformer"`` by a network from embeddings of task and place (which is a scheme of its own).

Departures: an adapter stands behind each whole block in place of both halves; tasks have heads in place of generated text, so a single
adapter needs no prefix where every task reads its own head; HyperFormer's norms are not generated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.math.fingerprint import state_fingerprint, tensor_prints
from graftwork.methods.tuning.adapter import adapter_places
from graftwork.nn.adapter_sources import AdapterSource, AdapterWeights, GeneratedAdapters, SharedAdapters, SwitchedAdapter
from graftwork.nn.adapters import BottleneckAdapter
from graftwork.nn.foldable import plain_state, put_module
from graftwork.nn.module_delta import ModuleDelta, PlacedGraft
from graftwork.nn.switched_model import SwitchedModel
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["Kind", "Scheme", "VLAdapter"]

Scheme = Literal["single", "half-down", "half-up", "multiple"]
Kind = Literal["bottleneck", "compacter", "hyperformer"]
_ADAPTER = f"{BottleneckAdapter.__module__}:{BottleneckAdapter.__name__}"


class VLAdapter(SwitchedModel):
    """One frozen backbone with adapters, of which the tasks share what ``scheme`` says.

    Args:
        tasks: The tasks.
        make_backbone: Returns the pretrained backbone.
        inputs: The suite's inputs.
        scheme: What the tasks share; see this module's docstring.
        kind: How matrices are made; ``"hyperformer"`` goes with ``scheme="multiple"``.
        reduction: Width over bottleneck, at least 1.
        kronecker: Size of Compacter's small matrices; it divides widths and bottlenecks.
        embedding: Width of HyperFormer's embeddings.
        target_modules: Behind which modules; see :class:`~graftwork.methods.tuning.adapter.Adapters`.
        train_norms: Whether the norms of the backbone learn too, shared by all tasks, as the paper has it for every scheme.
        head_hidden: Hidden width of the heads; see :class:`.SwitchedModel`.

    Raises:
        ConfigError: If a word is unknown, a number is out of range, or words do not go together.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        scheme: Scheme = "single",
        kind: Kind = "bottleneck",
        reduction: int = 8,
        kronecker: int = 4,
        embedding: int = 32,
        target_modules: str | Sequence[str] = "auto",
        train_norms: bool = True,
        head_hidden: int | None = None,
    ) -> None:
        if scheme not in get_args(Scheme):
            raise ConfigError(f"`scheme` must be one of {', '.join(get_args(Scheme))}; got {scheme!r}.")
        if kind not in get_args(Kind):
            raise ConfigError(f"`kind` must be one of {', '.join(get_args(Kind))}; got {kind!r}.")
        if min(reduction, kronecker, embedding) < 1:
            raise ConfigError(
                f"`reduction`, `kronecker` and `embedding` must be at least 1; got {reduction}, {kronecker}, {embedding}."
            )
        if kind == "hyperformer" and scheme != "multiple":
            raise ConfigError(
                f'HyperFormer makes an adapter for each task, so scheme={scheme!r} does not go with it. Take scheme="multiple".'
            )
        super().__init__(tasks, make_backbone(), inputs=inputs, head_hidden=head_hidden)
        self.scheme, self.kind = scheme, kind
        self.runs_once = self.has_shared_representation = scheme == "single"
        found = adapter_places(self.backbone, target_modules)
        step = kronecker if kind == "compacter" else 1
        # Rounded up to what Kronecker products need.
        self.sizes = [(width, max(1, -(-width // (reduction * step))) * step) for width, _ in found.values()]
        self.source = self._source(kronecker, embedding)
        for name, (_, is_map) in found.items():
            put_module(
                self.backbone, name, SwitchedAdapter(self.backbone.get_submodule(name), channels="second" if is_map else "last")
            )
        self.places = tuple(found)
        """Plain names of the modules that adapters follow."""
        self._norms_before: dict[str, Tensor] = {}
        if train_norms:
            self._free_norms()

    def _source(self, kronecker: int, embedding: int) -> AdapterSource:
        count = len(self.task_names)
        if self.kind == "hyperformer":
            return GeneratedAdapters(self.sizes, count, embedding=embedding)
        return SharedAdapters(
            self.sizes,
            count,
            share_down=self.scheme in ("single", "half-down"),
            share_up=self.scheme in ("single", "half-up"),
            kronecker=kronecker if self.kind == "compacter" else 0,
        )

    def _free_norms(self) -> None:
        # By the name of the class: libraries have norms of their own.
        layers = [module for module in self.backbone.modules() if "Norm" in type(module).__name__]
        own = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
        for name, tensor in plain_state(self.backbone).items():
            if id(tensor) in own:
                tensor.requires_grad_(True)
                self._norms_before[name] = tensor.detach().clone()

    def adapters(self) -> list[SwitchedAdapter]:
        """Return the adapters in the order of :attr:`places`."""
        found = [self.backbone.get_submodule(name) for name in self.places]
        return [module for module in found if isinstance(module, SwitchedAdapter)]

    def switch(self, task: int) -> None:
        """Let all adapters compute with the weights of a task."""
        for place, adapter in enumerate(self.adapters()):
            adapter.weights = self.source.weights(place, task)

    def switch_off(self) -> None:
        """Leave no weights in the adapters: they hold a graph, which cannot be copied."""
        for adapter in self.adapters():
            adapter.weights = None

    @torch.no_grad()
    def delta(self, task: str) -> ModuleDelta:
        """Return plain bottleneck adapters of a task, however their matrices were made, and how far the norms have moved."""
        number = self.number_of(task)
        placed = []
        for place, (name, adapter) in enumerate(zip(self.places, self.adapters(), strict=True)):
            weights = self.source.weights(place, number)
            settings = {"width": self.sizes[place][0], "bottleneck": self.sizes[place][1], "channels": adapter.channels}
            placed.append(PlacedGraft(name, Component(_ADAPTER, settings), _tensors(weights, adapter.channels)))
        now = plain_state(self.backbone)
        base = {**now, **self._norms_before}
        norms = WeightDelta.between(self._norms_before, {name: now[name].detach() for name in self._norms_before})
        norms.base_fingerprint, norms.base_prints = state_fingerprint(base), tensor_prints(base)
        return ModuleDelta(
            placed, norms, lineage={"system": "vl-adapter", "task": task, "scheme": self.scheme, "kind": self.kind}
        )

    def own_parameters(self, task: int) -> Iterator[nn.Parameter]:
        """Yield what only this task has of the adapters."""
        return self.source.own(task)


def _tensors(weights: AdapterWeights, channels: str) -> dict[str, Tensor]:
    ones = () if channels == "last" else (1, 1)
    return {
        "down.weight": weights.down.detach().clone().view(*weights.down.shape, *ones),
        "down.bias": weights.down_bias.detach().clone(),
        "up.weight": weights.up.detach().clone().view(*weights.up.shape, *ones),
        "up.bias": weights.up_bias.detach().clone(),
    }
