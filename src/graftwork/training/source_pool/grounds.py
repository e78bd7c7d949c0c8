"""What a pool is made of: pictures or tables. The transfer table is built and judged in the same way on either."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.data.suite import Suite
from graftwork.data.suites.glyph_styles import TARGETS, GlyphDomain, draw_domain
from graftwork.training.source_pool.fitting import Classifier
from graftwork.training.source_pool.members import PoolMember, pool_members, pool_names
from graftwork.training.source_pool.settings import PoolSettings
from graftwork.training.source_pool.table_pool import TableMember, TablePoolSettings, table_member, table_names
from graftwork.training.source_pool.table_tasks import TARGET_TABLES, draw_table

__all__ = ["AnySettings", "Ground", "GroundRows", "Tuning", "ground_of", "target_suite"]

AnySettings = PoolSettings | TablePoolSettings
_RATE, _PACKAGED_RATE = 2e-3, 1e-3
_TABLE_RATE = 5e-4
"""With the rate of pictures, a hundred rows of a table let a network forget what it came with."""


@dataclass(frozen=True, slots=True)
class GroundRows:
    """The rows of a target."""

    inputs: NDArray[Any]
    """What members read, ``[N, ...]``."""
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    classes: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a member is fine-tuned."""

    classifier: Callable[[int], Classifier]
    """Returns a copy of its backbone under a new head of so many classes."""
    steps: int
    rate: float


class Ground(ABC):
    """Sources and targets of one pool."""

    @abstractmethod
    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of sources and targets.

        Raises:
            ConfigError: If the settings name one that does not exist.
        """

    @abstractmethod
    def member(self, name: str, folder: Path) -> PoolMember | TableMember:
        """Return a source, from its file in a folder or trained now and kept."""

    @abstractmethod
    def rows(self, target: str) -> GroundRows:
        """Return the rows of a target."""

    @abstractmethod
    def tuning(self, member: PoolMember | TableMember) -> Tuning:
        """Return how a source is fine-tuned."""


class _Pictures(Ground):
    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings

    def names(self) -> tuple[list[str], list[str]]:
        targets = list(self.settings.targets) or [domain.name for domain in TARGETS]
        for name in targets:
            _target(name)
        return pool_names(self.settings), targets

    def member(self, name: str, folder: Path) -> PoolMember | TableMember:
        return pool_members(name, self.settings, folder)

    def rows(self, target: str) -> GroundRows:
        suite = target_suite(target, self.settings)
        images, labels = np.asarray(suite.inputs["image"]), np.asarray(suite.targets["letter"])
        return GroundRows(images, labels, suite.splits["train"], suite.splits["test"], suite.tasks[0].size)

    def tuning(self, member: PoolMember | TableMember) -> Tuning:
        def classifier(classes: int) -> Classifier:
            return Classifier(member.backbone(), classes)

        if member.packaged:
            return Tuning(classifier, self.settings.packaged_steps, _PACKAGED_RATE)
        return Tuning(classifier, self.settings.tune_steps, _RATE)


class _Tables(Ground):
    def __init__(self, settings: TablePoolSettings) -> None:
        self.settings = settings

    def names(self) -> tuple[list[str], list[str]]:
        return table_names(self.settings)

    def member(self, name: str, folder: Path) -> PoolMember | TableMember:
        return table_member(name, self.settings, folder)

    def rows(self, target: str) -> GroundRows:
        task = next(one for one in TARGET_TABLES if one.name == target)
        settings = self.settings
        rows, labels = draw_table(task, num_train=settings.target_rows, num_test=settings.test_rows, seed=settings.seed)
        first = len(rows) - settings.test_rows
        return GroundRows(rows, labels, np.arange(first), np.arange(first, len(rows)), task.classes)

    def tuning(self, member: PoolMember | TableMember) -> Tuning:
        assert isinstance(member, TableMember), "made by this pool"
        return Tuning(member.classifier, self.settings.tune_steps, _TABLE_RATE)


def ground_of(settings: AnySettings) -> Ground:
    """Return the sources and targets that settings stand for."""
    return _Tables(settings) if isinstance(settings, TablePoolSettings) else _Pictures(settings)


def target_suite(name: str, settings: PoolSettings) -> Suite:
    """Return the rows of a target of pictures.

    Raises:
        ConfigError: If there is none of this name.
    """
    return draw_domain(_target(name), num_train=settings.target_rows, num_test=settings.test_rows, seed=settings.seed)


def _target(name: str) -> GlyphDomain:
    for domain in TARGETS:
        if domain.name == name:
            return domain
    raise ConfigError(f"There is no target {name!r}; there are {', '.join(domain.name for domain in TARGETS)}.")
