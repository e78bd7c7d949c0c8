"""The ways of tuning that ``graftwork tune`` knows by name: a tuner and its settings each. Any plan of the race can hold them.

Those of :data:`METHODS` are measured in every run and can be chosen by ``auto``. Further ones stand on cards, as plans that tune one
pretrained backbone; they are used when they are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

from graftwork.core.cards import load_cards
from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.core.plan import Plan
from graftwork.core.settings import converted_value, settings_of
from graftwork.core.stages.train import TrainStage

__all__ = ["AUTO", "METHODS", "TuneMethod", "card_methods", "check_method", "find_method", "plan_of", "tuning_methods"]

AUTO = "auto"
_PACKAGE = "graftwork.methods.tuning."
_OTHER_PARTS = {"sharing", "learner", "backbone", "optimization", "objectives", "transforms", "stages"}
"""Parts of a plan that ``tune`` would leave out, so that it would be another system."""


@dataclass(frozen=True, slots=True)
class TuneMethod:
    """One way of tuning."""

    name: str
    title: str
    path: str
    """Dotted path of its :class:`~graftwork.interfaces.tuner.Tuner`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training settings that it asks for."""


METHODS: tuple[TuneMethod, ...] = (
    TuneMethod(
        "frozen", "nothing of the backbone learns, only the heads", f"{_PACKAGE}frozen:Frozen", {}, ("linear-probe", "probe")
    ),
    TuneMethod("bn-only", "scales and shifts of BatchNorm", f"{_PACKAGE}bn_only:BatchNormOnly", {}, ("batch-norm",)),
    TuneMethod("norm-only", "scales and shifts of all norms", f"{_PACKAGE}norm_only:NormOnly", {}, ("norms", "layernorm")),
    TuneMethod("bias-only", "all biases (BitFit)", f"{_PACKAGE}bias_only:BiasOnly", {}, ("bitfit",)),
    TuneMethod("ia3", "factors on keys, values and hidden features (IA3)", f"{_PACKAGE}ia3:IA3", {}, ("(ia)3",)),
    TuneMethod("prompt", "learned tokens in every block", f"{_PACKAGE}prompt:PromptTuning", {}, ("prompts", "vpt")),
    TuneMethod("adapter", "bottleneck adapters behind every block", f"{_PACKAGE}adapter:Adapters", {}, ("adapters", "houlsby")),
    TuneMethod("lora", "low-rank updates of the linear layers", f"{_PACKAGE}lora:LoRA", {}),
    TuneMethod("full", "everything learns", f"{_PACKAGE}full:FullTuning", {}, ("full-tuning", "fine-tuning")),
)
"""From the fewest numbers that learn to the most, as a rule."""


def tuning_methods() -> dict[str, TuneMethod]:
    """Return the methods by name."""
    return {method.name: method for method in METHODS}


def card_methods() -> dict[str, TuneMethod]:
    """Return the methods that stand on cards, by name: plans that do nothing but tune a pretrained backbone that all tasks share.

    A name of :data:`METHODS` goes before that of a card.
    """
    taken = {name for method in METHODS for name in (method.name, *method.aliases)}
    found: dict[str, TuneMethod] = {}
    for card in load_cards().values():
        for plan in card.plans:
            other = _OTHER_PARTS & plan.keys()
            if plan.get("source") != "pretrained" or "tuning" not in plan or other or plan["name"] in taken:
                continue
            tuning = Component.from_json(plan["tuning"])
            title = f"{str(plan['title']).removeprefix('Pretrained backbone, ')}; system {card.slug}"
            method = TuneMethod(
                str(plan["name"]), title, tuning.path, dict(tuning.settings), training=dict(plan.get("training", {}))
            )
            found.setdefault(method.name, method)
    return found


def find_method(name: str, settings: Mapping[str, Any] | None = None) -> TuneMethod:
    """Return a method by its name or alias, or by the dotted path of a tuner.

    Args:
        name: ``"lora"``, say, one of a card (``"cp-lora"``), or ``"package.module:Class"``.
        settings: Keywords of its tuner.

    Raises:
        ConfigError: If there is none.
        ComponentError: If the path of a tuner may not be imported.
    """
    if ":" in name:
        Component(name).check()
        return TuneMethod(name.rpartition(":")[2].lower(), f"the tuner {name}", name, dict(settings or {}))
    named = {other: method for method in METHODS for other in (method.name, *method.aliases)}
    # Cards are read only for names that are not among the usual ones.
    names = named if name in named else {**card_methods(), **named}
    if name not in names:
        known = ", ".join((AUTO, *tuning_methods(), *(other for other in names if other not in named)))
        raise ConfigError(
            f"Unknown tuning method {name!r}.{did_you_mean(name, (AUTO, *names))} Methods: {known}; or package.module:Class of a "
            "tuner."
        )
    found = names[name]
    return replace(found, settings={**found.settings, **(settings or {})})


def check_method(method: TuneMethod, given: Mapping[str, Any]) -> None:
    """Refuse settings of a tuner that it does not have, or whose values are of another type, before anything is measured.

    Args:
        method: The method, its tuner's settings among its own.
        given: What the user gave of them.

    Raises:
        ConfigError: With all problems at once.
        ComponentError: If the tuner may not be imported, or is none.
    """
    for _, place, component in plan_of(method).components():
        if component.path != method.path:
            continue
        factory = component.resolve(place.load_seam())
        # A function or a class of one's own may take any keyword; its constructor says what it thinks.
        if not isinstance(factory, type) or any(item.kind is item.VAR_KEYWORD for item in signature(factory).parameters.values()):
            continue
        known, problems = settings_of(factory), []
        for key, value in given.items():
            if key not in known:
                problems.append(
                    f"{method.name} has no setting {key!r}.{did_you_mean(key, known)} Its settings are {', '.join(known)}"
                )
                continue
            try:
                converted_value(value, known[key].annotation)
            except ConfigError as error:
                problems.append(f"{key} {error}")
        if problems:
            raise ConfigError(f"The settings of {method.name} cannot be used.", problems)


def plan_of(method: TuneMethod) -> Plan:
    """Return the plan that tunes a pretrained backbone in this way, with a head for each task."""
    return Plan(
        name=method.name,
        title=f"Pretrained backbone; {method.title}",
        role="joint",
        group="tuning",
        modalities=("any",),
        source="pretrained",
        stages=(TrainStage(tuning=Component(method.path, dict(method.settings)), training=dict(method.training)),),
    )
