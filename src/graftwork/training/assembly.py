"""From a plan to a model: source x tuning x sharing, and what is put around it when features are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.records import Modality, Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.delta import Delta
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.tuner import Tuner
from graftwork.nn.backbones.catalog import build_backbone

__all__ = ["Assembly", "ComposedModel", "FeatureInput", "TunedBackbone", "assemble", "default_settings", "prepare_inputs"]


class FeatureInput(Backbone):
    """Passes on features that were computed before: input ``features`` ``[B, width]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("vector", width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``inputs["features"]``."""
        return inputs["features"]


class ComposedModel(SharedModel):
    """A backbone in front of a model that was trained on its stored features: what is deployed.

    Args:
        backbone: Computes the features from the suite's inputs.
        inner: Takes the features.
    """

    def __init__(self, backbone: Backbone, inner: SharedModel) -> None:
        super().__init__()
        self.backbone, self.inner = backbone, inner
        self.task_names = inner.task_names
        self.has_shared_representation = inner.has_shared_representation

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the inner model's representation."""
        return self.inner.encode({"features": self.backbone(inputs)}, tasks)

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the inner model's outputs."""
        return self.inner.decode(representation, tasks)

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield what only ``task`` uses."""
        return self.inner.task_parameters(task)


@dataclass(frozen=True, slots=True)
class TunedBackbone:
    """A backbone inside a model, and the tuner that stays attached to it."""

    prefix: str
    """Where the backbone is: its name among the model's modules."""
    tuner: Tuner


@dataclass(frozen=True, slots=True)
class Assembly:
    """A model, and the backbone in front of it if the model reads stored features."""

    model: SharedModel
    backbone: Backbone | None
    tuned: tuple[TunedBackbone, ...] = ()
    """The tuned backbones inside :attr:`model`. A backbone that the sharing operator took apart is not among them: what it
    learned is the operator's."""

    def deltas(self, model: SharedModel) -> dict[str, Delta]:
        """Return what tuning added to each backbone of ``model`` (:attr:`model` or a copy with other weights), by the backbone's
        name in it."""
        return {item.prefix: item.tuner.delta(model=model.get_submodule(item.prefix)) for item in self.tuned}

    def deployable(self, model: SharedModel) -> SharedModel:
        """Return ``model`` (``self.model`` or a copy with other weights) so that it takes the suite's inputs."""
        return model if self.backbone is None else ComposedModel(self.backbone, model)


def assemble(
    plan: Plan,
    tasks: Sequence[TaskSpec],
    modality: Modality,
    input_sizes: Mapping[str, Any],
    *,
    backbone: str = "",
    store_features: bool = True,
) -> Assembly:
    """Build the model of a plan, drawing from torch's global generator.

    Args:
        plan: Source, tuning and sharing are read.
        tasks: The tasks.
        modality: Modality of the inputs.
        input_sizes: Sizes of the inputs.
        backbone: Name of the backbone for plans with source ``"pretrained"``.
        store_features: Whether a backbone whose features stay fixed is put in front, so that its features can be stored.

    Raises:
        ConfigError: If the plan needs a backbone and none is named, the source is unknown, or the sharing operator does not use
            the pretrained backbone that it is handed.
    """
    name = _backbone_name(plan, backbone)
    sizes = {**input_sizes, "feature_map": True} if any(task.positions == "pixels" for task in tasks) else dict(input_sizes)

    made: list[Backbone] = []
    attached: list[tuple[Backbone, Tuner, list[str]]] = []

    def make() -> Backbone:
        trunk = build_backbone(name, modality, sizes)
        made.append(trunk)
        if plan.train.tuning is not None:
            own: Tuner = plan.train.tuning.build(seam=Tuner)
            own.attach(trunk)
            attached.append((trunk, own, list(trunk.state_dict())))
        return trunk

    tuner: Tuner | None = None if plan.train.tuning is None else plan.train.tuning.build(seam=Tuner)
    front: Backbone | None = None
    make_backbone: Callable[[], Backbone] = make
    if store_features and tuner is not None and tuner.keeps_features_fixed():
        trunk = build_backbone(name, modality, sizes)
        tuner.attach(trunk)
        if trunk.feature_shape.layout == "vector":
            front, width = trunk.eval(), trunk.feature_shape.width
            make_backbone = lambda: FeatureInput(width)  # noqa: E731
    model = plan.train.sharing.build(tasks, make_backbone, seam=SharedModel, input_sizes=sizes)
    if plan.source == "pretrained" and front is None and not any(_is_used(trunk, model) for trunk in made):
        raise ConfigError(
            f"Plan {plan.name!r}: {type(model).__name__} builds a trunk of its own and would leave the backbone {name!r} unused. "
            'Choose a backbone that it can take, or let the plan start from scratch (source = "scratch").'
        )
    return Assembly(model, front, tuple(_tuned(model, attached)))


def _tuned(model: SharedModel, attached: Sequence[tuple[Backbone, Tuner, list[str]]]) -> Iterator[TunedBackbone]:
    """Yield the backbones that the model holds as they were attached to."""
    places = {id(module): prefix for prefix, module in model.named_modules()}
    for trunk, tuner, names in attached:
        if id(trunk) in places and list(trunk.state_dict()) == names:
            yield TunedBackbone(places[id(trunk)], tuner)


def _is_used(trunk: Backbone, model: SharedModel) -> bool:
    """Whether a model holds the trunk's parameters, or copies of its largest one (a trunk may be converted)."""
    mine, theirs = list(model.parameters()), list(trunk.parameters())
    held = {id(parameter) for parameter in mine}
    if any(id(parameter) in held for parameter in theirs):
        return True
    largest = max(theirs, key=lambda parameter: parameter.numel(), default=None)
    return largest is not None and any(
        parameter.shape == largest.shape and bool(torch.equal(parameter, largest)) for parameter in mine
    )


def default_settings(modality: Modality, *, pretrained: bool, stored: bool, trained_share: float) -> dict[str, Any]:
    """Return the training settings that a plan starts from.

    Args:
        modality: Modality of the suite.
        pretrained: Whether the backbone is.
        stored: Whether the model reads stored features, so that only heads learn.
        trained_share: Share of all parameters that learn. Where nearly all of a pretrained backbone learns, small steps keep
            what it knows; a few added parameters start at zero and need larger ones.
    """
    if stored:
        return {"batch_size": 128, "learning_rate": 1e-3, "weight_decay": 0.05, "ema_decay": 0.99}
    if not pretrained:
        batch = {"table": 128, "image": 64, "text": 64}[modality]
        return {"batch_size": batch, "learning_rate": 2e-3, "weight_decay": 0.02, "ema_decay": 0.99}
    scale = 1.0 if trained_share < 0.3 else (0.1 if modality == "text" else 0.3)
    return {"batch_size": 32, "learning_rate": 1e-3, "backbone_lr_scale": scale, "weight_decay": 0.02, "ema_decay": 0.98}


def prepare_inputs(suite: Suite, plan: Plan, backbone: str) -> Suite:
    """Return the suite with inputs that the plan's backbone reads (texts in the tokens of a pretrained backbone, say)."""
    if plan.source != "pretrained" or suite.modality != "text":
        return suite
    from graftwork.nn.backbones.transformers_bridge import prepare_suite

    return prepare_suite(suite, _backbone_name(plan, backbone))


def _backbone_name(plan: Plan, backbone: str) -> str:
    if plan.source == "scratch":
        return "scratch"
    if plan.source != "pretrained":
        raise ConfigError(f"Plan {plan.name!r}: source must be 'scratch' or 'pretrained'; got {plan.source!r}.")
    if not backbone:
        raise ConfigError(
            f"Plan {plan.name!r} starts from a pretrained backbone; name one with --backbone (see `graftwork backbones`)."
        )
    return backbone
