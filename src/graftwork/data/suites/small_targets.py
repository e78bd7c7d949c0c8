"""Small picture tasks to tune a pretrained backbone for: letters of new alphabets in two styles, and digits on textures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.domain_pairs import textured_digits
from graftwork.data.suites.glyph_styles import STYLES
from graftwork.data.suites.glyphs import glyphs

__all__ = ["SMALL_TARGETS", "small_target"]

SMALL_TARGETS = ("letters", "striped", "digits")
"""Twelve letters, twelve striped letters of another alphabet, ten digits on textures."""
_CLASSES = 12


def small_target(name: str, *, num_train: int, num_val: int, num_test: int, seed: int = 0) -> Suite:
    """Return a task; equal arguments give equal bits.

    Args:
        name: One of :data:`SMALL_TARGETS`.
        num_train: Pictures of the training split; of digits at most about 1,600.
        num_val: Pictures of the validation split; of digits at most about 800.
        num_test: Pictures of the test split; of digits there are 1,076.
        seed: Draws pictures and splits.

    Raises:
        ConfigError: If there is no such task, or a number is out of range.
        MissingDependencyError: If the packages with the artwork of textures are not installed.
    """
    if name == "digits":
        return _digits({"train": num_train, "val": num_val, "test": num_test}, seed)
    if name not in SMALL_TARGETS:
        raise ConfigError(f"There is no small target {name!r}; they are {', '.join(SMALL_TARGETS)}.")
    suite = glyphs(
        num_train=num_train,
        num_val=num_val,
        num_test=num_test,
        num_classes=_CLASSES,
        jitter=0.8,
        clutter=0,
        noise=0.1,
        # An alphabet of its own for each task.
        seed=2 * seed + (name == "striped"),
    )
    draw = STYLES["striped" if name == "striped" else "plain"]
    return replace(suite, inputs={"image": draw(np.asarray(suite.inputs["image"]))}, raw={})


def _digits(sizes: dict[str, int], seed: int) -> Suite:
    suite = textured_digits(seed=seed)
    assert suite.groups is not None, "digits are grouped by their original"
    random = Seeds(seed).numpy("small target")
    # The split `target` has textured digits that may be learned from; none of its originals is among the test digits.
    learned, test = random.permutation(suite.splits["target"]), random.permutation(suite.splits["test"])
    originals = np.unique(suite.groups[learned])
    is_val = np.isin(suite.groups[learned], random.permutation(originals)[: len(originals) // 3])
    rows = {"train": learned[~is_val], "val": learned[is_val], "test": test}
    return replace(suite, splits={part: np.sort(rows[part][:count]) for part, count in sizes.items()})
