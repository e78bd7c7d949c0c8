"""Members of a pool of tables: small networks trained on generated tables, and an untrained one."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.scorer import SourceFacts
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.training.source_pool.fitting import Classifier, fit_classifier
from graftwork.training.source_pool.members import UNTRAINED, train_once
from graftwork.training.source_pool.settings import refuse_below, settings_hash
from graftwork.training.source_pool.table_tasks import COLUMNS, SOURCE_TABLES, TARGET_TABLES, TableTask, draw_table

__all__ = ["TableMember", "TablePoolSettings", "table_member", "table_names"]

_VERSION = 1
"""Raised whenever equal settings would give other results."""
_FACT_ROWS = 300
_RATE = 3e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePoolSettings:
    """Sizes of data and trainings. Equal settings give equal tables on one machine.

    Raises:
        ConfigError: If a number is out of range.
    """

    width: int = 64
    """Of the networks, which have two residual blocks."""
    source_rows: int = 4000
    """Training rows of a source with the full share."""
    target_rows: int = 100
    test_rows: int = 1000
    source_steps: int = 600
    tune_steps: int = 120
    """Steps of fine-tuning on a target."""
    members: tuple[str, ...] = ()
    """Names of the sources; empty takes all."""
    targets: tuple[str, ...] = ()
    """Names of the targets; empty takes all."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"width": 2, "source_rows": 40, "target_rows": 24, "test_rows": 24, "source_steps": 1, "tune_steps": 1}
        refuse_below(self, least)

    def key(self) -> str:
        """Return the name under which members are kept: a hash of all that their training depends on."""
        return settings_hash([_VERSION, self.width, self.source_rows, self.source_steps, self.seed])

    def row_key(self) -> str:
        """Return a hash of all that a row of the table depends on besides the member."""
        values = dataclasses.asdict(self)
        return settings_hash([_VERSION, {name: value for name, value in values.items() if name not in ("members", "targets")}])


class _TableClassifier(Classifier):
    """A :class:`Classifier` of rows of numbers, float32 ``[B, columns]``."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, classes]``."""
        return self.head(self.backbone({"numeric": images}))


@dataclass(frozen=True, slots=True)
class TableMember:
    """A source of known training."""

    name: str
    model: Classifier
    task: TableTask | None
    """What it was trained on; None of the untrained one."""
    settings: TablePoolSettings = field(repr=False)
    packaged: bool = False

    def backbone(self) -> Backbone:
        """Return a copy of its backbone, in evaluation mode."""
        return copy.deepcopy(self.model.backbone).eval()

    def fingerprint(self) -> str:
        """Return the SHA-256 of its weights."""
        return state_fingerprint(self.model.state_dict())

    def classifier(self, classes: int) -> Classifier:
        """Return a copy of its backbone under a new head."""
        return _TableClassifier(self.backbone(), classes)

    @torch.inference_mode()
    def features(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features ``[N, width]`` of rows ``[N, columns]``."""
        return self.backbone()({"numeric": torch.from_numpy(rows)}).numpy()

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return class probabilities of its own classifier from its features; None if it has none."""
        if self.task is None:
            return None
        with torch.inference_mode():
            return self.model.head(torch.from_numpy(features)).softmax(dim=1).numpy()

    def facts(self) -> SourceFacts:
        """Return what scorers may know of it: features and labels of rows that it was trained on, and their moments."""
        if self.task is None:
            return SourceFacts(name=self.name)
        rows, labels = draw_table(self.task, num_train=self.settings.source_rows, num_test=1, seed=self.settings.seed)
        features = self.features(rows[:_FACT_ROWS])
        return SourceFacts(
            name=self.name,
            features=features,
            labels=labels[: len(features)],
            mean=features.mean(axis=0),
            deviation=features.std(axis=0),
        )


def table_names(settings: TablePoolSettings) -> tuple[list[str], list[str]]:
    """Return the names of members and targets, in order, without making any.

    Raises:
        ConfigError: If the settings name one that does not exist.
    """
    members, targets = [task.name for task in SOURCE_TABLES] + [UNTRAINED], [task.name for task in TARGET_TABLES]
    for what, asked, known in (("source", settings.members, members), ("target", settings.targets, targets)):
        wrong = [name for name in asked if name not in known]
        if wrong:
            raise ConfigError(f"There is no generated {what} {wrong[0]!r}; there are {', '.join(known)}.")
    return [name for name in members if name in (settings.members or members)], list(settings.targets) or targets


def table_member(name: str, settings: TablePoolSettings, folder: Path) -> TableMember:
    """Return a member, from its file or trained now and kept.

    Args:
        name: One of :func:`table_names`.
        settings: Sizes.
        folder: Where members are kept; created if needed.

    Raises:
        FileFormatError: If its file is damaged; remove it to train it again.
        StorageError: If it cannot be written.
    """
    task = next((one for one in SOURCE_TABLES if one.name == name), None)
    seeds = Seeds(settings.seed).child(f"table member {name}")
    with torch.random.fork_rng():
        torch.manual_seed(seeds.integer("weights"))
        trunk = TableBackbone(COLUMNS, width=settings.width, num_blocks=2, dropout=0.0)
        model = _TableClassifier(trunk, task.classes if task is not None else 2)
    if task is None:
        return TableMember(name, model.eval(), None, settings)

    def train() -> None:
        rows, labels = draw_table(task, num_train=settings.source_rows, num_test=1, seed=settings.seed)
        fit_classifier(model, rows[:-1], labels[:-1], steps=settings.source_steps, rate=_RATE, seed=seeds.integer("order"))

    train_once(model, folder / f"{name}-{settings.key()}.safetensors", train)
    return TableMember(name, model.eval(), task, settings)
