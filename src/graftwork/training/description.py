"""What ``config.json`` of a model says that rebuilds it, checked as a whole: the file may be damaged, or anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import ComponentError, FileFormatError, GraftworkError
from graftwork.core.input_spec import InputSpecs, read_input_specs
from graftwork.core.records import Plan, TaskSpec

__all__ = ["ModelDescription", "read_description"]

_KINDS: Mapping[str, tuple[type, str]] = {
    "tasks": (list, "a list"),
    "plan": (dict, "an object"),
    "backbone": (str, "a text"),
    "stored_features": (bool, "true or false"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDescription:
    """What rebuilds a model."""

    tasks: tuple[TaskSpec, ...]
    plan: Plan
    inputs: InputSpecs
    backbone: str
    """Names of pretrained backbones, separated by commas; empty if there is none."""
    stored_features: bool
    """Whether a backbone stands in front of a model of its stored features."""


def read_description(config: Mapping[str, Any], file: Path, remedy: str) -> ModelDescription:
    """Read what rebuilds a model; components of the plan are not resolved.

    Args:
        config: What the file holds, of the right format.
        file: Its path, for messages.
        remedy: What to do, a sentence.

    Raises:
        FileFormatError: If something is missing or of another kind; the message names file, key and value.
    """
    for key, (kind, words) in _KINDS.items():
        if not isinstance(config.get(key), kind):
            found = f"{config[key]!r:.80}" if key in config else "missing"
            raise FileFormatError(f"{file} is damaged: {key} is {found}; expected {words}. {remedy}")
    try:
        tasks = tuple(TaskSpec.from_json(task) for task in config["tasks"])
        plan, inputs = Plan.from_json(config["plan"]), read_input_specs(config)
    except ComponentError:
        raise
    # A GraftworkError too: records say what is wrong with a value, and not in which file.
    except (GraftworkError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = str(error) if isinstance(error, GraftworkError) else repr(error)
        raise FileFormatError(f"{file} is damaged: {what:.300}. {remedy}") from error
    if not tasks:
        raise FileFormatError(f"{file} is damaged: it names no task. {remedy}")
    return ModelDescription(
        tasks=tasks, plan=plan, inputs=inputs, backbone=config["backbone"], stored_features=config["stored_features"]
    )
