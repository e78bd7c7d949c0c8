"""What a parameter is for one tensor: settings of sources, slices and the file, gradients over layers, filters by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.workflows.mergekit.methods import KitMethod, Parameter
from graftwork.workflows.mergekit.schema import MergeFile

__all__ = ["check_parameters", "resolve", "value_of"]

_MISSING = object()


def value_of(setting: Any, tensor: str, depth: float, kind: type) -> Any:
    """Return the value of a setting for a tensor; None if no filter fits it.

    Args:
        setting: A number (or truth value), a list of numbers (a gradient: they stand at even distances over the layers), a
            mapping with ``value`` and perhaps ``filter``, or a list of such mappings, of which the first that fits counts.
        tensor: Name of the tensor; a filter fits if it is a part of it, or ``*``.
        depth: Place of the tensor's layer among the layers of its slice, in [0, 1].
        kind: ``float``, ``int`` or ``bool``.

    Raises:
        ConfigError: If the setting has none of these forms.

    Example:
        >>> value_of([0, 1, 0], "layers.1.weight", 0.25, float)
        0.5
        >>> value_of([{"filter": "mlp", "value": 0.3}, {"value": 0.7}], "layers.1.attn.weight", 0.0, float)
        0.7
    """
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list):
        return _typed(setting, kind)
    if not setting:
        return None
    if not any(isinstance(item, Mapping) for item in setting):
        values = [_typed(item, kind) for item in setting]
        if kind is bool:
            return values[int(depth * (len(values) - 1))]
        place = depth * (len(values) - 1)
        low = int(place)
        high = min(len(values) - 1, low + 1)
        return kind((1.0 - (place - low)) * values[low] + (place - low) * values[high])
    for item in setting:
        if not isinstance(item, Mapping) or "value" not in item or set(item) - {"value", "filter"}:
            raise ConfigError(f"an entry of a list of filters is a mapping with value and filter; got {item!r:.80}")
        wanted = item.get("filter")
        if wanted in (None, "*") or str(wanted) in tensor:
            return value_of(item["value"], tensor, depth, kind)
    return None


def _typed(value: Any, kind: type) -> Any:
    # YAML reads 1e-5 without a dot as a text.
    if isinstance(value, str) and kind is not bool:
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"must be a number; got {value!r:.80}") from None
    if kind is bool:
        if value not in (True, False, 0, 1):
            raise ConfigError(f"must be true or false; got {value!r:.80}")
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"must be a number, a list of numbers, or a list of filters; got {value!r:.80}")
    try:
        return kind(value)
    except (ValueError, OverflowError):  # a whole number of NaN or infinity; a fraction of a number of hundreds of digits
        raise ConfigError(f"must be a {'whole' if kind is int else 'finite'} number; got {value!r:.80}") from None


def resolve(parameter: Parameter, name: str, settings: Iterable[Mapping[str, Any]], tensor: str, depth: float) -> Any:
    """Return a parameter's value for a tensor.

    Args:
        parameter: Its type and default.
        name: Its name.
        settings: Mappings of settings, the one that counts most first; the first with a value for this tensor is taken.
        tensor: See :func:`value_of`.
        depth: See there.

    Raises:
        ConfigError: If it is missing though it must be given, or of another form.
    """
    for level in settings:
        if name in level:
            value = value_of(level[name], tensor, depth, parameter.kind)
            if value is not None:
                return value
    if parameter.is_required:
        raise ConfigError(f"is missing for the tensor {tensor!r}")
    return parameter.default


def check_parameters(file: MergeFile, method: KitMethod) -> tuple[list[str], list[str]]:
    """Look at all settings before a model is opened.

    Returns:
        Problems with their lines, and notes about parameters that the method does not have.
    """
    problems, unknown = [], dict[str, str]()
    for where, level in _levels(file):
        for key, setting in level.items():
            parameter = method.parameters.get(key)
            line = file.lines.get(f"{where}.{key}", 1)
            if parameter is None:
                unknown.setdefault(key, f"line {line}: {file.method} has no parameter {key!r}; it is not used.")
                continue
            try:
                _try(setting, parameter.kind)
            except ConfigError as error:
                problems.append(f"{file.path.name}, line {line}, {where}.{key}: {error}")
    return problems, list(unknown.values())


def _levels(file: MergeFile) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "parameters", file.parameters
    for number, item in enumerate(file.slices):
        yield f"slices[{number}].parameters", item.parameters
        for index, source in enumerate(item.sources):
            prefix = f"slices[{number}].sources[{index}]" if file.has_slices else f"models[{index}]"
            yield f"{prefix}.parameters", source.parameters


def _try(setting: Any, kind: type) -> None:
    """Read every part of a setting, whatever its filters."""
    if isinstance(setting, list) and any(isinstance(item, Mapping) for item in setting):
        for item in setting:
            value_of([{**item, "filter": "*"}] if isinstance(item, Mapping) else [item, {}], "", 0.0, kind)
    else:
        value_of(setting, "", 0.0, kind)
