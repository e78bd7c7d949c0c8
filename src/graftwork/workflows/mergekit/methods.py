"""Method names and parameters of mergekit, and the mergers that compute the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.arcee_fusion import ArceeFusionMerger
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.breadcrumbs import BreadcrumbsMerger, MagnitudeMerger
from graftwork.methods.merging.dare import DareMerger
from graftwork.methods.merging.della import DellaMerger
from graftwork.methods.merging.model_stock import ModelStockMerger
from graftwork.methods.merging.multislerp import MultiSlerpMerger
from graftwork.methods.merging.nearswap import NearSwapMerger
from graftwork.methods.merging.passthrough import PassthroughMerger
from graftwork.methods.merging.ram import RamMerger, RamPlusMerger
from graftwork.methods.merging.sce import SceMerger
from graftwork.methods.merging.spherical import KarcherMerger, NuSlerpMerger, SlerpMerger

__all__ = ["METHODS", "KitMethod", "Parameter"]

Scope = Literal["shared", "each", "tuned"]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method."""

    kind: type
    scope: Scope
    """``shared`` by all models; ``each`` model has its own, the base too; ``tuned``: each model but the base."""
    default: Any = None
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class KitMethod:
    """A method."""

    parameters: Mapping[str, Parameter]
    build: Callable[[Values, Sequence[Values]], Merger]
    """From the shared values, with the ``seed`` among them, and those of each model that is merged, in their order."""
    takes_base: bool = False
    """Whether the base is one of the models that are merged, and not what they are compared with."""
    base: Literal["needed", "optional", "unused"] = "needed"
    counts: tuple[int, int | None] = field(default=(1, None))
    """Models that are merged, at least and at most."""


_DRAWING = (DareMerger, DellaMerger)
_WEIGHT = Parameter(float, "tuned", is_required=True)
_CHANGES = {
    "weight": _WEIGHT,
    "density": Parameter(float, "tuned", 1.0),
    "lambda": Parameter(float, "shared", 1.0),
    "int8_mask": Parameter(bool, "shared", False),
}


def _changes(
    cls: Callable[..., Merger], *, normalize: bool, rescale: bool, elect: str, extra: Values | None = None, drops: bool = True
) -> KitMethod:
    """Return a method that merges sparse changes, with mergekit's defaults; one that drops nothing ignores its density."""
    own = {key: Parameter(float, "tuned", value) for key, value in (extra or {}).items()}
    flags = {"normalize": Parameter(bool, "shared", normalize), "rescale": Parameter(bool, "shared", rescale)}

    def build(shared: Values, each: Sequence[Values]) -> Merger:
        for values in each:
            if not values["density"] >= 0.0:
                raise ConfigError(f"density must be at least 0; got {values['density']!r}")
        # A density of 0 keeps nothing: as a weight of 0. From 1 on everything is kept.
        weights = [0.0 if drops and values["density"] == 0.0 else values["weight"] for values in each]
        density = tuple((min(1.0, values["density"]) or 1.0) if drops else 1.0 for values in each)
        settings: dict[str, Any] = {key: tuple(values[key] for values in each) for key in own}
        return cls(
            density=density,
            weights=weights,
            scaling=shared["lambda"],
            elect=elect,
            normalize=shared["normalize"],
            rescale="norm" if shared["rescale"] else "none",
            **settings,
            **({"seed": shared["seed"]} if cls in _DRAWING else {}),
        )

    return KitMethod({**_CHANGES, **flags, **own}, build)


def _linear(shared: Values, each: Sequence[Values]) -> Merger:
    weights = [values["weight"] for values in each]
    total = sum(weights) if shared["normalize"] else 1.0
    if total == 0.0:
        raise ConfigError("the weights add up to 0 and cannot be normalised; set normalize to false, or other weights")
    # Negative weights are allowed here, which a mean refuses.
    return AveragingMerger(weights=[weight / total for weight in weights], normalize=False)


def _nuslerp(shared: Values, each: Sequence[Values]) -> Merger:
    first, second = (values["weight"] for values in each)
    weights = None if abs(first + second) < 1e-6 else (first, second)
    turned: Literal["tensor", "last", "first"] = "first" if shared["nuslerp_row_wise"] else "last"
    return NuSlerpMerger(weights=weights, vectors="tensor" if shared["nuslerp_flatten"] else turned)


