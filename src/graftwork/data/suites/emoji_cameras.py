"""Emoji seen by four cameras: who is it, seen by another camera? For re-identification, in one domain and across domains.

An identity is one emoji drawing (of the man's, woman's and person's version of a drawing only one is taken). Every picture of it
is turned, scaled, shifted and cropped, stands on a ground of two colours, and may be covered in part; the camera then bends its
colours (cast, saturation, contrast, gamma), blurs it and adds noise. The cameras ``A`` and ``B`` differ a little, as those of one
place do. ``C`` and ``D`` are those of another place: casts, contrast and tone of a kind that A and B never show.

There are two suites over one set of draws. The one for learning has other identities than the one for ranking, and the ids of
the latter are its labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.array_cache import cached_arrays
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji_files import Emoji, hash_pictures, read_emoji, read_pictures

__all__ = ["CAMERAS", "Camera", "emoji_cameras"]

Array = NDArray[Any]
ARTWORK = 72
"""Side of the artwork in pixels."""
CHUNK = 64
"""Pictures that are drawn at a time."""
_VERSION = 1
"""Raised whenever equal arguments would give other pictures, so that caches of older versions are not used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """What a camera does to every picture, in this order."""

    gain: tuple[float, float, float]
    """Factor on red, green and blue: the cast."""
    saturation: float
    """1 keeps colours, 0 makes them grey."""
    contrast: float
    """Factor around the middle of the scale."""
    offset: float
    """Added to all values, of a full scale of 1."""
    gamma: float
    """Exponent on values in [0, 1]."""
    blur: float
    """Standard deviation of the blur in pixels of the picture."""
    noise: float
    """Standard deviation of the noise on values."""


CAMERAS: dict[str, Camera] = {
    "A": Camera(gain=(1.0, 0.97, 0.9), saturation=1.0, contrast=1.0, offset=0.0, gamma=1.0, blur=0.4, noise=0.02),
    "B": Camera(gain=(0.9, 0.97, 1.0), saturation=0.9, contrast=0.9, offset=0.0, gamma=1.15, blur=0.8, noise=0.03),
    "C": Camera(gain=(0.8, 0.92, 1.0), saturation=0.9, contrast=0.75, offset=-0.06, gamma=1.2, blur=0.8, noise=0.03),
    "D": Camera(gain=(1.0, 0.92, 0.8), saturation=0.85, contrast=0.8, offset=0.06, gamma=0.85, blur=0.6, noise=0.03),
}
"""The cameras; A and B are the source, C and D the target."""
SOURCE, TARGET = ("A", "B"), ("C", "D")
JITTER = 0.06
"""Standard deviation of each picture's own gain and offset: the hour of the day."""


