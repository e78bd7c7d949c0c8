"""Grounds and light of the nursery's pictures: plain, graded, noisy, striped, or a piece of a photograph; then what a camera does."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require

__all__ = ["draw_ground", "photograph_crop", "seen_by_camera"]

Floats = NDArray[np.float32]


def draw_ground(random: np.random.Generator, size: int) -> Floats:
    """Return a ground, ``[size, size, 3]`` with values in 0 to 1."""
    kind = random.choice(5, p=(0.35, 0.2, 0.2, 0.1, 0.15))
    first, second = _colour(random), _colour(random)
    if kind == 0:
        ground = np.broadcast_to(first, (size, size, 3))
    elif kind == 1:
        ground = _mixed(_ramp(random, size), first, second)
    elif kind == 2:
        cells = int(random.integers(2, 12))
        ground = _enlarged(random.random((cells, cells, 3), dtype=np.float32), size)
    elif kind == 3:
        waves = np.sin(_ramp(random, size) * float(random.uniform(8.0, 60.0)) + float(random.uniform(0.0, 6.0)))
        ground = _mixed((waves > float(random.uniform(-0.5, 0.5))).astype(np.float32), first, second)
    else:
        ground = photograph_crop(random, size)
    return np.array(ground, dtype=np.float32)


def photograph_crop(random: np.random.Generator, size: int) -> Floats:
    """Return a square piece of one of scikit-learn's two photographs, turned by a multiple of 90 degrees."""
    images = require("PIL.Image", extra="vision", purpose="The nursery")
    photograph = _photographs()[int(random.integers(2))]
    side = int(random.integers(size // 2, 320))
    top, left = (int(random.integers(0, length - side + 1)) for length in photograph.shape[:2])
    piece = images.fromarray(photograph[top : top + side, left : left + side]).resize((size, size), images.Resampling.BILINEAR)
    return np.rot90(np.asarray(piece, dtype=np.float32) / 255.0, int(random.integers(4)))


def seen_by_camera(picture: Floats, random: np.random.Generator) -> Floats:
    """Return a picture ``[size, size, 3]`` with other colours, contrast and sharpness, and with noise; values stay in 0 to 1."""
    images = require("PIL.Image", extra="vision", purpose="The nursery")
    size = len(picture)
    kind = random.random()
    if kind < 0.12:
        picture = picture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    elif kind < 0.5:
        # Near the identity: a cast, and colours that run into each other.
        bend = np.eye(3) + random.normal(0.0, 0.12, size=(3, 3))
        picture = (picture - 0.5) @ bend.astype(np.float32) + 0.5
    if random.random() < 0.06:
        picture = 1.0 - picture
    if random.random() < 0.5:
        contrast, light = random.uniform(0.5, 1.2), random.normal(0.0, 0.1)
        picture = (picture - 0.5) * np.float32(contrast) + np.float32(0.5 + light)
    if random.random() < 0.35:
        # Fewer pixels, as small pictures have that are enlarged again.
        fewer = int(random.integers(14, size * 3 // 4 + 1))
        stored = images.fromarray(_to_bytes(picture)).resize((fewer, fewer), images.Resampling.BOX)
        picture = np.asarray(stored.resize((size, size), images.Resampling.BILINEAR), dtype=np.float32) / 255.0
    if random.random() < 0.3:
        picture = picture + random.normal(0.0, random.uniform(0.01, 0.12), size=picture.shape).astype(np.float32)
    return np.clip(picture, 0.0, 1.0).astype(np.float32)


def _colour(random: np.random.Generator) -> Floats:
    kind = random.random()
    if kind < 0.25:
        return np.ones(3, np.float32)
    if kind < 0.35:
        return np.zeros(3, np.float32)
    return random.random(3, dtype=np.float32)


def _ramp(random: np.random.Generator, size: int) -> Floats:
    """Return a plane that rises from 0 to 1 in any direction, ``[size, size]``."""
    angle = float(random.uniform(0.0, 2.0 * np.pi))
    at = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    plane = np.cos(angle) * at[:, None] + np.sin(angle) * at[None, :]
    return ((plane - plane.min()) / (plane.max() - plane.min())).astype(np.float32)


def _mixed(share: Floats, first: Floats, second: Floats) -> Floats:
    return share[..., None] * first + (1.0 - share[..., None]) * second


def _enlarged(cells: Floats, size: int) -> Floats:
    images = require("PIL.Image", extra="vision", purpose="The nursery")
    larger = images.fromarray(_to_bytes(cells)).resize((size, size), images.Resampling.BICUBIC)
    return np.asarray(larger, dtype=np.float32) / 255.0


def _to_bytes(values: Floats) -> NDArray[np.uint8]:
    return np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


@cache
def _photographs() -> tuple[NDArray[Any], ...]:
    datasets = require("sklearn.datasets", extra="train", purpose="The nursery")
    return tuple(np.asarray(datasets.load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))
