"""Collages: pictures that show several emoji at once, with one label a drawing. For several labels a picture, and for classes
that come one after the other.

Each class is one drawing of Twemoji (animals, food, activities, places, objects; one of each family of near duplicates). A
picture shows a few different classes, each in a quarter of its own: turned, scaled, shifted, dimmed, on a noisy ground of any
colour. The training, validation and test pictures use drawings that were turned and scaled anew.

Collages of equal seed and other ``skip`` have no class in common, so that a backbone can be pretrained on classes that are never
asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji import CREDITS
from graftwork.data.suites.emoji_files import Emoji, read_emoji, read_pictures

__all__ = ["MAX_OBJECTS", "collage_classes", "emoji_collage"]

Floats = NDArray[np.float32]

MAX_OBJECTS = 4
"""One for each quarter of a picture."""
CATEGORIES = ("Animals & Nature", "Food & Drink", "Activities", "Travel & Places", "Objects")
ALIKE = ("time",)
"""Subcategories that are left out: clock faces differ by a hand."""
VARIANTS = 16
"""Turned and scaled drawings of each class in each split."""
CHUNK = 512
"""Pictures that are drawn at a time."""


def collage_classes(num_classes: int, *, skip: int = 0, seed: int = 0) -> list[Emoji]:
    """Return the drawings that are the classes: places ``skip`` to ``skip + num_classes`` of an order that the seed draws.

    Raises:
        ConfigError: If there are not so many.
        MissingDependencyError: If a package is not installed; the message holds the pip command.
    """
    kept: dict[str, Emoji] = {}
    for item in read_emoji():
        if item.category in CATEGORIES and item.subcategory not in ALIKE:
            kept.setdefault(item.family, item)
    # All are shuffled before `skip` is applied, so that two ranges never overlap.
    drawn = Seeds(seed).child("emoji-collage").numpy("classes").permutation(len(kept))
    if skip < 0 or num_classes < 1 or skip + num_classes > len(kept):
        raise ConfigError(
            f"Classes {skip} to {skip + num_classes} of a collage were asked for, and there are {len(kept)}. Ask for fewer."
        )
    order = list(kept.values())
    return [order[index] for index in drawn[skip : skip + num_classes]]


def emoji_collage(
    *,
    num_classes: int = 20,
    skip: int = 0,
    num_train: int = 2000,
    num_val: int = 400,
    num_test: int = 1000,
    size: int = 48,
    objects: tuple[int, int] = (2, 4),
    noise: float = 0.05,
    seed: int = 0,
) -> Suite:
    """Draw a suite of collages; equal arguments give equal bits.

    Args:
        num_classes: Number of classes ``K``.
        skip: How many classes of the seed's order are passed over (see :func:`collage_classes`).
        num_train: Pictures of the training split; likewise ``num_val`` and ``num_test``.
        num_val: See ``num_train``.
        num_test: See ``num_train``.
        size: Height and width of the pictures in pixels, even, at least 16.
        objects: Fewest and most objects in a picture, from 1 to 4; any number between them is as likely.
        noise: Standard deviation of the noise on pixels, of a full scale of 1.
        seed: Draws classes and pictures.

    Returns:
        A suite with input ``image`` and the task ``objects``: ``K`` labels that apply or not. ``raw["count"]`` is the number of
        objects of each picture.

    Raises:
        ConfigError: If an argument is out of range; all problems at once.
        MissingDependencyError: If a package is not installed; the message holds the pip command.
    """
    low, high = objects
    counts = {"num_train": (num_train, 1), "num_val": (num_val, 0), "num_test": (num_test, 1), "num_classes": (num_classes, 2)}
    problems = [f"{name} must be at least {least}; got {value!r}" for name, (value, least) in counts.items() if value < least]
    if size < 16 or size % 2:
        problems.append(f"size must be even and at least 16; got {size!r}")
    if not 1 <= low <= high <= min(MAX_OBJECTS, num_classes):
        problems.append(f"objects must be two numbers from 1 to {min(MAX_OBJECTS, num_classes)}, in order; got {objects!r}")
    if noise < 0:
        problems.append(f"noise must be at least 0; got {noise!r}")
    if problems:
        raise ConfigError("The collages cannot be drawn as asked.", problems)
    classes = collage_classes(num_classes, skip=skip, seed=seed)
    seeds = Seeds(seed).child(f"emoji-collage/{skip}")
    drawings = list(read_pictures(classes))
    sizes = {"train": num_train, "val": num_val, "test": num_test}
    bounds = np.cumsum([0, *sizes.values()])
    images, labels, numbers = [], [], []
    for name, total in sizes.items():
        random = seeds.numpy(name)
        # Drawn anew for each split: a test picture shows no drawing that was learned.
        variants = _variants(drawings, random, size // 2)
        for start in range(0, total, CHUNK):
            shown, count = _choose(random, min(CHUNK, total - start), num_classes, low, high)
            images.append(_draw(variants, shown, random, size, noise))
            # [rows, 4, 1] against [K] gives [rows, 4, K]; -1 equals no class.
            labels.append((shown[:, :, None] == np.arange(num_classes)).any(axis=1))
            numbers.append(count)
    pictures = np.concatenate(images)
    return Suite.of_arrays(
        name="emoji-collage",
        input_specs=image_input(size, encoder={"kind": "image", "size": size}),
        tasks=[
            TaskSpec(name="objects", kind="multilabel", size=num_classes, classes=tuple(item.name for item in classes)),
        ],
        inputs={"image": pictures},
        targets={"objects": np.concatenate(labels).astype(np.float32)},
        splits={name: np.arange(bounds[index], bounds[index + 1]) for index, name in enumerate(sizes)},
        raw={"preview": pictures, "count": np.concatenate(numbers)},
        credits={name: CREDITS[name] for name in ("Twemoji", "labels")},
    )


def _variants(drawings: list[Any], random: np.random.Generator, box: int) -> Floats:
    """Return turned and scaled drawings, RGBA from 0 to 1, ``[K, VARIANTS, box, box, 4]``."""
    images = require("PIL.Image", extra="vision", purpose="The emoji collage")
    found = np.zeros((len(drawings), VARIANTS, box, box, 4), np.float32)
    for index, drawing in enumerate(drawings):
        for variant in range(VARIANTS):
            side = round(box * random.uniform(0.7, 1.0))
            # Turned at full size and reduced after: turning small pictures blurs them.
            turned = drawing.rotate(random.uniform(-25.0, 25.0), resample=images.Resampling.BICUBIC)
            small = np.asarray(turned.resize((side, side), images.Resampling.BOX), dtype=np.float32) / 255.0
            row, column = random.integers(0, box - side + 1, size=2)
            found[index, variant, row : row + side, column : column + side] = small
    return found


def _choose(
    random: np.random.Generator, rows: int, num_classes: int, low: int, high: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the class in each quarter, int64 ``[rows, 4]``, -1 where it is empty, and the number of objects ``[rows]``."""
    count = random.integers(low, high + 1, size=rows)
    # The first places of a random order: different classes in each row.
    different = random.random((rows, num_classes)).argsort(axis=1)[:, :MAX_OBJECTS]
    if num_classes < MAX_OBJECTS:
        different = np.pad(different, ((0, 0), (0, MAX_OBJECTS - num_classes)), constant_values=-1)
    shown = np.where(np.arange(MAX_OBJECTS) < count[:, None], different, -1)
    # Quarters in random order as well, or the first would always be filled.
    return np.take_along_axis(shown, random.random((rows, MAX_OBJECTS)).argsort(axis=1), axis=1), count


