"""Little faces on a coloured ground: a mouth between grief and joy, a skin between cold and warm, 16 x 16 pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FACE_SIZE", "draw_faces"]

Floats = NDArray[np.float64]
FACE_SIZE = 16
_COLD, _WARM = np.array([70.0, 150.0, 255.0]), np.array([255.0, 160.0, 50.0])
_DARK = np.array([30.0, 20.0, 20.0])


def draw_faces(mood: Floats, warmth: Floats, generator: np.random.Generator, *, noise: float = 12.0) -> NDArray[np.uint8]:
    """Return pictures uint8 ``[N, 16, 16, 3]``.

    Args:
        mood: Bend of the mouth, ``[N]``, about standard normal; up for joy.
        warmth: Colour of the skin, ``[N]``, likewise.
        generator: Draws ground, place, size and noise.
        noise: Standard deviation of the noise on values from 0 to 255.
    """
    count, middle = len(mood), (FACE_SIZE - 1) / 2.0
    down, right = np.meshgrid(np.arange(FACE_SIZE), np.arange(FACE_SIZE), indexing="ij")
    place = middle + generator.uniform(-0.7, 0.7, size=(count, 2))
    radius = generator.uniform(5.5, 7.0, size=(count, 1, 1))
    # In units of the radius, [N, 16, 16].
    y, x = (down - place[:, :1, None]) / radius, (right - place[:, 1:, None]) / radius
    # tanh keeps the mouth inside the face.
    bend, tone = np.tanh(0.7 * mood)[:, None, None], 1.0 / (1.0 + np.exp(-1.5 * warmth))
    skin = _COLD + tone[:, None] * (_WARM - _COLD)
    ground = generator.uniform(120.0, 255.0, size=(count, 3))
    inside = _soft(1.0 - np.sqrt(x**2 + y**2), radius)
    eyes = _soft(0.17 - np.sqrt((np.abs(x) - 0.35) ** 2 + (y + 0.3) ** 2), radius)
    line = 0.4 + 1.4 * bend * (0.15 - x**2)
    mouth = _soft(0.15 - np.abs(y - line), radius) * _soft(0.55 - np.abs(x), radius)
    picture = ground[:, None, None] + inside[..., None] * (skin[:, None, None] - ground[:, None, None])
    # maximum: where an eye and the mouth meet, the darker share counts once.
    picture = picture + np.maximum(eyes, mouth)[..., None] * (_DARK - picture)
    picture = picture + noise * generator.normal(size=picture.shape)
    return np.round(np.clip(picture, 0.0, 255.0)).astype(np.uint8)


def _soft(depth: Floats, radius: Floats) -> Floats:
    """Return how much of a pixel is covered, 0 to 1, for a depth below the border in units of the radius."""
    # A logistic border about one pixel wide; clipped, because exp overflows far inside and outside.
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * depth * radius, -50.0, 50.0))))