def emoji_cameras(
    part: Literal["learning", "ranking"] = "learning",
    *,
    num_learning: int = 400,
    num_ranking: int = 200,
    per_camera: int = 2,
    size: int = 48,
    seed: int = 0,
    cache: str | Path | None = None,
) -> Suite:
    """Return pictures by four cameras; equal arguments give equal bits.

    Args:
        part: ``learning`` has the splits ``train`` and ``val`` (cameras A and B) and ``target`` (C and D) and the task
            ``identity``, a class of each emoji. ``ranking`` has other emoji and the splits ``test`` (A and B) and ``transfer``
            (C and D); its task ``identity`` has ids, compared by vectors.
        num_learning: Identities to learn from.
        num_ranking: Identities to rank.
        per_camera: Pictures of each identity by each camera in every split; ``val`` has one.
        size: Side of the pictures in pixels, at least 16.
        seed: Draws identities and pictures.
        cache: Folder to keep the pictures in; None draws them anew.

    Returns:
        A suite of pictures whose ``domain`` is the camera.

    Raises:
        ConfigError: If an argument is out of range; all problems at once.
        MissingDependencyError: If the packages with the artwork are not installed.
    """
    emoji = _one_of_each_family(read_emoji())
    numbers = {
        "num_learning": (num_learning, 2),
        "num_ranking": (num_ranking, 2),
        "per_camera": (per_camera, 1),
        "size": (size, 16),
    }
    problems = [f"{name} must be at least {least}; got {value!r}" for name, (value, least) in numbers.items() if value < least]
    if part not in ("learning", "ranking"):
        problems.append(f"part must be learning or ranking; got {part!r}")
    if num_learning + num_ranking > len(emoji):
        problems.append(f"there are {len(emoji)} identities; got num_learning {num_learning!r} and num_ranking {num_ranking!r}")
    if problems:
        raise ConfigError("The cameras cannot be set up as asked.", problems)
    seeds = Seeds(seed).child("emoji-cameras")
    order = seeds.numpy("identities").permutation(len(emoji))[: num_learning + num_ranking]
    is_learning = part == "learning"
    chosen = [emoji[index] for index in (order[:num_learning] if is_learning else order[num_learning:])]
    layout = (
        {"train": (SOURCE, per_camera), "val": (SOURCE, 1), "target": (TARGET, per_camera)}
        if is_learning
        else {"test": (SOURCE, per_camera), "transfer": (TARGET, per_camera)}
    )
    identity, camera, splits = _rows(layout, len(chosen))
    # Everything that the pictures depend on.
    asked = (_VERSION, hash_pictures(chosen), num_learning, num_ranking, per_camera, size, seed, part)

    def draw() -> dict[str, Array]:
        return {"image": _draw(chosen, identity, camera, size, seeds.numpy(part))}

    key = hashlib.sha256(repr(asked).encode()).hexdigest()[:24]
    pictures = np.asarray((draw() if cache is None else cached_arrays(cache, f"emoji-cameras-{key}", draw))["image"])
    task = (
        TaskSpec(name="identity", kind="multiclass", size=len(chosen), classes=tuple(item.key for item in chosen))
        if is_learning
        else TaskSpec(name="identity", kind="embedding", size=32)
    )
    return Suite(
        name=f"emoji-cameras, {part}",
        input_specs=image_input(size, encoder={"kind": "image", "size": size}),
        tasks=(task,),
        inputs={"image": pictures},
        targets={"identity": identity},
        splits=splits,
        domain=camera,
        domains=tuple(CAMERAS),
        raw={"preview": pictures},
        credits={"emoji": "Twemoji graphics, CC BY 4.0, Twitter and contributors"},
    )


def _one_of_each_family(emoji: list[Emoji]) -> list[Emoji]:
    # Reversed twice: of each family the first is kept, and the order stays.
    return list({item.family: item for item in reversed(emoji)}.values())[::-1]


def _rows(layout: Mapping[str, tuple[Sequence[str], int]], count: int) -> tuple[Array, Array, dict[str, Array]]:
    """Return identity and camera of every row, and the rows of each split."""
    identity, camera, splits, start = [], [], {}, 0
    names = list(CAMERAS)
    for split, (cameras, copies) in layout.items():
        numbers = [names.index(name) for name in cameras]
        identity.append(np.repeat(np.arange(count), len(numbers) * copies))
        camera.append(np.tile(np.repeat(numbers, copies), count))
        splits[split] = np.arange(start, start + len(identity[-1]))
        start += len(identity[-1])
    return np.concatenate(identity).astype(np.int64), np.concatenate(camera).astype(np.int64), splits


