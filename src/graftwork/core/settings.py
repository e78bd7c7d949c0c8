"""Settings of a class from its signature: which there are, which values they take, and an object built from checked ones.

Each keyword of the constructor is a setting; its annotation says which values are allowed. A keyword whose annotation is a
dataclass stands for the fields of that class, so that ``TiesMerger(config: TiesConfig | None)`` has the settings ``density``,
``trim`` ...
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean

__all__ = ["Converters", "Setting", "build_from_settings", "converted_value", "settings_of"]

Converters = Mapping[type, Callable[[Any], Any]]
"""How texts and paths become objects of classes that settings may ask for, such as readers of files."""

Built = TypeVar("Built")
_MISSING = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a class."""

    name: str
    annotation: Any
    default: Any
    """Value if it is not given; :data:`inspect.Parameter.empty` if it must be given."""
    record: str = ""
    """Keyword of the constructor that takes the dataclass which this is a field of; empty if it is a keyword itself."""

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is _MISSING

    @property
    def values(self) -> str:
        """Which values it takes, in words."""
        return _words(self.annotation)


def settings_of(cls: type) -> dict[str, Setting]:
    """Return the settings of a class by name, in the order of its signature.

    Raises:
        ConfigError: If two of them share a name, or an annotation cannot be read.
    """
    found: dict[str, Setting] = {}
    for name, parameter in _parameters(cls).items():
        annotation = Any if parameter.annotation is _MISSING else parameter.annotation
        record = _record_class(annotation)
        parts = [Setting(name, annotation, parameter.default)] if record is None else _fields(record, name)
        for setting in parts:
            if setting.name in found:
                raise ConfigError(f"{cls.__name__} has two settings called {setting.name!r}. Rename one.")
            found[setting.name] = setting
    return found


def build_from_settings(
    cls: type[Built], values: Mapping[str, Any], *, name: str = "", from_text: bool = False, converters: Converters | None = None
) -> Built:
    """Build an object of a class from settings.

    Args:
        cls: The class.
        values: Settings by name; missing ones keep their defaults.
        name: What messages call the class.
        from_text: Whether the values are texts of the command line: ``"0.5"``, ``"1,0.5"``, ``"true"``, or JSON.
        converters: See :data:`Converters`.

    Raises:
        ConfigError: If a setting is unknown, missing or of another type; all problems at once.
    """
    settings, name = settings_of(cls), name or cls.__name__
    problems, arguments = [], dict[str, Any]()
    records: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in settings:
            known = f"Settings of {name}: {', '.join(settings) or 'none'}."
            problems.append(f"unknown setting {key!r}.{did_you_mean(key, settings)} {known}")
            continue
        setting = settings[key]
        try:
            converted = _convert(_parse(value, setting.annotation) if from_text else value, setting.annotation, converters or {})
        except _WrongValueError:
            problems.append(f"{key} must be {setting.values}; got {_short(value)}")
            continue
        (records.setdefault(setting.record, {}) if setting.record else arguments)[key] = converted
    problems += [
        f"{key} must be given: {item.values}" for key, item in settings.items() if item.is_required and key not in values
    ]
    if problems:
        raise ConfigError(f"The settings of {name} cannot be used.", problems)
    for key, fields in records.items():
        record = _record_class(_parameters(cls)[key].annotation)
        assert record is not None
        arguments[key] = record(**fields)
    return cls(**arguments)


def converted_value(value: Any, annotation: Any) -> Any:
    """Return a JSON value as an annotation wants it: lists as tuples, whole numbers as floats.

    Raises:
        ConfigError: If the annotation does not allow it.

    Example:
        >>> converted_value([1, 2], tuple[float, ...])
        (1.0, 2.0)
    """
    try:
        return _convert(value, annotation, {})
    except _WrongValueError:
        raise ConfigError(f"must be {_words(annotation)}; got {_short(value)}") from None


class _WrongValueError(Exception):
    """A value is none of those that an annotation allows."""


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    try:
        # Annotations are texts under ``from __future__ import annotations``; eval_str makes them types again.
        found = inspect.signature(cls, eval_str=True).parameters
    except NameError as error:
        raise ConfigError(
            f"The annotations of {cls.__name__} cannot be read ({error}): import their names at run time."
        ) from error
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: parameter for name, parameter in found.items() if parameter.kind not in variadic}


