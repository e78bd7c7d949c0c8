"""The untrained trunk of a suite: the one of its input's kind, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.input_kinds import input_kind, load_part
from graftwork.core.input_spec import InputSpec, InputSpecs
from graftwork.core.nearest import did_you_mean
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.joined import JoinedBackbone
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.backbones.table_net import TableNet
from graftwork.nn.backbones.text import TextBackbone

__all__ = ["TABLE_TRUNKS", "image_trunk", "input_trunk", "joined_trunk", "scratch_backbone", "table_trunk", "text_trunk"]

TABLE_TRUNKS: Mapping[str, Callable[[int, Sequence[int]], Backbone]] = {"residual": TableBackbone, "embedded": TableNet}
"""What ``sizes["trunk"]`` of a table may be."""


def scratch_backbone(inputs: InputSpecs, *, dense: bool = False) -> Backbone:
    """Return a fresh trunk, drawn from torch's global generator.

    Args:
        inputs: The suite's inputs.
        dense: Whether to give a map of features, for tasks with one prediction per pixel.

    Raises:
        ConfigError: If there is no input, a kind is unknown, a size is missing, or several inputs should give a map.
    """
    return joined_trunk(inputs, lambda spec: input_trunk(spec, dense=dense))


def joined_trunk(inputs: InputSpecs, make: Callable[[InputSpec], Backbone]) -> Backbone:
    """Return the trunk that ``make`` gives for the only input, or those of all inputs side by side.

    Raises:
        ConfigError: If there is no input, or one of several gives no vector.
    """
    if not inputs:
        raise ConfigError("The suite describes no input, so no trunk can be built for it. Fill `Suite.input_specs`.")
    if len(inputs) == 1:
        return make(next(iter(inputs.values())))
    return JoinedBackbone({name: (make(spec), spec) for name, spec in inputs.items()})


def input_trunk(spec: InputSpec, *, dense: bool = False) -> Backbone:
    """Return the fresh trunk of one input.

    Raises:
        ConfigError: If the kind is unknown, a size is missing, or ``dense`` is asked of a kind without maps.
    """
    try:
        # By name: kinds of inputs can come from other packages.
        trunk: Backbone = load_part(input_kind(spec.kind).trunk)(spec.sizes, dense=dense)
    except KeyError as error:
        raise ConfigError(
            f"The {spec.kind} trunk needs the size {error.args[0]!r}; got {dict(spec.sizes)}. Open the data with open_suite, "
            "which fills it, or add it to the InputSpec."
        ) from error
    return trunk


def table_trunk(sizes: Mapping[str, Any], *, dense: bool = False) -> Backbone:
    """Return the trunk of a table: with attention over behaviour sequences if it has some, else the one that ``sizes["trunk"]``
    names; there is no map of it.

    ``"residual"`` is :class:`~graftwork.nn.backbones.mlp.TableBackbone`, which suites have that name none: published systems are
    measured on it, and models that were stored before there was a choice hold it. ``"embedded"`` is
    :class:`~graftwork.nn.backbones.table_net.TableNet`.

    Raises:
        ConfigError: If there is no trunk of this name.
    """
    if sizes.get("sequences"):
        return BehaviourBackbone(sizes)
    name = sizes.get("trunk", "residual")
    if name not in TABLE_TRUNKS:
        raise ConfigError(
            f"There is no trunk {name!r} for tables; there are {', '.join(TABLE_TRUNKS)}.{did_you_mean(str(name), TABLE_TRUNKS)}"
        )
    return TABLE_TRUNKS[name](int(sizes["num_numeric"]), tuple(sizes.get("cardinalities", ())))


def image_trunk(sizes: Mapping[str, Any], *, dense: bool = False) -> Backbone:
    """Return the trunk of pictures."""
    return ConvBackbone(int(sizes["image_size"]), feature_map=dense)


def text_trunk(sizes: Mapping[str, Any], *, dense: bool = False) -> Backbone:
    """Return the trunk of texts; there is no map of it."""
    return TextBackbone(int(sizes["vocabulary_size"]))
