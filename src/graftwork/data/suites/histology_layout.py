"""Where the nuclei of generated tissue lie, how large they are and of which type: every hidden factor of theirs is drawn here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Nuclei", "draw_nuclei"]

Array = NDArray[Any]

RADII = (2.6, 3.4)
"""Mean radii in pixels before growth."""
GAP = 1.5
"""Pixels between two nuclei at least, so that stained ones do not run into each other."""
MARGIN = 2.0
"""Pixels between a centre and the border at least."""
TRIES = 12
"""Places tried for each nucleus; where all are taken, the picture has one nucleus less."""


@dataclass(frozen=True, slots=True)
class Nuclei:
    """The nuclei of ``N`` pictures in ``K`` slots each; all arrays ``[N, K]`` but ``centre``."""

    present: NDArray[np.bool_]
    """Whether there is a nucleus in the slot."""
    positive: NDArray[np.bool_]
    """Whether the marker stains it; False where there is none."""
    marked: NDArray[np.bool_]
    """Whether the coarse mask shows it."""
    centre: Array
    """Down and right in pixels from the top left corner, ``[N, K, 2]``; far outside where there is none."""
    radius: Array
    """Mean radius in pixels."""
    stretch: Array
    """Ratio of the longer half axis to the mean radius."""
    angle: Array
    """Direction of the longer axis, radians."""
    chromatin: Array
    """Mean concentration of haematoxylin."""
    uptake: Array
    """Concentration of DAB that the nucleus takes up if it is positive."""

    def factors(self) -> dict[str, Array]:
        """Return all arrays by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def distance(self, slot: int, size: int) -> Array:
        """Return how far each pixel is from the centre of the nuclei in a slot, 1 on their edge, ``[N, size, size]``."""
        place = np.arange(size) + 0.5
        down = place[None, :, None] - self.centre[:, slot, 0, None, None]
        right = place[None, None, :] - self.centre[:, slot, 1, None, None]
        cosine, sine = (turn(self.angle[:, slot])[:, None, None] for turn in (np.cos, np.sin))
        radius, stretch = self.radius[:, slot, None, None], self.stretch[:, slot, None, None]
        along, across = right * cosine + down * sine, down * cosine - right * sine
        # The distance in a frame turned along the longer axis; area stays that of the circle.
        return np.asarray(np.hypot(along / (radius * stretch), across * stretch / radius))


def draw_nuclei(
    count: int, generator: np.random.Generator, *, size: int, most: int, positive: float, growth: float, object_noise: float
) -> Nuclei:
    """Draw the nuclei of ``count`` pictures.

    Type, number, place, shape, chromatin and uptake are independent of each other; the radius depends on the type as ``growth``
    says, what is marked as ``object_noise`` says.

    Args:
        count: Number of pictures.
        generator: What is drawn from.
        size: Height and width in pixels.
        most: Slots for nuclei.
        positive: Probability that a nucleus is positive, in (0, 1).
        growth: Mean radius of positive nuclei relative to the others.
        object_noise: Probability that a positive nucleus is not marked; as many others are, by mistake.
    """
    shape = (count, most)
    # Drawn for all slots, filled or not, so that the number of nuclei does not shift later draws.
    types = generator.random(shape) < positive
    radius = generator.uniform(*RADII, shape) * np.where(types, growth, 1.0)
    wanted = generator.integers((most + 1) // 2, most + 1, count)
    # Places do not look at the type: every nucleus gets the room of the largest one.
    reach = 2.0 * RADII[1] * max(growth, 1.0) + GAP
    centre, present = np.full((*shape, 2), -1e3), np.zeros(shape, dtype=bool)
    for slot in range(most):
        places = generator.uniform(MARGIN, size - MARGIN, (count, TRIES, 2))
        # Slots that are still empty are far outside, so they take no room.
        nearest = np.linalg.norm(places[:, :, None] - centre[:, None, :slot], axis=-1).min(axis=2, initial=np.inf)
        free = nearest >= reach
        present[:, slot] = free.any(axis=1) & (slot < wanted)
        # argmax is 0 where no place is free; `present` is False there.
        chosen = places[np.arange(count), free.argmax(axis=1)]
        centre[present[:, slot], slot] = chosen[present[:, slot]]
    drawn = generator.random(shape)
    # So that expected mistakes equal expected misses.
    mistake = object_noise * positive / (1.0 - positive)
    return Nuclei(
        present=present,
        positive=types & present,
        marked=present & np.where(types, drawn >= object_noise, drawn < mistake),
        centre=centre,
        radius=radius,
        stretch=generator.uniform(1.0, 1.15, shape),
        angle=generator.uniform(0.0, np.pi, shape),
        chromatin=generator.uniform(0.45, 0.75, shape),
        uptake=generator.uniform(0.25, 0.6, shape),
    )