def _record_class(annotation: Any) -> type | None:
    options = [option for option in _options(annotation) if option is not types.NoneType]
    is_record = len(options) == 1 and isinstance(options[0], type) and dataclasses.is_dataclass(options[0])
    return options[0] if is_record else None


def _fields(record: type, keyword: str) -> list[Setting]:
    hints = typing.get_type_hints(record)
    found = []
    for item in dataclasses.fields(record):
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        found.append(Setting(item.name, hints[item.name], _MISSING if default is dataclasses.MISSING else default, keyword))
    return found


def _options(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _parse(text: Any, annotation: Any) -> Any:
    """Turn a text of the command line into a value that the annotation may take."""
    if not isinstance(text, str):
        return text
    options = _options(annotation)
    lists = [option for option in options if _is_list(option)]
    # Where texts are allowed a comma is part of the text and separates nothing.
    if lists and str not in options and not text.lstrip().startswith("["):
        inner = (typing.get_args(lists[0]) or (Any,))[0]
        if text.strip() in ("none", "null", "None") and types.NoneType in options:
            return None
        return [_parse(item.strip(), inner) for item in text.split(",")]
    if str in options or any(isinstance(option, type) and issubclass(option, Path) for option in options):
        return text
    if any(typing.get_origin(option) is Literal and text in typing.get_args(option) for option in options):
        return text
    if text.strip() in ("none", "None"):
        return None
    try:
        # Python's spelling of true and false is taken besides JSON's.
        return json.loads(text.lower() if text in ("True", "False") else text)
    except (ValueError, RecursionError):
        return text


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, list | tuple | Sequence) and not issubclass(origin, str | bytes)


def _convert(value: Any, annotation: Any, converters: Converters) -> Any:
    options = _options(annotation)
    if len(options) > 1:
        if value is None and types.NoneType in options:
            return None
        # The first member that takes the value wins, so ``int | float`` keeps whole numbers whole.
        for option in options:
            try:
                return _convert(value, option, converters)
            except _WrongValueError:
                continue
        raise _WrongValueError
    origin, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin is Literal:
        # Types too: 1 == True == 1.0, but only one of them was listed.
        if not any(value == allowed and type(value) is type(allowed) for allowed in inner):
            raise _WrongValueError
        return value
    if annotation is float:
        # ``True`` would become 1.0.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _WrongValueError
        try:
            number = float(value)
        except OverflowError:  # an integer of hundreds of digits
            raise _WrongValueError from None
        if not math.isfinite(number):
            raise _WrongValueError
        return number
    if annotation is int and isinstance(value, bool):
        raise _WrongValueError
    if isinstance(origin, type) and origin in converters and isinstance(value, str | Path):
        return converters[origin](value)
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if _is_list(annotation):
        if not isinstance(value, list | tuple):
            raise _WrongValueError
        # ``tuple[int, str]`` has an annotation for each item; every other form has one for all.
        kinds = inner if origin is tuple and inner and inner[-1] is not Ellipsis else (inner[:1] or (Any,)) * len(value)
        if len(kinds) != len(value):
            raise _WrongValueError
        items = [_convert(item, kind, converters) for item, kind in zip(value, kinds, strict=True)]
        return items if origin is list else tuple(items)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _WrongValueError
        return {key: _convert(item, inner[1] if len(inner) == 2 else Any, converters) for key, item in value.items()}
    if not isinstance(origin, type) or not isinstance(value, origin):
        raise _WrongValueError
    return value


_WORDS: Mapping[Any, str] = {
    float: "a finite number", int: "an integer", bool: "true or false", str: "a text", types.NoneType: "none", Path: "a path", Any: "any value",
}  # fmt: skip


def _words(annotation: Any) -> str:
    options = _options(annotation)
    if len(options) > 1:
        return " or ".join(_words(option) for option in options)
    if annotation in _WORDS:
        return _WORDS[annotation]
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, inner))}"
    origin = typing.get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "an object"
    if _is_list(annotation):
        return f"a list of which each is {_words(inner[0])}" if inner else "a list"
    return f"{'an object' if isinstance(annotation, type) else 'a value'} of {getattr(annotation, '__name__', annotation)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
