"""What models of the nursery are checked on: pictures and labels that no pretraining here has met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji import emoji_suite
from graftwork.data.suites.emoji_files import read_emoji
from graftwork.data.suites.glyphs import glyphs
from graftwork.data.suites.multidigits import multidigits
from graftwork.data.suites.scenes import scenes
from graftwork.nursery.stamps import held_out

__all__ = ["HELD_OUT", "Question", "picture_questions"]

HELD_OUT: Mapping[str, str] = {
    "drawings": "category of emoji drawings (8 classes) whose families were kept out of pretraining, every third one",
    "digits": "the upper left one of two handwritten digits of scikit-learn (10 classes); no handwriting was in pretraining",
    "glyphs": "letters of an invented alphabet (20 classes), drawn by unsteady hands",
    "bodies": "kind of the largest body in ray-cast scenes",
}
"""Question -> what is asked."""
_SHARES = (0.65, 0.1, 0.25)
"""Training, validation and test rows of drawings, by family."""
_SPLITS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One task of one held-out suite."""

    name: str
    image: NDArray[np.uint8]
    """``[N, S, S, 3]``."""
    label: NDArray[np.int64]
    """``[N]``."""
    splits: tuple[dict[str, NDArray[np.int64]], ...]
    """Rows of ``train``, ``val`` and ``test``; results are means over the splits."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.label.max()) + 1


def picture_questions(num_train: int = 300, num_test: int = 600, *, seed: int = 0) -> list[Question]:
    """Return the questions of :data:`HELD_OUT`, in order.

    Args:
        num_train: Training rows of those that are generated; there are two fifths as many for validation.
        num_test: Test rows likewise.
        seed: Draws what is generated, and splits.
    """
    sizes: dict[str, Any] = {"num_train": num_train, "num_val": num_train * 2 // 5, "num_test": num_test, "seed": seed}
    return [
        _drawings(seed),
        _of_suite("digits", multidigits(**sizes), "top_left"),
        _of_suite("glyphs", glyphs(**sizes), "letter"),
        _of_suite("bodies", scenes(tasks=("main_body",), **sizes), "main_body"),
    ]


def _of_suite(name: str, suite: Suite, task: str) -> Question:
    splits = {part: np.asarray(suite.splits[part], dtype=np.int64) for part in ("train", "val", "test")}
    return Question(name=name, image=suite.inputs["image"], label=suite.targets[task].astype(np.int64), splits=(splits,))


def _drawings(seed: int) -> Question:
    """Return the held-out emoji, each family on one side of every split."""
    emoji = read_emoji()
    suite = emoji_suite(line_style=False)
    image = np.asarray(suite.inputs["image"])
    # A few emoji of other families have the very same drawing: the pictogram of a family.
    learned = {image[row].tobytes() for row, item in enumerate(emoji) if not held_out(item.family)}
    rows = np.array([row for row, item in enumerate(emoji) if held_out(item.family) and image[row].tobytes() not in learned])
    families = np.unique([emoji[row].family for row in rows], return_inverse=True)[1]
    splits = []
    for number in range(_SPLITS):
        order = Seeds(seed).numpy(f"drawings/{number}").permutation(int(families.max()) + 1)
        rank = np.empty(len(order))
        rank[order] = (np.arange(len(order)) + 0.5) / len(order)
        place = rank[families]
        ends = np.cumsum(_SHARES)
        parts = {"train": place < ends[0], "val": (place >= ends[0]) & (place < ends[1]), "test": place >= ends[1]}
        splits.append({part: np.flatnonzero(chosen) for part, chosen in parts.items()})
    label = np.asarray(suite.targets["category"])[rows].astype(np.int64)
    return Question(name="drawings", image=image[rows], label=label, splits=tuple(splits))