def _multislerp(shared: Values, each: Sequence[Values]) -> Merger:
    return MultiSlerpMerger(
        weights=[values["weight"] for values in each], normalize=shared["normalize_weights"], eps=shared["eps"]
    )


METHODS: Mapping[str, KitMethod] = {
    "linear": KitMethod(
        {"weight": Parameter(float, "each", is_required=True), "normalize": Parameter(bool, "shared", True)},
        _linear,
        takes_base=True,
        base="optional",
    ),
    "slerp": KitMethod(
        {"t": Parameter(float, "shared", is_required=True)},
        lambda shared, each: SlerpMerger(t=shared["t"]),
        takes_base=True,
        counts=(2, 2),
    ),
    "nuslerp": KitMethod(
        {
            "weight": _WEIGHT,
            "nuslerp_row_wise": Parameter(bool, "shared", False),
            "nuslerp_flatten": Parameter(bool, "shared", True),
        },
        _nuslerp,
        base="optional",
        counts=(2, 2),
    ),
    "karcher": KitMethod(
        {"max_iter": Parameter(int, "shared", 10), "tol": Parameter(float, "shared", 1e-5)},
        lambda shared, each: KarcherMerger(max_iter=shared["max_iter"], tol=shared["tol"]),
        takes_base=True,
        base="optional",
    ),
    "task_arithmetic": _changes(MagnitudeMerger, normalize=False, rescale=False, elect="none", drops=False),
    "ties": _changes(MagnitudeMerger, normalize=True, rescale=False, elect="sum"),
    "dare_linear": _changes(DareMerger, normalize=False, rescale=True, elect="none"),
    "dare_ties": _changes(DareMerger, normalize=False, rescale=True, elect="sum"),
    "breadcrumbs": _changes(BreadcrumbsMerger, normalize=False, rescale=False, elect="none", extra={"gamma": 0.01}),
    "breadcrumbs_ties": _changes(BreadcrumbsMerger, normalize=False, rescale=False, elect="sum", extra={"gamma": 0.01}),
    "della": _changes(DellaMerger, normalize=True, rescale=True, elect="sum", extra={"epsilon": 0.15}),
    "della_linear": _changes(DellaMerger, normalize=False, rescale=True, elect="none", extra={"epsilon": 0.15}),
    "model_stock": KitMethod(
        {"filter_wise": Parameter(bool, "shared", False)},
        lambda shared, each: ModelStockMerger(filter_wise=shared["filter_wise"]),
        counts=(2, None),
    ),
    "multislerp": KitMethod(
        {
            "weight": _WEIGHT,
            "normalize_weights": Parameter(bool, "shared", True),
            "eps": Parameter(float, "shared", 1e-8),
        },
        _multislerp,
        base="optional",
    ),
    "nearswap": KitMethod(
        {"t": Parameter(float, "shared", is_required=True)},
        lambda shared, each: NearSwapMerger(t=shared["t"]),
        counts=(1, 1),
    ),
    "sce": KitMethod(
        {"select_topk": Parameter(float, "shared", 1.0), "int8_mask": Parameter(bool, "shared", False)},
        lambda shared, each: SceMerger(select_topk=min(1.0, max(0.0, shared["select_topk"]))),
    ),
    "arcee_fusion": KitMethod({}, lambda shared, each: ArceeFusionMerger(), counts=(1, 1)),
    "ram": KitMethod({"epsilon": Parameter(float, "shared", 1e-5)}, lambda shared, each: RamMerger(epsilon=shared["epsilon"])),
    "ramplus_tl": KitMethod(
        {
            "r": Parameter(float, "shared", 0.1),
            "alpha": Parameter(float, "shared", 0.2),
            "epsilon": Parameter(float, "shared", 1e-5),
        },
        lambda shared, each: RamPlusMerger(r=shared["r"], alpha=shared["alpha"], epsilon=shared["epsilon"]),
    ),
    "passthrough": KitMethod(
        {"scale": Parameter(float, "each", 1.0)},
        lambda shared, each: PassthroughMerger(scale=each[0]["scale"]),
        takes_base=True,
        base="unused",
        counts=(1, 1),
    ),
}
