"""Related data sets of generated letters: alphabets of their own, drawn in one of several styles, for pools of source models and
the targets that they are tried on.

Sources and targets never share an alphabet. What they may share is how strokes are drawn: a target in the style of a source finds
features made for that style.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.glyphs import glyphs

__all__ = ["SOURCES", "STYLES", "TARGETS", "GlyphDomain", "draw_domain"]

Pictures = NDArray[np.uint8]
SIZE = 16
"""Side of the pictures in pixels."""


def _striped(pictures: Pictures) -> Pictures:
    """Lay stripes over pictures, at a place of their own each that follows from the picture."""
    phase = pictures.reshape(len(pictures), -1).sum(axis=1, dtype=np.int64) % 4
    place = (np.arange(SIZE)[None, :, None] + np.arange(SIZE)[None, None, :] + phase[:, None, None]) % 4
    return np.where((place < 2)[..., None], pictures // 2, pictures // 2 + 100).astype(np.uint8)


def _blurred(pictures: Pictures) -> Pictures:
    """Average over blocks of two pixels."""
    halves = pictures.reshape(len(pictures), SIZE // 2, 2, SIZE // 2, 2, -1).mean(axis=(2, 4))
    return np.round(halves).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)


def _outlined(pictures: Pictures) -> Pictures:
    """Keep the changes along rows and columns alone."""
    values = pictures.astype(np.int16)
    across = np.abs(np.diff(values, axis=1, prepend=values[:, :1])) + np.abs(np.diff(values, axis=2, prepend=values[:, :, :1]))
    return np.minimum(across, 255).astype(np.uint8)


STYLES: dict[str, Callable[[Pictures], Pictures]] = {
    "plain": lambda pictures: pictures,
    "inverted": lambda pictures: 255 - pictures,
    "striped": _striped,
    "blurred": _blurred,
    "outlined": _outlined,
}
"""Name -> what is done to the pictures of the plain alphabet, uint8 ``[N, 16, 16, 3]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlyphDomain:
    """One data set."""

    name: str
    style: str = "plain"
    classes: int = 20
    share: float = 1.0
    """Share of the usual training rows that it has."""
    noise: float = 0.2
    shuffled: bool = False
    """Whether labels are dealt at random: a source that cannot have learned anything useful from them."""


SOURCES: tuple[GlyphDomain, ...] = (
    GlyphDomain(name="plain"),
    GlyphDomain(name="plain-few-rows", share=0.1),
    GlyphDomain(name="plain-few-classes", classes=4),
    GlyphDomain(name="inverted", style="inverted"),
    GlyphDomain(name="striped", style="striped"),
    GlyphDomain(name="blurred", style="blurred"),
    GlyphDomain(name="outlined", style="outlined"),
    GlyphDomain(name="noisy", noise=0.5),
    GlyphDomain(name="striped-few-rows", style="striped", share=0.1),
    GlyphDomain(name="shuffled", shuffled=True),
)
"""What pool members are trained on."""
TARGETS: tuple[GlyphDomain, ...] = (
    GlyphDomain(name="new-plain", classes=12),
    GlyphDomain(name="new-inverted", style="inverted", classes=12),
    GlyphDomain(name="new-striped", style="striped", classes=12),
    GlyphDomain(name="new-noisy", noise=0.4, classes=12),
)
"""What they are tried on."""


def draw_domain(domain: GlyphDomain, *, num_train: int, num_test: int, seed: int = 0) -> Suite:
    """Draw a data set with the task ``letter``; equal arguments give equal bits.

    Args:
        domain: What to draw.
        num_train: Training rows of a domain whose share is 1.
        num_test: Test rows.
        seed: Root of all domains; each has an alphabet of its own.

    Raises:
        ConfigError: If the style is unknown or a number out of range.
    """
    if domain.style not in STYLES:
        raise ConfigError(f"There is no style {domain.style!r}; choose from {', '.join(STYLES)}.")
    seeds = Seeds(seed).child(f"glyph domain {domain.name}")
    count = max(domain.classes, round(domain.share * num_train))
    suite = glyphs(
        num_train=count, num_val=0, num_test=num_test, num_classes=domain.classes, size=SIZE, noise=domain.noise,
        seed=seeds.integer("alphabet") % 2**31,
    )  # fmt: skip
    labels = suite.targets["letter"]
    if domain.shuffled:
        labels = seeds.numpy("shuffled").permutation(labels)
    return replace(
        suite,
        name=domain.name,
        inputs={"image": STYLES[domain.style](np.asarray(suite.inputs["image"]))},
        targets={"letter": labels},
        raw={},
    )
