"""How well stained cells are found: objects of a map are matched one to one with true centres, over all pictures together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError

__all__ = ["CellCounts", "count_cells", "find_cells"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class CellCounts:
    """Cells that were found, made up and missed."""

    found: int
    invented: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of the objects that are cells; 0 if there is no object."""
        return self.found / max(self.found + self.invented, 1)

    @property
    def recall(self) -> float:
        """Share of the cells that were found; 0 if there is no cell."""
        return self.found / max(self.found + self.missed, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in [0, 1]; 0 if there is neither cell nor object."""
        return 2 * self.found / max(2 * self.found + self.invented + self.missed, 1)


def find_cells(maps: Array, *, threshold: float, least_area: int = 1) -> list[NDArray[np.float64]]:
    """Return the centres of the connected objects of each map: pixels above a threshold that touch by a side.

    Args:
        maps: ``[N, H, W]``.
        threshold: Pixels above it belong to an object.
        least_area: Smaller objects do not count, in pixels.

    Returns:
        For each map down and right of each object in pixels from the top left corner, float64 ``[n, 2]``; the middle of the first
        pixel is at 0.5.
    """
    from scipy import ndimage

    if np.ndim(maps) != 3:
        raise DataError(f"Cells are looked for in maps [N, H, W]; got an array of shape {np.shape(maps)}.")
    # One labelling for all maps: objects touch within a map only, so that there is no Python loop over pixels or objects.
    within = np.zeros((3, 3, 3), dtype=bool)
    # The middle of the three slices is the map itself; the ones beside it are other pictures.
    within[1] = ndimage.generate_binary_structure(2, 1)
    labels, number = ndimage.label(np.asarray(maps) > threshold, structure=within)
    picture, down, right = np.nonzero(labels)
    # Label 0 is the background.
    owner = labels[picture, down, right] - 1
    area = np.bincount(owner, minlength=number)
    # bincount with weights sums the coordinates of each object. [n, 2]
    centres = np.stack([np.bincount(owner, place + 0.5, number) for place in (down, right)], axis=1) / area[:, None]
    home = np.zeros(number, dtype=np.int64)
    # All pixels of an object are in one picture, so it does not matter which one writes last.
    home[owner] = picture
    large = area >= least_area
    return [centres[large & (home == index)] for index in range(len(maps))]


def count_cells(objects: Sequence[Array], cells: Sequence[Array], *, reach: float) -> CellCounts:
    """Match objects with cells, each with at most one, as many as possible and then as near as possible.

    Args:
        objects: For each picture the centres of its objects, ``[n, 2]``.
        cells: For each picture the true centres, ``[m, 2]``.
        reach: Largest distance of a match in pixels, above 0.

    Raises:
        DataError: If the numbers of pictures differ, or ``reach`` is not above 0.
    """
    from scipy.optimize import linear_sum_assignment

    if len(objects) != len(cells) or not reach > 0:
        raise DataError(
            f"Objects and cells are given for the same pictures, with a reach above 0; got {len(objects)} and {len(cells)} "
            f"pictures and reach {reach!r}."
        )
    found = 0
    for seen, true in zip(objects, cells, strict=True):
        if not len(seen) or not len(true):
            continue
        distance = np.linalg.norm(np.asarray(seen)[:, None] - np.asarray(true)[None], axis=-1)
        # A pair out of reach costs more than all pairs within it together, so that it is taken only where nothing else is left.
        cost = np.where(distance <= reach, distance, reach * (1 + min(distance.shape)))
        rows, columns = linear_sum_assignment(cost)
        found += int((distance[rows, columns] <= reach).sum())
    return CellCounts(found, sum(map(len, objects)) - found, sum(map(len, cells)) - found)
