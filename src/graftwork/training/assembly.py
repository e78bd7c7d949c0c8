"""From a plan to a model: source x tuning x sharing, and what is put around it when features are computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_kinds import input_kind
from graftwork.core.input_spec import InputSpec, InputSpecs
from graftwork.core.records import Component, Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.delta import Delta
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.tuner import Tuner
from graftwork.nn.backbones.catalog import backbones_of_inputs, build_backbone
from graftwork.nn.backbones.joined import JoinedBackbone

__all__ = [
    "Assembly",
    "ComposedModel",
    "FeatureInput",
    "Front",
    "TunedBackbone",
    "assemble",
    "default_settings",
    "frozen_fronts",
    "prepare_inputs",
]


FEATURES = "features"
"""Array of stored features, as a part of a model calls it."""


class FeatureInput(Backbone):
    """Passes on features that were computed before: input ``features`` ``[B, width]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("vector", width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``inputs["features"]``."""
        return inputs[FEATURES]


@dataclass(frozen=True, slots=True)
class Front:
    """A backbone whose features stay as they are, so that they are computed once for all runs."""

    array: str
    """Name of the stored features among the arrays that the model reads."""
    spec: InputSpec
    """The input that it reads."""
    backbone: Backbone


class ComposedModel(SharedModel):
    """Backbones in front of a model that was trained on their stored features: what is deployed.

    Args:
        fronts: Compute features from the suite's inputs.
        inner: Takes the features, and the suite's other inputs as they are.
    """

    def __init__(self, fronts: Sequence[Front], inner: SharedModel) -> None:
        super().__init__()
        self.arrays = [(front.array, front.spec) for front in fronts]
        self.fronts = nn.ModuleList(front.backbone for front in fronts)
        self.inner = inner
        self.task_names = inner.task_names
        self.has_shared_representation = inner.has_shared_representation

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor | tuple[Tensor, ...]:
        """Return the inner model's representation."""
        stored = {array: backbone(spec.own(inputs)) for (array, spec), backbone in zip(self.arrays, self.fronts, strict=True)}
        return self.inner.encode({**inputs, **stored}, tasks)

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
    """A model, and the backbones in front of it if the model reads stored features."""

    model: SharedModel
    fronts: tuple[Front, ...] = ()
    tuned: tuple[TunedBackbone, ...] = ()
    """The tuned backbones inside :attr:`model`. A backbone that the sharing operator took apart is not among them: what it
    learned is the operator's."""

    def deltas(self, model: SharedModel) -> dict[str, Delta]:
        """Return what tuning added to each backbone of ``model`` (:attr:`model` or a copy with other weights), by the backbone's
        name in it."""
        return {item.prefix: item.tuner.delta(model=model.get_submodule(item.prefix)) for item in self.tuned}

    def deployable(self, model: SharedModel) -> SharedModel:
        """Return ``model`` (``self.model`` or a copy with other weights) so that it takes the suite's inputs."""
        return ComposedModel(self.fronts, model) if self.fronts else model


def assemble(
    plan: Plan,
    tasks: Sequence[TaskSpec],
    inputs: InputSpecs,
    *,
    backbone: str = "",
    store_features: bool = True,
    local_only: bool = False,
) -> Assembly:
    """Build the model of a plan, drawing from torch's global generator.

    Args:
        plan: Source, backbone, tuning and sharing are read.
        tasks: The tasks.
        inputs: The suite's inputs.
        backbone: Name of the backbone for plans with source ``"pretrained"``; several, separated by commas, for inputs of several
            kinds.
        store_features: Whether backbones whose features stay fixed are put in front, so that their features can be stored.
        local_only: Whether no network is asked for a backbone, since a folder named it and not the user.

    Raises:
        ConfigError: If the plan needs a backbone and none is named, or names one beside a pretrained source, the source is
            unknown, or the sharing operator does not use the chosen backbone that it is handed.
    """
    names = backbones_of_inputs(_backbone_name(plan, backbone), inputs)
    # A series predicted step by step needs one feature per position, as a picture with dense targets does.
    dense = any(task.positions in ("pixels", "steps") for task in tasks)
    tuning = plan.train.tuning

    made: list[Backbone] = []
    attached: list[tuple[Backbone, Tuner, list[str]]] = []

    def make_part(name: str, spec: InputSpec) -> Backbone:
        trunk = _new_trunk(plan.train.backbone, names[name], spec, dense=dense, local_only=local_only)
        is_pretrained = names[name] != "scratch"
        # An untrained trunk that nobody asked for may stay unused: operators are free to build their own.
        if is_pretrained or plan.train.backbone is not None:
            made.append(trunk)
        if tuning is not None and (is_pretrained or plan.source == "scratch"):
            own: Tuner = tuning.build(seam=Tuner)
            own.attach(trunk)
            # The names as they are now: an operator that takes the trunk apart renames its tensors, which `_tuned` notices.
            attached.append((trunk, own, list(trunk.state_dict())))
        return trunk

    fronts: dict[str, Front] = {}
    if store_features and tuning is not None:
        fronts = _fixed_fronts(
            tuning,
            names,
            inputs,
            named=plan.train.backbone,
            dense=dense,
            whole=plan.source == "scratch",
            local_only=local_only,
        )

    def make() -> Backbone:
        parts = {
            name: (
                (FeatureInput(fronts[name].backbone.feature_shape.width), _stored_spec(fronts[name]))
                if name in fronts
                else (make_part(name, spec), spec)
            )
            for name, spec in inputs.items()
        }
        return next(iter(parts.values()))[0] if len(parts) == 1 else JoinedBackbone(parts)

    model = plan.train.sharing.build(tasks, make, seam=SharedModel, inputs=inputs)
    named = plan.train.backbone
    is_chosen = plan.source == "pretrained" or named is not None
    if is_chosen and not fronts and not any(_is_used(trunk, model) for trunk in made):
        unused = backbone if named is None else named.path
        raise ConfigError(
            f"Plan {plan.name!r}: {type(model).__name__} builds a trunk of its own and would leave the backbone {unused!r} "
            'unused. Choose a backbone that it can take, or let the plan start from scratch (source = "scratch").'
        )
    return Assembly(model, tuple(fronts.values()), tuple(_tuned(model, attached)))


def frozen_fronts(plan: Plan, inputs: InputSpecs, backbone: str) -> tuple[Front, ...]:
    """Return the backbones of texts and pictures whose features a plan's tuner leaves as they are, for models that are no networks.

    Args:
        plan: Source, backbone and tuning are read.
        inputs: The suite's inputs; tables have columns and need no backbone.
        backbone: See :func:`assemble`.
    """
    names = backbones_of_inputs(_backbone_name(plan, backbone), inputs)
    others = {name: spec for name, spec in inputs.items() if spec.kind != "table"}
    if plan.train.tuning is None or not others:
        return ()
    whole, named = plan.source == "scratch", plan.train.backbone
    found = _fixed_fronts(plan.train.tuning, names, others, named=named, dense=False, whole=whole, local_only=False)
    return tuple(found.values())


def _fixed_fronts(
    tuning: Component,
    names: Mapping[str, str],
    inputs: InputSpecs,
    *,
    named: Component | None,
    dense: bool,
    whole: bool,
    local_only: bool,
) -> dict[str, Front]:
    """Return the backbones, by input, whose features the tuner leaves as they are, if there are any and they give vectors.

    Args:
        tuning: The tuner.
        names: Name of the backbone of each input.
        inputs: The suite's inputs.
        named: The untrained trunk that the plan names, if it does.
        dense: Whether maps of features are asked for.
        whole: Whether untrained trunks are tuned, too.
        local_only: Whether no network is asked.
    """
    found: dict[str, Front] = {}
    for name, spec in inputs.items():
        # One tuner a trunk: it keeps what it attached to.
        tuner: Tuner = tuning.build(seam=Tuner)
        # Beside a pretrained backbone, an untrained trunk has to learn all of itself and is not tuned.
        if not tuner.keeps_features_fixed() or (names[name] == "scratch" and not whole):
            continue
        trunk = _new_trunk(named, names[name], spec, dense=dense, local_only=local_only)
        tuner.attach(trunk)
        # `FeatureInput` can only stand in for vectors.
        if trunk.feature_shape.layout == "vector":
            found[name] = Front(FEATURES if len(inputs) == 1 else f"{name}.{FEATURES}", spec, trunk.eval())
    return found


def _new_trunk(named: Component | None, name: str, spec: InputSpec, *, dense: bool, local_only: bool) -> Backbone:
    """Return the untrained trunk that the plan names, built from its settings alone, or the backbone called ``name``."""
    if named is None:
        return build_backbone(name, spec, dense=dense, local_only=local_only)
    trunk: Backbone = named.build(seam=Backbone)
    return trunk


def _stored_spec(front: Front) -> InputSpec:
    """Return the record of stored features as an input of the model behind."""
    return InputSpec(kind=front.spec.kind, arrays={FEATURES: front.array})


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
    # A converted trunk holds copies (one for each expert, say). Small tensors prove nothing: biases are zero everywhere.
    largest = max(theirs, key=lambda parameter: parameter.numel(), default=None)
    return largest is not None and any(
        parameter.shape == largest.shape and bool(torch.equal(parameter, largest)) for parameter in mine
    )


def default_settings(kinds: Sequence[str], *, pretrained: bool, stored: bool, trained_share: float) -> dict[str, Any]:
    """Return the training settings that a plan starts from.

    Args:
        kinds: Kinds of the suite's inputs.
        pretrained: Whether the backbone is.
        stored: Whether the model reads stored features, so that only heads learn.
        trained_share: Share of all parameters that learn. Where nearly all of a pretrained backbone learns, small steps keep
            what it knows; a few added parameters start at zero and need larger ones.
    """
    # Heads on a table of features: rows are cheap and nothing pretrained can be spoilt.
    if stored:
        return {"batch_size": 128, "learning_rate": 1e-3, "weight_decay": 0.05, "ema_decay": 0.99}
    found = [input_kind(kind) for kind in kinds]
    if not pretrained:
        batch = min((kind.batch_size for kind in found), default=64)
        return {"batch_size": batch, "learning_rate": 2e-3, "weight_decay": 0.02, "ema_decay": 0.99}
    # With several kinds of inputs the most careful one decides.
    scale = 1.0 if trained_share < 0.3 else min((kind.tuned_rate for kind in found), default=0.3)
    return {"batch_size": 32, "learning_rate": 1e-3, "backbone_lr_scale": scale, "weight_decay": 0.02, "ema_decay": 0.98}


def prepare_inputs(suite: Suite, plan: Plan, backbone: str) -> Suite:
    """Return the suite with inputs that the plan's backbones read (texts in the tokens of a pretrained backbone, say)."""
    if plan.source != "pretrained" or "text" not in suite.kinds:
        return suite
    from graftwork.nn.backbones.transformers_bridge import prepare_suite

    for name, chosen in backbones_of_inputs(_backbone_name(plan, backbone), suite.input_specs).items():
        suite = prepare_suite(suite, chosen, name)
    return suite


def _backbone_name(plan: Plan, backbone: str) -> str:
    if plan.train.backbone is not None and plan.source != "scratch":
        raise ConfigError(
            f"Plan {plan.name!r} names an untrained backbone ({plan.train.backbone.path}) and starts from a pretrained one as "
            'well. Leave one of `backbone` and `source = "pretrained"` out.'
        )
    if plan.source == "scratch":
        return "scratch"
    if plan.source != "pretrained":
        raise ConfigError(f"Plan {plan.name!r}: source must be 'scratch' or 'pretrained'; got {plan.source!r}.")
    if not backbone:
        raise ConfigError(
            f"Plan {plan.name!r} starts from a pretrained backbone; name one with --backbone (see `graftwork backbones`)."
        )
    return backbone
