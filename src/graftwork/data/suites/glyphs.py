"""Procedural glyphs: an invented alphabet, drawn by unsteady hands on noisy paper. One task, hard enough that small networks
differ.

Letters come in families of four that share two of their three strokes, so that the third one decides. Every picture bends the
strokes, turns, scales and shifts the letter, adds a stroke that means nothing, and is noisy. Each seed is an alphabet of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

__all__ = ["glyphs"]

Array = NDArray[np.float32]
FAMILY = 4
"""Letters that share all strokes but one."""
STROKES, POINTS = 3, 3
"""Strokes of a letter, and points that a stroke is drawn through (a quadratic Bezier curve)."""
SEGMENTS = 8
"""Straight pieces that stand for a curve."""
CHUNK = 256
"""Pictures that are drawn at a time."""


def glyphs(
    *,
    num_train: int = 3000,
    num_val: int = 500,
    num_test: int = 2000,
    num_classes: int = 20,
    size: int = 16,
    jitter: float = 1.0,
    clutter: int = 1,
    noise: float = 0.2,
    seed: int = 0,
) -> Suite:
    """Letters of an invented alphabet on noisy paper: pictures, one task.

    Equal arguments give equal bits.

    Args:
        num_train: Pictures of the training split; likewise ``num_val`` and ``num_test``.
        num_val: See ``num_train``.
        num_test: See ``num_train``.
        num_classes: Letters of the alphabet, at least 2.
        size: Height and width of the pictures in pixels, at least 8.
        jitter: Strength of bending, turning, scaling and shifting; 0 draws every letter the same.
        clutter: Strokes without meaning in every picture.
        noise: Standard deviation of the noise on pixels, of a full scale of 1.
        seed: Draws alphabet and pictures.

    Returns:
        A suite with input ``image`` (grey as RGB) and the task ``letter``.

    Raises:
        ConfigError: If an argument is out of range; all problems at once.
    """
    counts = {"num_train": (num_train, 1), "num_val": (num_val, 0), "num_test": (num_test, 1), "clutter": (clutter, 0)}
    counts |= {"num_classes": (num_classes, 2), "size": (size, 8)}
    problems = [f"{name} must be at least {least}; got {value!r}" for name, (value, least) in counts.items() if value < least]
    problems += [
        f"{name} must be at least 0; got {value!r}" for name, value in (("jitter", jitter), ("noise", noise)) if value < 0
    ]
    if problems:
        raise ConfigError("The glyphs cannot be drawn as asked.", problems)
    seeds = Seeds(seed).child("glyphs")
    alphabet = _alphabet(seeds.numpy("alphabet"), num_classes)
    sizes = {"train": num_train, "val": num_val, "test": num_test}
    bounds = np.cumsum([0, *sizes.values()])
    random = seeds.numpy("pictures")
    letters = random.integers(0, num_classes, size=int(bounds[-1]))
    images = np.concatenate(
        [_draw(alphabet[letters[at : at + CHUNK]], random, size, jitter, clutter, noise) for at in range(0, len(letters), CHUNK)]
    )
    pictures = images[..., None].repeat(3, axis=3)
    names = tuple(f"letter {index}" for index in range(num_classes))
    return Suite.of_arrays(
        name="glyphs",
        input_specs=image_input(size, encoder={"kind": "image", "size": size}),
        tasks=[TaskSpec(name="letter", kind="multiclass", size=num_classes, classes=names)],
        inputs={"image": pictures},
        targets={"letter": letters.astype(np.int64)},
        splits={name: np.arange(bounds[index], bounds[index + 1]) for index, name in enumerate(sizes)},
        raw={"preview": pictures},
        credits={"glyphs": "generated"},
    )


def _alphabet(random: np.random.Generator, num_classes: int) -> Array:
    """Return the strokes of all letters, ``[classes, strokes, points, 2]``, coordinates about in [-1, 1]."""
    families = -(-num_classes // FAMILY)
    # Families differ in all strokes, members of one in the last stroke only.
    shared = random.uniform(-0.9, 0.9, size=(families, 1, STROKES - 1, POINTS, 2)).repeat(FAMILY, axis=1)
    own = random.uniform(-0.9, 0.9, size=(families, FAMILY, 1, POINTS, 2))
    strokes = np.concatenate([shared, own], axis=2).reshape(-1, STROKES, POINTS, 2)
    return strokes[:num_classes].astype(np.float32)


def _draw(strokes: Array, random: np.random.Generator, size: int, jitter: float, clutter: int, noise: float) -> NDArray[np.uint8]:
    """Return pictures uint8 ``[N, size, size]`` of letters ``[N, strokes, points, 2]``."""
    count = len(strokes)
    bent = strokes + jitter * 0.08 * random.normal(size=strokes.shape)
    angle = jitter * random.uniform(-0.3, 0.3, size=count)
    scale = 1.0 - jitter * random.uniform(0.0, 0.3, size=count)
    turn = scale[:, None, None] * np.stack(
        [np.stack([np.cos(angle), -np.sin(angle)], axis=1), np.stack([np.sin(angle), np.cos(angle)], axis=1)], axis=1
    )
    shift = jitter * random.uniform(-0.2, 0.2, size=(count, 1, 1, 2))
    placed = np.einsum("nspc,ndc->nspd", bent, turn) + shift
    corner = random.uniform(-0.9, 0.9, size=(count, clutter, 1, 2))
    stray = corner + random.uniform(-0.5, 0.5, size=(count, clutter, POINTS, 2))
    points = np.concatenate([placed, stray], axis=1).astype(np.float32)
    thickness = random.uniform(0.5, 0.9, size=(count, 1)).astype(np.float32)
    ink = 1.0 / (1.0 + np.exp((_distances(points, size) - thickness) / 0.3))
    strength = random.uniform(0.5, 1.0, size=(count, 1))
    paper = random.uniform(0.0, 0.2, size=(count, 1))
    values = paper + (1.0 - paper) * strength * ink + noise * random.normal(size=ink.shape)
    return np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8).reshape(count, size, size)


def _distances(points: Array, size: int) -> Array:
    """Return how far each pixel is from the nearest stroke, in pixels, ``[N, size * size]``, for strokes ``[N, strokes, points,
    2]``."""
    at = np.linspace(0.0, 1.0, SEGMENTS + 1, dtype=np.float32)
    # Bernstein polynomials of a quadratic Bezier curve. [SEGMENTS + 1, 3]
    weights = np.stack([(1 - at) ** 2, 2 * at * (1 - at), at**2], axis=1)
    # From [-1, 1] to pixels.
    curve = (np.einsum("tp,nspd->nstd", weights, points) + 1.0) * (size / 2.0)
    start, end = (part.reshape(len(points), 1, -1, 2) for part in (curve[:, :, :-1], curve[:, :, 1:]))
    middle = np.arange(size, dtype=np.float32) + 0.5
    pixels = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=2).reshape(1, -1, 1, 2)
    along = end - start
    # Where along the piece the nearest point lies, as a share of its length; the floor is for pieces of length 0.
    share = ((pixels - start) * along).sum(axis=3) / np.maximum((along**2).sum(axis=3), 1e-6)
    away = pixels - start - np.clip(share, 0.0, 1.0)[..., None] * along
    nearest: Array = np.sqrt((away**2).sum(axis=3).min(axis=2))
    return nearest
