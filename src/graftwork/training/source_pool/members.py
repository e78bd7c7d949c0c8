"""Members of the pool: small models trained on generated sources, with labels and without, an untrained one, and pretrained
backbones from packages."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import write_bytes
from graftwork.core.locks import exclusive
from graftwork.core.seeds import Seeds
from graftwork.data.suites.glyph_styles import SIZE, SOURCES, GlyphDomain, draw_domain
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.scorer import SourceFacts
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.backbones.catalog import build_backbone, list_backbones
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.source_heads import source_head
from graftwork.training.source_pool.fitting import Classifier
from graftwork.training.source_pool.lessons import Lesson, fit_lesson, head_width
from graftwork.training.source_pool.settings import PoolSettings

__all__ = [
    "PACKAGED_SIZE",
    "POOL",
    "UNLABELLED",
    "UNTRAINED",
    "PoolMember",
    "PoolSource",
    "load_member",
    "pool_members",
    "pool_names",
    "train_once",
]

UNTRAINED = "untrained"
PACKAGED_SIZE = 32
"""Working resolution of packaged backbones in pixels: the pictures have 16."""
_FACT_ROWS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSource:
    """How a generated member is made."""

    name: str
    domain: GlyphDomain
    lesson: Lesson = "labels"


def _domain(name: str) -> GlyphDomain:
    return next(domain for domain in SOURCES if domain.name == name)


POOL: tuple[PoolSource, ...] = (
    *(PoolSource(name=domain.name, domain=domain) for domain in SOURCES),
    PoolSource(name="plain-turns", domain=_domain("plain"), lesson="turns"),
    PoolSource(name="inverted-turns", domain=_domain("inverted"), lesson="turns"),
    PoolSource(name="plain-views", domain=_domain("plain"), lesson="views"),
    PoolSource(name="striped-views", domain=_domain("striped"), lesson="views"),
    PoolSource(name="noisy-views", domain=_domain("noisy"), lesson="views"),
)
"""The generated members; ``turns`` and ``views`` learned without labels."""
UNLABELLED: tuple[PoolSource, ...] = (
    *(source for source in POOL if source.lesson != "labels"),
    *(
        PoolSource(name=f"{name}-turns", domain=_domain(name), lesson="turns")
        for name in ("striped", "blurred", "outlined", "noisy")
    ),
    *(PoolSource(name=f"{name}-views", domain=_domain(name), lesson="views") for name in ("inverted", "blurred", "outlined")),
)
"""Twelve sources that learned without labels; those that are not in :data:`POOL` are made for who names them."""
_KNOWN = {source.name: source for source in (*POOL, *UNLABELLED)}


@dataclass(frozen=True, slots=True)
class PoolMember:
    """A source of known training."""

    name: str
    model: nn.Module
    """A :class:`~graftwork.training.source_pool.fitting.Classifier`, or a backbone without classifier."""
    domain: GlyphDomain | None
    """What it was trained on; None of packaged and untrained ones."""
    settings: PoolSettings = field(repr=False)
    lesson: Lesson = "labels"
    packaged: bool = False

    def backbone(self) -> Backbone:
        """Return a copy of its backbone, in evaluation mode."""
        own = self.model.backbone if isinstance(self.model, Classifier) else self.model
        assert isinstance(own, Backbone)
        return copy.deepcopy(own).eval()

    def fingerprint(self) -> str:
        """Return the SHA-256 of its weights."""
        return state_fingerprint(self.model.state_dict())

    @torch.inference_mode()
    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features ``[N, width]`` of pictures uint8 ``[N, S, S, 3]``."""
        backbone = self.backbone()
        parts = [backbone({"image": torch.from_numpy(images[start : start + 128])}) for start in range(0, len(images), 128)]
        return torch.cat(parts).numpy()

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return class probabilities of its own classifier from its features; None if it has none."""
        if isinstance(self.model, Classifier):
            if self.domain is None or self.lesson != "labels":
                return None
            with torch.inference_mode():
                return self.model.head(torch.from_numpy(features)).softmax(dim=1).numpy()
        head = source_head(self.name) if self.packaged else None
        return None if head is None else head.probabilities(features)

    def facts(self) -> SourceFacts:
        """Return what scorers may know of it: features of rows that it was trained on, their moments, and their labels if it
        learned from them."""
        if self.domain is None:
            return SourceFacts(name=self.name)
        suite = draw_domain(self.domain, num_train=self.settings.source_rows, num_test=1, seed=self.settings.seed)
        rows = suite.splits["train"][:_FACT_ROWS]
        features = self.features(np.asarray(suite.inputs["image"])[rows])
        return SourceFacts(
            name=self.name,
            features=features,
            labels=np.asarray(suite.targets["letter"])[rows] if self.lesson == "labels" else None,
            mean=features.mean(axis=0),
            deviation=features.std(axis=0),
        )


def pool_names(settings: PoolSettings) -> list[str]:
    """Return the names of the members, in order, without making any.

    Raises:
        ConfigError: If the settings name one that does not exist.
    """
    known = [*_KNOWN, UNTRAINED]
    wrong = [name for name in settings.members if name not in known]
    if wrong:
        raise ConfigError(f"There is no generated source {wrong[0]!r}; there are {', '.join(known)}.")
    wanted = settings.members or [*(source.name for source in POOL), UNTRAINED]
    packaged = [info.name for info in list_backbones("image") if info.pretrained and info.available and ":" not in info.name]
    return [name for name in known if name in wanted] + (packaged if settings.packaged else [])


def pool_members(name: str, settings: PoolSettings, folder: Path) -> PoolMember:
    """Return a member, from its file or trained now and kept.

    Args:
        name: One of :func:`pool_names`.
        settings: Sizes.
        folder: Where members are kept; created if needed.

    Raises:
        FileFormatError: If its file is damaged; remove it to train it again.
        StorageError: If it cannot be written.
    """
    source = _KNOWN.get(name)
    if source is None and name != UNTRAINED:
        return PoolMember(name, build_backbone(name, size=PACKAGED_SIZE).eval(), None, settings, packaged=True)
    domain = source.domain if source is not None else GlyphDomain(name=UNTRAINED)
    lesson: Lesson = source.lesson if source is not None else "labels"
    seeds = Seeds(settings.seed).child(f"pool member {name}")
    with torch.random.fork_rng():
        torch.manual_seed(seeds.integer("weights"))
        model = Classifier(ConvBackbone(SIZE, channels=settings.channels), head_width(lesson, domain.classes))
    if source is None:
        return PoolMember(name, model.eval(), None, settings)

    def train() -> None:
        suite = draw_domain(domain, num_train=settings.source_rows, num_test=1, seed=settings.seed)
        rows = suite.splits["train"]
        images, labels = np.asarray(suite.inputs["image"])[rows], np.asarray(suite.targets["letter"])[rows]
        with torch.random.fork_rng():
            torch.manual_seed(seeds.integer("dropout"))
            fit_lesson(model, lesson, images, labels, steps=settings.source_steps, rate=3e-3, seed=seeds.integer("order"))

    train_once(model, folder / f"{name}-{settings.key()}.safetensors", train)
    return PoolMember(name, model.eval(), domain, settings, lesson)


def train_once(model: nn.Module, path: Path, train: Callable[[], None]) -> None:
    """Give a model the weights of its file; if there is none, train it and write them first. One process trains, others wait.

    Args:
        model: Gets the weights.
        path: The file, safetensors; its folder is created if needed.
        train: Trains ``model`` in place.

    Raises:
        FileFormatError: If the file is damaged; remove it to train the model again.
        StorageError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_suffix(".lock")):
        if not path.exists():
            train()
            state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
            write_bytes(path, safetensors.torch.save(state, metadata={"fingerprint": state_fingerprint(state)}))
        load_member(model, path)


def load_member(model: nn.Module, path: Path) -> None:
    """Read a member's weights.

    Raises:
        FileFormatError: If they are not those that were written.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("fingerprint") != state_fingerprint(state):
            raise FileFormatError("the weights are not those that were written")
        model.load_state_dict(state)
    except (OSError, RuntimeError, safetensors.SafetensorError, FileFormatError) as error:
        raise FileFormatError(f"{path} is damaged: {error}. Remove it, and the member is trained again.") from error
