"""What a recipe of the nursery says: how a model is pretrained, on what, under which licence, and how it is checked.

One module a model below :mod:`graftwork.nursery.models`, found by looking; each has a ``RECIPE``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.train_step import BatchSource, TrainStep
from graftwork.nursery.check import AnswerBook, Check
from graftwork.training.config import LoopConfig

__all__ = ["Lessons", "Pretraining", "Source", "find_recipe", "recipe_names"]

_MODELS = "graftwork.nursery.models"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Something that a model learned from."""

    name: str
    what: str
    """What was taken of it."""
    licence: str
    credit: str
    """The line that the licence asks for, or where it comes from."""

    def to_json(self) -> dict[str, str]:
        """Return the fields."""
        return {"name": self.name, "what": self.what, "licence": self.licence, "credit": self.credit}


@dataclass(frozen=True, kw_only=True, slots=True)
class Lessons:
    """What a build trains on."""

    step: TrainStep[Any]
    """Its model is the backbone that is shipped."""
    source: BatchSource[Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the data by name."""
    bases: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of the teachers by name."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that made the data, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """How one model is made."""

    name: str
    """As users write it after ``--backbone``."""
    modality: str
    summary: str
    """A few words for the list of backbones."""
    story: str
    """Sentences for the documentation: what it is, what it learned from, and how."""
    component: Component
    """How the backbone is built; its weights are what is shipped."""
    sources: tuple[Source, ...]
    licence: str
    """SPDX expression of the weights."""
    held_out: Mapping[str, str]
    """Questions of the check, and what each asks."""
    budget: Mapping[str, int]
    """Numbers that say how long the build takes, ``steps`` among them; a tiny build sets them smaller."""
    config: Callable[[Mapping[str, int]], LoopConfig]
    """Settings of the loop for a budget."""
    lessons: Callable[[Backbone, Mapping[str, int], Seeds, Path | None], Lessons]
    """From the fresh backbone, the budget, the root of random streams and the cache (None: the user's) to what it learns from."""
    check: Callable[[Backbone, Callable[[], Backbone], Mapping[str, int], AnswerBook], Check]
    """From the pretrained backbone, a maker of fresh ones, the budget and the book of answers to the verdict."""
    seed: int = 0

    def build(self) -> Backbone:
        """Return the backbone with fresh weights, from torch's global generator."""
        backbone: Backbone = self.component.build(seam=Backbone)
        return backbone


def recipe_names() -> list[str]:
    """Return the names of all models that can be built, without importing their modules."""
    package = importlib.import_module(_MODELS)
    return sorted(item.name.replace("_", "-") for item in pkgutil.iter_modules(package.__path__) if not item.name.startswith("_"))


def find_recipe(name: str) -> Pretraining:
    """Return the recipe of a model.

    Raises:
        ConfigError: If there is none of this name.
    """
    names = recipe_names()
    if name not in names:
        raise ConfigError(f"There is no recipe for a backbone {name!r}; there are {', '.join(names)}.{did_you_mean(name, names)}")
    recipe: Pretraining = importlib.import_module(f"{_MODELS}.{name.replace('-', '_')}").RECIPE
    return recipe
