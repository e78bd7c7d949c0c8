"""Families of pictures that are made of parts: what is learned on classes of a family helps new classes of the same family, and classes
of other families help little.

A family has a stock of ten parts of one kind, in a paint of its own: bent strokes, pairs of spots, polygons, gratings, rosettes or
symmetric icons. A class is a set of three parts. Its pictures show each one once, in any three quarters of the picture, turned and
stretched a little, on noisy paper. Classes of a family share parts, and no two have the same set; other families have other parts, of
another kind. So animals share legs and eyes, which no car has. Who knows all parts of a family needs few pictures of a new class, and who
learned to tell few classes apart knows few parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

__all__ = ["FAMILIES", "MAX_CLASSES", "SIZE", "STOCK", "class_parts", "part_family"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SIZE = 16
"""Side of the pictures in pixels."""
STOCK = 10
"""Parts of a family."""
_BOX = 7
"""Side of a part in pixels: less than a quarter of the picture has, so that parts never overlap and have a pixel to move in."""
_VARIANTS = 24
"""Drawings of each part."""
_TURN, _STRETCH = 0.25, 0.15
"""Largest turn of a drawing, in radians, and largest change of its size, as a share."""
_SETS = np.asarray(tuple(itertools.combinations(range(STOCK), 3)), dtype=np.int64)
MAX_CLASSES = len(_SETS)
"""Classes of a family: all sets of three parts."""


def _strokes(random: np.random.Generator, across: Floats, down: Floats) -> Floats:
    """A bent line."""
    angle, bend, shift = random.uniform(0.0, 2.0 * np.pi), random.uniform(0.0, 1.6), random.uniform(-0.3, 0.3)
    along, away = _turned(across, down, angle)
    return _inside(0.26 - np.abs(away - bend * (along**2 - 0.4) - shift)) * _inside(0.9 - np.abs(along))


def _spots(random: np.random.Generator, across: Floats, down: Floats) -> Floats:
    """A light and a dark spot side by side."""
    angle, reach = random.uniform(0.0, 2.0 * np.pi), random.uniform(0.3, 0.55)
    along, away = _turned(across, down, angle)
    light, dark = (
        np.exp(-(((along - centre) / wide) ** 2) - (away / high) ** 2)
        for centre, (wide, high) in zip((reach, -reach), random.uniform(0.25, 0.6, size=(2, 2)), strict=True)
    )
    return np.asarray(light - dark)


def _polygons(random: np.random.Generator, across: Floats, down: Floats) -> Floats:
    """A filled polygon of three to five sides, not regular."""
    sides = int(random.integers(3, 6))
    spread = np.arange(sides) + random.uniform(-0.35, 0.35, size=sides)
    angles = 2.0 * np.pi * spread / sides + random.uniform(0.0, 2.0 * np.pi)
    reaches = random.uniform(0.25, 0.7, size=sides)
    beyond = [across * np.cos(angle) + down * np.sin(angle) - reach for angle, reach in zip(angles, reaches, strict=True)]
    return _inside(-np.max(beyond, axis=0))


def _gratings(random: np.random.Generator, across: Floats, down: Floats) -> Floats:
    """Two waves that cross, cut to a disc."""
    first, second = (
        np.sin(random.uniform(3.0, 8.0) * _turned(across, down, random.uniform(0.0, np.pi))[0] + random.uniform(0.0, 2.0 * np.pi))
        for _ in range(2)
    )
    return np.asarray((first + second) / 1.5 * _inside(0.95 - np.hypot(across, down)))


def _rosettes(random: np.random.Generator, across: Floats, down: Floats) -> Floats:
    """Petals around a centre, and rings."""
    petals, rings = int(random.integers(1, 5)), random.uniform(2.0, 7.0)
    distance, angle = np.hypot(across, down), np.arctan2(down, across)
    turn, phase = random.uniform(0.0, 2.0 * np.pi, size=2)
    weight = random.uniform(0.3, 0.7)
    waves = weight * np.cos(petals * angle + turn) + (1.0 - weight) * np.cos(rings * distance + phase)
    return np.asarray(1.4 * waves * _inside(0.95 - distance))


def _icons(random: np.random.Generator, across: Floats, down: Floats) -> Floats:
    """Five by five cells with and without ink, the right side the mirror image of the left."""
    half = random.integers(0, 2, size=(5, 3))
    cells = np.concatenate([half, half[:, 1::-1]], axis=1).astype(np.float64)
    row, column = (np.clip(np.floor((place + 1.0) * 2.5), 0, 4).astype(np.int64) for place in (down, across))
    return np.where(np.maximum(np.abs(across), np.abs(down)) > 1.0, 0.0, cells[row, column])


FAMILIES: dict[str, Callable[[np.random.Generator, Floats, Floats], Floats]] = {
    "strokes": _strokes,
    "spots": _spots,
    "polygons": _polygons,
    "gratings": _gratings,
    "rosettes": _rosettes,
    "icons": _icons,
}
"""Name -> what draws the part that a generator chooses, at places ``across`` and ``down``, which are -1 and 1 at the edges of its box:
the ink there, from about -1.5 (dark) to 1.5 (light)."""


_PAINTS = {
    "strokes": (1.0, 0.0, 0.0),
    "spots": (0.0, 1.0, 0.0),
    "polygons": (0.0, 0.0, 1.0),
    "gratings": (1.0, 0.0, 1.0),
    "rosettes": (0.0, 1.0, 1.0),
    "icons": (1.0, 1.0, 0.0),
}
"""Which channels the parts of a family show in: red, green, blue."""


def class_parts(num_classes: int, *, skip: int, seed: int, family: str) -> Ints:
    """Return the parts of each class ``[num_classes, 3]``: places ``skip`` to ``skip + num_classes`` of an order that the seed draws.

    The order is balanced: each class has the parts that those before it used least, so that its beginnings know all parts about equally.

    Raises:
        ConfigError: If there are not so many classes, or no such family.
    """
    problems = []
    if family not in FAMILIES:
        problems.append(f"there is no family {family!r}; choose from {', '.join(FAMILIES)}")
    if num_classes < 2 or skip < 0 or skip + num_classes > MAX_CLASSES:
        problems.append(
            f"a family has {MAX_CLASSES} classes, and a suite at least 2 of them; got num_classes={num_classes}, skip={skip}"
        )
    if problems:
        raise ConfigError("The family cannot be drawn as asked.", problems)
    left = _SETS[_seeds(family, seed).numpy("classes").permutation(MAX_CLASSES)]
    used, order = np.zeros(STOCK, dtype=np.int64), []
    for _ in range(skip + num_classes):
        # The first of equals, in an order that was drawn.
        place = int(used[left].sum(axis=1).argmin())
        order.append(left[place])
        used[left[place]] += 1
        left = np.delete(left, place, axis=0)
    return np.stack(order[skip:])


def part_family(
    family: str,
    *,
    num_classes: int = 8,
    skip: int = 0,
    num_train: int = 800,
    num_test: int = 400,
    noise: float = 0.06,
    seed: int = 0,
) -> Suite:
    """Draw classes of a family; equal arguments give equal bits.

    Suites of equal seed and family have the same stock of parts. Where their ranges of classes do not overlap, they have no class in
    common.

    Args:
        family: One of :data:`FAMILIES`.
        num_classes: Number of classes, at least 2.
        skip: How many classes of the seed's order are passed over (see :func:`class_parts`).
        num_train: Pictures of the training split, at least 1.
        num_test: Pictures of the test split, at least 1.
        noise: Standard deviation of the noise on pixels, of a full scale of 1.
        seed: Draws parts, classes and pictures.

    Returns:
        A suite with input ``image`` (16 pixels square, RGB) and the task ``class``.

    Raises:
        ConfigError: If an argument is out of range.
    """
    parts = class_parts(num_classes, skip=skip, seed=seed, family=family)
    if min(num_train, num_test) < 1 or noise < 0:
        raise ConfigError(
            f"A family is drawn with at least 1 picture in each split and noise of at least 0; got num_train={num_train}, "
            f"num_test={num_test}, noise={noise}."
        )
    seeds = _seeds(family, seed)
    random = seeds.numpy(f"pictures of {num_classes} from {skip}")
    labels = random.integers(0, num_classes, size=num_train + num_test)
    ink = _place(_stock(FAMILIES[family], seeds.numpy("stock")), parts[labels], random)
    paper = random.uniform(0.3, 0.5, size=(len(ink), 1, 1, 1))
    values = paper + 0.5 * ink[..., None] * np.asarray(_PAINTS[family]) + noise * random.normal(size=(*ink.shape, 3))
    pictures = np.round(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return Suite.of_arrays(
        name=f"part family {family}",
        input_specs=image_input(SIZE, encoder={"kind": "image", "size": SIZE}),
        tasks=[
            TaskSpec(
                name="class",
                kind="multiclass",
                size=num_classes,
                classes=tuple(f"parts {first}, {second} and {third}" for first, second, third in parts.tolist()),
            )
        ],
        inputs={"image": pictures},
        targets={"class": labels.astype(np.int64)},
        splits={"train": np.arange(num_train), "test": np.arange(num_train, len(labels))},
        raw={"preview": pictures},
        credits={"part families": "generated"},
    )


def _seeds(family: str, seed: int) -> Seeds:
    return Seeds(seed).child(f"part family {family}")


def _turned(across: Floats, down: Floats, angle: float) -> tuple[Floats, Floats]:
    return across * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - across * np.sin(angle)


def _inside(depth: Floats) -> Floats:
    """Return the ink of places by how deep they lie inside a figure: from 0 to 1 over about half a pixel."""
    return np.asarray(1.0 / (1.0 + np.exp(-depth / 0.08)))


def _stock(draw: Callable[[np.random.Generator, Floats, Floats], Floats], random: np.random.Generator) -> Floats:
    """Return drawings of all parts, ``[parts, variants, box, box]``."""
    place = (np.arange(_BOX) + 0.5) / _BOX * 2.0 - 1.0
    down, across = np.meshgrid(place, place, indexing="ij")
    found = np.empty((STOCK, _VARIANTS, _BOX, _BOX))
    for part in range(STOCK):
        chosen = int(random.integers(2**31))
        for variant in range(_VARIANTS):
            stretch = 1.0 + random.uniform(-_STRETCH, _STRETCH)
            places = _turned(across * stretch, down * stretch, random.uniform(-_TURN, _TURN))
            # Begun anew for each drawing: the same part.
            found[part, variant] = draw(np.random.default_rng(chosen), *places)
    return found


def _place(stock: Floats, parts: Ints, random: np.random.Generator) -> Floats:
    """Return the ink ``[N, 16, 16]`` of pictures that show parts ``[N, 3]``."""
    count, quarter = len(parts), SIZE // 2
    ink = np.zeros((count, SIZE, SIZE))
    index, steps = np.arange(count)[:, None, None], np.arange(_BOX)
    quarters = random.random((count, 4)).argsort(axis=1)
    for number in range(parts.shape[1]):
        drawn = stock[parts[:, number], random.integers(0, _VARIANTS, size=count)]
        corner = random.integers(0, quarter - _BOX + 1, size=(2, count)) + quarter * np.stack(np.divmod(quarters[:, number], 2))
        strength = random.uniform(0.7, 1.0, size=(count, 1, 1))
        ink[index, corner[0][:, None, None] + steps[:, None], corner[1][:, None, None] + steps] = strength * drawn
    return ink