def _draw(variants: Floats, shown: NDArray[np.int64], random: np.random.Generator, size: int, noise: float) -> NDArray[np.uint8]:
    """Return pictures uint8 ``[N, size, size, 3]`` of the classes ``[N, 4]``."""
    rows, box = len(shown), size // 2
    slack = box // 6
    # Canvas with a border, so that shifted boxes need no clipping; the border is cut off at the end.
    canvas = np.ones((rows, size + 2 * slack, size + 2 * slack, 3), np.float32) * random.uniform(0.2, 0.9, (rows, 1, 1, 3))
    index, steps = np.arange(rows)[:, None, None], np.arange(box)
    for quarter in range(MAX_OBJECTS):
        # Class 0 stands in for empty quarters; its opacity is set to 0 below.
        drawn = variants[np.maximum(shown[:, quarter], 0), random.integers(0, VARIANTS, size=rows)]
        alpha = drawn[..., 3:] * (shown[:, quarter] >= 0)[:, None, None, None]
        light = random.uniform(0.7, 1.0, size=(rows, 1, 1, 1))
        # Up to `slack` beyond the quarter on each side, so that neighbours can overlap.
        top, left = (box * place + random.integers(0, 2 * slack + 1, size=rows) for place in divmod(quarter, 2))
        window = (index, top[:, None, None] + steps[:, None], left[:, None, None] + steps)
        canvas[window] = (1.0 - alpha) * canvas[window] + alpha * light * drawn[..., :3]
    inner = canvas[:, slack : slack + size, slack : slack + size] + noise * random.normal(size=(rows, size, size, 3))
    return np.round(np.clip(inner, 0.0, 1.0) * 255.0).astype(np.uint8)
