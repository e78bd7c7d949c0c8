"""Pairs of domains for unsupervised adaptation: plain and textured digits, upright and rotated moons.

Textured digits are made as MNIST-M was made of MNIST: Ganin et al., "Domain-Adversarial Training of Neural Networks",
https://arxiv.org/abs/1505.07818, blend digits with crops of photographs by the absolute difference. Here they are
scikit-learn's digits and crops of Twemoji artwork.

Both suites have the splits ``train`` and ``val`` of the source, ``target`` (training rows of the target) and ``test`` (other
rows of the target). No original digit is in two splits, and no artwork is in both ``target`` and ``test``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji_files import Emoji, read_emoji, read_pictures

__all__ = ["rotated_moons", "textured_digits"]

Array = NDArray[Any]
CANVAS, DIGIT, ARTWORK = 12, 10, 72
"""Sides in pixels: of the pictures, of the enlarged digits, of the artwork."""
SHARES = {"train": 0.4, "val": 0.1, "target": 0.35, "test": 0.15}
"""Shares of the original digits that the splits draw from."""


def textured_digits(*, copies: int = 4, num_emoji: int = 400, brightness: float = 0.5, seed: int = 0) -> Suite:
    """Return plain digits (source) and textured digits (target), RGB, 12 pixels square; equal arguments give equal bits.

    Args:
        copies: Pictures of each original digit, with places, brightness and textures of their own, at least 1.
        num_emoji: Number of artworks that textures are cropped from, at least 10.
        brightness: Factor on the textures, in (0, 1]. Photographs, which the paper blends with, are about half as bright as
            this artwork; at 1 most grounds are brighter than the digit on them.
        seed: Draws splits, places and textures.

    Returns:
        A suite of pictures with the domains ``plain`` and ``textured`` and the task ``digit``; groups are the
        original digits.

    Raises:
        ConfigError: If an argument is out of range.
        MissingDependencyError: If the packages with the artwork are not installed.
    """
    from sklearn.datasets import load_digits

    if copies < 1 or num_emoji < 10 or not 0 < brightness <= 1:
        raise ConfigError(
            "copies must be at least 1, num_emoji at least 10 and brightness in (0, 1]; "
            f"got {copies!r}, {num_emoji!r} and {brightness!r}."
        )
    digits, seeds = load_digits(), Seeds(seed)
    count = len(digits.target)
    order = seeds.numpy("split").permutation(count)
    # Rounded cumulative shares: the parts add up exactly.
    ends = np.round(np.cumsum(list(SHARES.values())) * count).astype(int)
    parts = dict(zip(SHARES, np.split(order, ends[:-1]), strict=True))
    # Copies of an original stay together, in one split.
    originals = np.concatenate([np.repeat(part, copies) for part in parts.values()])
    bounds = np.cumsum([0, *(len(part) * copies for part in parts.values())])
    splits = {name: np.arange(low, high) for name, low, high in zip(parts, bounds[:-1], bounds[1:], strict=True)}
    drawn = _place(digits.images[originals].astype(np.float32) / 16.0, seeds.numpy("place"))
    pictures = np.repeat(drawn[..., None], 3, axis=3)
    emoji = read_emoji()
    chosen = [emoji[index] for index in seeds.numpy("emoji").permutation(len(emoji))[:num_emoji]]
    border = round(0.7 * len(chosen))
    for name, artwork in (("target", chosen[:border]), ("test", chosen[border:])):
        rows = splits[name]
        # Absolute difference: a stroke is dark on a bright texture and bright on a dark one.
        pictures[rows] = np.abs(brightness * _textures(artwork, len(rows), seeds.numpy(f"texture/{name}")) - pictures[rows])
    domain = np.zeros(len(originals), np.int64)
    domain[splits["target"][0] :] = 1
    return Suite.of_arrays(
        name="textured-digits",
        input_specs=image_input(CANVAS),
        tasks=[TaskSpec(name="digit", kind="multiclass", size=10, classes=tuple(map(str, range(10))))],
        inputs={"image": np.round(255.0 * pictures).astype(np.uint8)},
        targets={"digit": digits.target[originals].astype(np.int64)},
        splits=splits,
        groups=originals.astype(np.int64),
        domain=domain,
        domains=("plain", "textured"),
        credits={
            "digits": "scikit-learn's copy of the UCI optical digits, BSD-3 / CC BY 4.0",
            "textures": "Twemoji graphics, CC BY 4.0, Twitter and contributors",
        },
    )


def _place(digits: Array, random: np.random.Generator) -> Array:
    """Enlarge digits ``[N, 8, 8]`` and put them on canvases ``[N, 12, 12]`` at a place of chance."""
    positions = np.linspace(0.0, 7.0, DIGIT)
    # At most 6, so that `low + 1` is the last row.
    low = np.minimum(positions.astype(int), 6)
    weights = np.zeros((DIGIT, 8), np.float32)
    weights[np.arange(DIGIT), low] = 1.0 - (positions - low)
    weights[np.arange(DIGIT), low + 1] = positions - low
    large = np.clip(1.5 * (weights @ digits @ weights.T) - 0.25, 0.0, 1.0)  # steeper edges than plain interpolation has
    rows, columns = random.integers(0, CANVAS - DIGIT + 1, size=(2, len(digits)))
    canvas = np.zeros((len(digits), CANVAS, CANVAS), np.float32)
    index = np.arange(len(digits))[:, None, None]
    canvas[index, rows[:, None, None] + np.arange(DIGIT)[:, None], columns[:, None, None] + np.arange(DIGIT)[None, :]] = large
    return canvas


def _textures(emoji: list[Emoji], count: int, random: np.random.Generator) -> Array:
    """Return crops of the artwork ``[count, 12, 12, 3]`` in [0, 1].

    Each is the one of 16 random places that the artwork covers most; a random colour shows where it does not.
    """
    artwork = np.stack([np.asarray(picture, np.float32) / 255.0 for picture in read_pictures(emoji)])
    covered = np.zeros((len(artwork), ARTWORK + 1, ARTWORK + 1), np.float64)
    # A summed-area table: the cover of any window is four look-ups. float64, since sums grow large.
    covered[:, 1:, 1:] = artwork[..., 3].cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
    tries = (16, count)
    which = random.integers(0, len(artwork), size=tries)
    top, left = random.integers(0, ARTWORK - CANVAS + 1, size=(2, *tries))
    bottom, right = top + CANVAS, left + CANVAS
    # [16, count]
    share = (
        covered[which, bottom, right] - covered[which, top, right] - covered[which, bottom, left] + covered[which, top, left]
    ) / CANVAS**2
    best = share.argmax(axis=0), np.arange(count)
    rows = top[best][:, None, None] + np.arange(CANVAS)[:, None]
    columns = left[best][:, None, None] + np.arange(CANVAS)[None, :]
    crops = artwork[which[best][:, None, None], rows, columns]
    ground = random.uniform(size=(count, 1, 1, 3)).astype(np.float32)
    # Opacity mixes artwork and ground.
    return crops[..., :3] * crops[..., 3:] + ground * (1.0 - crops[..., 3:])


def rotated_moons(
    *,
    degrees: float = 35.0,
    num_source: int = 600,
    num_target: int = 600,
    num_test: int = 1000,
    noise: float = 0.1,
    seed: int = 0,
) -> Suite:
    """Return two moons (source) and other points of the same moons turned around their centre (target).

    Args:
        degrees: Angle of the turn, counter-clockwise.
        num_source: Rows of ``train``; ``val`` has a quarter of that number.
        num_target: Rows of ``target``.
        num_test: Rows of ``test``.
        noise: Standard deviation of the noise on the points, at least 0.
        seed: Draws the points.

    Returns:
        A suite that is a table with two numeric columns, the domains ``upright`` and ``rotated`` and the task ``moon``.

    Raises:
        ConfigError: If an argument is out of range.
    """
    from sklearn.datasets import make_moons

    if min(num_source, num_target, num_test) < 4 or noise < 0:
        raise ConfigError(
            "All parts need at least 4 rows, and noise is at least 0; "
            f"got {num_source!r}, {num_target!r} and {num_test!r} rows and noise {noise!r}."
        )
    sizes = {"train": num_source, "val": max(num_source // 4, 1), "target": num_target, "test": num_test}
    seeds, points, labels = Seeds(seed), [], []
    for name, size in sizes.items():
        # scikit-learn takes seeds of 32 bits.
        drawn, moon = make_moons(size, noise=noise, random_state=seeds.integer(f"moons/{name}") % 2**32)
        points.append(drawn - (0.5, 0.25))  # the centre of both moons
        labels.append(moon)
    bounds = np.cumsum([0, *sizes.values()])
    splits = {name: np.arange(low, high) for name, low, high in zip(sizes, bounds[:-1], bounds[1:], strict=True)}
    position, angle = np.concatenate(points), np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    border = splits["target"][0]
    position[border:] = position[border:] @ turn
    # From source rows only: the target's spread must not be known.
    scale = position[splits["train"]].std(axis=0)
    return Suite.of_arrays(
        name="rotated-moons",
        input_specs=table_input(2),
        tasks=[TaskSpec(name="moon", kind="multiclass", size=2, classes=("upper", "lower"))],
        inputs={"numeric": (position / scale).astype(np.float32), "categorical": np.zeros((len(position), 0), np.int64)},
        targets={"moon": np.concatenate(labels).astype(np.int64)},
        splits=splits,
        domain=(np.arange(len(position)) >= border).astype(np.int64),
        domains=("upright", "rotated"),
    )