def _draw(emoji: list[Emoji], identity: Array, camera: Array, size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return pictures uint8 ``[N, size, size, 3]``."""
    artwork = np.stack([np.asarray(picture, np.float32) / 255.0 for picture in read_pictures(emoji)])
    artwork[..., :3] *= artwork[..., 3:]  # so that what is between two pixels is mixed by how much they cover
    # The generator goes through the blocks in order, so CHUNK is part of what the seed means.
    blocks = [slice(start, start + CHUNK) for start in range(0, len(identity), CHUNK)]
    parts = [_photograph(_place(artwork[identity[block]], size, random), camera[block], random) for block in blocks]
    return np.concatenate(parts)


def _place(artwork: Array, size: int, random: np.random.Generator) -> Array:
    """Return turned, scaled, shifted and partly covered drawings on a ground of two colours, ``[N, size, size, 3]``."""
    count = len(artwork)
    angle, scale = _uniform(random, -0.2, 0.2, (count, 1, 1)), _uniform(random, 0.85, 1.25, (count, 1, 1))
    shift = _uniform(random, -0.15, 0.15, (2, count, 1, 1))
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    rows, columns = np.meshgrid(axis, axis, indexing="ij")
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    # Where each pixel of the picture comes from in the artwork, in [-1, 1].
    at_row, at_column = cosine * rows - sine * columns + shift[0], sine * rows + cosine * columns + shift[1]
    drawn = _sample(artwork, (at_row + 1) * (ARTWORK / 2) - 0.5, (at_column + 1) * (ARTWORK / 2) - 0.5)
    ground = _uniform(random, 0.5, 0.9, (2, count, 1, 1, 1)) + _uniform(random, -0.1, 0.1, (2, count, 1, 1, 3))
    slopes = _uniform(random, -1.0, 1.0, (2, count, 1, 1))
    is_left = (columns * slopes[0] + rows * slopes[1] > 0)[..., None]
    picture = drawn[..., :3] + np.where(is_left, ground[0], ground[1]) * (1 - drawn[..., 3:])
    corner, side = _uniform(random, -1.2, 0.9, (2, count, 1, 1)), _uniform(random, 0.1, 0.3, (2, count, 1, 1))
    is_covered = (np.abs(rows - corner[0]) < side[0]) & (np.abs(columns - corner[1]) < side[1])
    return np.where(is_covered[..., None], _uniform(random, 0.0, 1.0, (count, 1, 1, 3)), picture)


def _uniform(random: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> Array:
    return np.float32(low) + np.float32(high - low) * random.random(shape, dtype=np.float32)


def _sample(images: Array, rows: Array, columns: Array) -> Array:
    """Return values between pixels, bilinear, 0 outside. Images are ``[N, S, S, 4]``, places ``[N, s, s]`` in pixels."""
    # One pixel before and two behind, so that neighbours exist outside, too.
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)))
    side = padded.shape[1]
    # Far outside is as empty as just outside.
    rows, columns = (np.clip(places, -1, images.shape[1]) + 1 for places in (rows, columns))
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    # Flat index of the upper left neighbour; the other three follow from it.
    first = (np.arange(len(images), dtype=np.int32)[:, None, None] * side + top) * side + left
    pixels = padded.reshape(-1, padded.shape[3])
    # Bilinear: along the upper row, the lower row, then between both.
    upper = pixels[first] + right * (pixels[first + 1] - pixels[first])
    lower = pixels[first + side] + right * (pixels[first + side + 1] - pixels[first + side])
    mixed: Array = upper + down * (lower - upper)
    return mixed


def _photograph(pictures: Array, camera: Array, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return what the cameras make of pictures ``[N, size, size, 3]`` in [0, 1]."""
    settings, count = list(CAMERAS.values()), len(camera)

    def of(name: str) -> Array:
        values = np.array([getattr(item, name) for item in settings], np.float32)[camera]
        return values.reshape(count, 1, 1, -1)

    def unsteady(*shape: int) -> Array:
        return np.float32(JITTER) * random.standard_normal((count, 1, 1, *shape), dtype=np.float32)

    grey = pictures.mean(axis=3, keepdims=True)
    values = (grey + of("saturation") * (pictures - grey)) * (of("gain") * (1 + unsteady(3)))
    values = of("contrast") * (values - 0.5) + (0.5 + of("offset") + unsteady(1))
    # Clipped first: a power of a negative number is NaN.
    values = _blur(np.clip(values, 0.0, 1.0) ** of("gamma"), of("blur"))
    values = values + of("noise") * random.standard_normal(values.shape, dtype=np.float32)
    return np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def _blur(pictures: Array, spread: Array) -> Array:
    """Return pictures blurred by a Gaussian of five places along rows and columns; ``spread`` is ``[N, 1, 1, 1]``."""
    weights = np.exp(-((np.arange(-2, 3, dtype=np.float32)) ** 2) / (2 * spread.reshape(-1, 1) ** 2))
    weights = (weights / weights.sum(axis=1, keepdims=True))[:, :, None, None, None]
    for axis in (1, 2):
        padded = np.pad(pictures, [(0, 0), *((2, 2) if place == axis else (0, 0) for place in (1, 2)), (0, 0)], mode="edge")
        length = pictures.shape[axis]
        pictures = np.zeros_like(pictures)
        for at in range(5):
            shifted = padded[:, at : at + length] if axis == 1 else padded[:, :, at : at + length]
            pictures += weights[:, at] * shifted
    return pictures
