"""The pictures that models of the nursery learn from: drawings, characters and shapes, composed on grounds, seen by a camera.

============  ======  ===================================================================================================
single         42 %   one coloured drawing
line           13 %   one line drawing, in any colour
character      17 %   one character of twenty scripts, in any colour
word            5 %   two to five characters
collage        15 %   two to five drawings, each with its shadow, that may cover each other
shapes          5 %   shaded ellipses and polygons
photograph      3 %   a piece of a photograph
============  ======  ===================================================================================================

The first three have a label: what they show. Drawings are turned, scaled and shifted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.files import cache_folder, hash_file
from graftwork.core.optional import require
from graftwork.core.seeds import Seeds
from graftwork.data.array_cache import cached_arrays
from graftwork.data.suites.emoji_files import font_file, hash_pictures, read_emoji
from graftwork.nursery.grounds import draw_ground, photograph_crop, seen_by_camera
from graftwork.nursery.stamps import Stamps, read_stamps

__all__ = ["KINDS", "draw_pictures", "pool"]

Floats = NDArray[np.float32]

KINDS = {"single": 0.42, "line": 0.13, "character": 0.17, "word": 0.05, "collage": 0.15, "shapes": 0.05, "photograph": 0.03}
"""Kind of picture -> its share."""
_STAMP_OF = {"single": "colour", "line": "line", "character": "character"}
PART = 2000
"""Pictures that are drawn, and kept, at a time."""
_VERSION = 1
"""Raised whenever equal arguments would give other pictures, so that caches of older versions are not used."""


def pool(count: int, *, size: int = 64, seed: int = 0, cache: str | Path | None = None) -> dict[str, NDArray[Any]]:
    """Return the pictures, from the cache or drawn now and kept, in parts: a process that is killed loses one part at most.

    Args:
        count: Number of pictures, at least 1.
        size: Height and width in pixels.
        seed: Draws everything.
        cache: Folder of the cache; the user's cache by default.

    Returns:
        ``image`` uint8 ``[N, size, size, 3]``; ``label`` int64 ``[N]``, -1 where there is none, else below ``num_labels``, int64
        ``[1]``.

    Raises:
        MissingDependencyError: If a package is not installed; the message holds the pip command.
    """
    versions = require("PIL", extra="vision", purpose="The nursery").__version__
    sources = (hash_pictures(read_emoji()), hash_file(font_file()), versions)
    folder = Path(cache) if cache is not None else cache_folder("nursery")
    parts = []
    for start in range(0, count, PART):
        rows = min(PART, count - start)
        key = hashlib.sha256(repr((_VERSION, start, rows, size, seed, sources)).encode()).hexdigest()[:24]
        parts.append(
            cached_arrays(
                folder, f"pictures-{key}", partial(draw_pictures, rows, size=size, seed=Seeds(seed).integer(str(start)))
            )
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in ("image", "label")} | {
        "num_labels": np.array(parts[0]["num_labels"])
    }


def draw_pictures(count: int, *, size: int, seed: int) -> dict[str, NDArray[Any]]:
    """Draw a part of what :func:`pool` keeps; equal arguments give equal bits."""
    stamps, num_labels = read_stamps()
    seeds = Seeds(seed).child("nursery-pictures")
    kinds = seeds.numpy("kinds").choice(list(KINDS), size=count, p=list(KINDS.values()))
    random = seeds.numpy("pictures")
    images, labels = np.empty((count, size, size, 3), np.uint8), np.full(count, -1, np.int64)
    for row, kind in enumerate(kinds):
        values, labels[row] = _draw(str(kind), stamps, random, size)
        images[row] = np.round(seen_by_camera(values, random) * 255.0)
    return {"image": images, "label": labels, "num_labels": np.array([num_labels])}


def _draw(kind: str, stamps: Mapping[str, Stamps], random: np.random.Generator, size: int) -> tuple[Floats, int]:
    """Return a picture ``[size, size, 3]`` in 0 to 1, and its label."""
    if kind == "photograph":
        return photograph_crop(random, size), -1
    ground = draw_ground(random, size)
    if kind in _STAMP_OF:
        source = stamps[_STAMP_OF[kind]]
        row = int(random.integers(len(source.labels)))
        scale = float(random.uniform(0.55, 1.1))
        return _pasted(ground, source.pictures[row], random, scale=scale, reach=0.12, turn=25.0), int(source.labels[row])
    if kind == "word":
        letters, length = stamps["character"], int(random.integers(2, 6))
        for place in range(length):
            picture = letters.pictures[int(random.integers(len(letters.labels)))]
            at = (0.5, (place + 0.5) / length)
            ground = _pasted(ground, picture, random, scale=min(0.7, 1.5 / length), reach=0.05, turn=12.0, at=at)
        return ground, -1
    for _ in range(int(random.integers(2, 6))):
        at = (float(random.uniform(0.15, 0.85)), float(random.uniform(0.15, 0.85)))
        if kind == "shapes":
            picture, light = _shape(random), 0.0
        else:
            source = stamps["colour" if random.random() < 0.8 else "line"]
            picture, light = source.pictures[int(random.integers(len(source.labels)))], float(random.uniform(0.0, 0.5))
        ground = _pasted(
            ground, picture, random, scale=float(random.uniform(0.3, 0.6)), reach=0.0, turn=40.0, at=at, shadow=light
        )
    return ground, -1


def _pasted(
    ground: Floats,
    stamp: NDArray[np.uint8],
    random: np.random.Generator,
    *,
    scale: float,
    reach: float,
    turn: float,
    at: tuple[float, float] = (0.5, 0.5),
    shadow: float = 0.0,
) -> Floats:
    """Return the ground with a stamp on it.

    Args:
        ground: ``[size, size, 3]`` in 0 to 1.
        stamp: RGBA; a black one gets a colour that stands out.
        random: Draws turn, shift and colour.
        scale: Side of the stamp, as a share of the ground's.
        reach: Largest shift to each side, likewise.
        turn: Largest turn to each side in degrees.
        at: Where its centre lies: row and column as shares of the side.
        shadow: Opacity of a shadow below it.
    """
    images = require("PIL.Image", extra="vision", purpose="The nursery")
    size, side = len(ground), len(stamp)
    angle = float(np.deg2rad(random.uniform(-turn, turn)))
    row, column = ((place + float(random.uniform(-reach, reach))) * size for place in at)
    wide = scale * float(random.uniform(0.85, 1.15)) * size / side
    high = scale * float(random.uniform(0.85, 1.15)) * size / side
    if random.random() < 0.15:
        wide = -wide  # mirrored
    cosine, sine = np.cos(angle), np.sin(angle)
    # From a pixel of the ground to one of the stamp: shifted back, turned back, scaled back.
    matrix = (cosine / wide, sine / wide, -sine / high, cosine / high)
    shift_x = side / 2 - matrix[0] * column - matrix[1] * row
    shift_y = side / 2 - matrix[2] * column - matrix[3] * row
    numbers = (matrix[0], matrix[1], shift_x, matrix[2], matrix[3], shift_y)
    # Premultiplied, so that the colour of transparent pixels does not run in; smaller first where it shrinks by much.
    alpha = stamp[..., 3:].astype(np.float32) / 255.0
    layers = np.concatenate([stamp[..., :3].astype(np.float32) * alpha, alpha * 255.0], axis=2)
    placed = images.fromarray(np.round(layers).astype(np.uint8), mode="RGBA").transform(
        (size, size), images.Transform.AFFINE, numbers, resample=images.Resampling.BILINEAR
    )
    found = np.asarray(placed, dtype=np.float32) / 255.0
    opacity, colour = found[..., 3:], found[..., :3]
    if not stamp[..., :3].any():
        colour = _ink(ground, random) * opacity
    if shadow > 0.0:
        steps = max(1, size // 20)
        below = np.roll(opacity, (steps, steps), axis=(0, 1))
        below[:steps], below[:, :steps] = 0.0, 0.0
        ground = (ground * (1.0 - shadow * below)).astype(np.float32)
    return ground * (1.0 - opacity) + colour


def _ink(ground: Floats, random: np.random.Generator) -> Floats:
    """Return a colour that differs from the mean of the ground."""
    mean = ground.mean(axis=(0, 1))
    tries = np.concatenate([np.round(np.array([1.0 - mean.mean()] * 3))[None], random.random((3, 3))]).astype(np.float32)
    distances = np.abs(tries - mean).sum(axis=1)
    return tries[0] if random.random() < 0.5 else tries[int(distances.argmax())]


def _shape(random: np.random.Generator) -> NDArray[np.uint8]:
    """Return a shaded ellipse or polygon as a stamp."""
    images, drawing = (require(f"PIL.{name}", extra="vision", purpose="The nursery") for name in ("Image", "ImageDraw"))
    side = 72
    mask = images.new("L", (side, side), 0)
    corners = int(random.integers(2, 9))
    if corners == 2:
        drawing.Draw(mask).ellipse((6, 6, side - 6, side - 6), fill=255)
    else:
        angles = np.sort(random.uniform(0.0, 2.0 * np.pi, size=corners))
        reach = side / 2 * random.uniform(0.6, 1.0, size=corners)
        points = [(side / 2 + r * np.cos(a), side / 2 + r * np.sin(a)) for r, a in zip(reach, angles, strict=True)]
        drawing.Draw(mask).polygon(points, fill=255)
    lines, columns = np.indices((side, side), dtype=np.float32) / side
    light = 1.0 - 0.8 * np.hypot(lines - random.uniform(0.2, 0.8), columns - random.uniform(0.2, 0.8))
    colour = 255.0 * np.clip(light[..., None], 0.1, 1.0) * random.uniform(0.2, 1.0, size=3)
    return np.concatenate([np.round(colour), np.asarray(mask, dtype=np.float64)[..., None]], axis=2).astype(np.uint8)
