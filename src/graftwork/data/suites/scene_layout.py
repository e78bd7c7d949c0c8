"""What stands where in a generated scene: every hidden factor is drawn here, independently of all others, and kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suites.scene_geometry import BODIES

__all__ = ["MAX_BODIES", "SceneLayout", "draw_layouts"]

Array = NDArray[Any]
MAX_BODIES = 4
"""Slots of a scene; one to four are filled."""
CELLS = np.array([(x, z) for z in (2.3, 3.9) for x in (-1.5, 0.0, 1.5)], dtype=np.float32)
"""Centres of the floor cells in which bodies stand, ``x`` and ``z``; wider apart than two bodies are wide."""


@dataclass(frozen=True, slots=True)
class SceneLayout:
    """Hidden factors of ``N`` scenes, float32 or int64; the camera stands at ``x = z = 0`` and looks along ``z``."""

    camera_height: Array
    """``[N]``, world units."""
    pitch: Array
    """``[N]``, radians below the horizon."""
    wall: Array
    """``[N]``, distance of the back wall."""
    light: Array
    """Unit vector towards the light, ``[N, 3]``."""
    kind: Array
    """Index into :data:`~graftwork.data.suites.scene_geometry.BODIES` for each slot, ``[N, M]``; -1 for an empty slot."""
    place: Array
    """``x`` and ``z`` of each body, ``[N, M, 2]``."""
    half_width: Array
    """``[N, M]``."""
    height: Array
    """``[N, M]``; not used by spheres."""
    yaw: Array
    """``[N, M]``, radians."""
    colour: Array
    """Reflectance of floor, wall and each slot, ``[N, 2 + M, 3]`` in [0, 1]; says nothing about the kind of body."""
    texture_scale: Array
    """Pattern repeats per world unit for floor, wall and each slot, ``[N, 2 + M]``."""

    def __len__(self) -> int:
        return len(self.wall)

    def part(self, rows: slice) -> SceneLayout:
        """Return some of the scenes."""
        return SceneLayout(*(getattr(self, name)[rows] for name in self.__slots__))

    def factors(self) -> dict[str, Array]:
        """Return one number per scene and factor, ``[N]`` each, for an independence report."""
        first = np.take_along_axis
        return {
            "camera_height": self.camera_height,
            "pitch": self.pitch,
            "wall": self.wall,
            "light_side": np.arctan2(self.light[:, 0], -self.light[:, 2]).astype(np.float32),
            "light_elevation": np.arcsin(self.light[:, 1]).astype(np.float32),
            "num_bodies": (self.kind >= 0).sum(axis=1),
            "kind": self.kind[:, 0],
            "size": first(self.half_width, np.zeros((len(self), 1), dtype=np.int64), axis=1)[:, 0],
            "side": self.place[:, 0, 0],
            "distance": self.place[:, 0, 1],
            "brightness": self.colour[:, 2].mean(axis=1),
            "floor_brightness": self.colour[:, 0].mean(axis=1),
        }


def draw_layouts(count: int, generator: np.random.Generator, max_bodies: int = MAX_BODIES) -> SceneLayout:
    """Draw ``count`` scenes of one to ``max_bodies`` bodies, in different floor cells, so that they never meet. Slot 0 is always
    filled."""
    uniform = lambda low, high, *shape: generator.uniform(low, high, size=(count, *shape)).astype(np.float32)  # noqa: E731
    num_bodies = generator.integers(1, max_bodies + 1, size=count)
    # All slots are drawn and some emptied, so that the number of bodies does not shift later draws.
    filled = np.arange(MAX_BODIES) < num_bodies[:, None]
    kind = np.where(filled, generator.integers(0, len(BODIES), size=(count, MAX_BODIES)), -1)
    # The first places of a random order: different cells in each scene.
    cells = generator.random((count, len(CELLS))).argsort(axis=1)[:, :MAX_BODIES]
    side, elevation = uniform(-1.2, 1.2), uniform(0.5, 1.2)
    # Minus z: the light stands on the camera's side, so that what is seen is lit.
    light = np.stack([np.cos(elevation) * np.sin(side), np.sin(elevation), -np.cos(elevation) * np.cos(side)], axis=1)
    return SceneLayout(
        camera_height=uniform(1.0, 1.9),
        pitch=uniform(0.12, 0.36),
        wall=uniform(6.5, 9.0),
        light=light,
        kind=kind,
        place=CELLS[cells] + uniform(-0.1, 0.1, MAX_BODIES, 2),
        half_width=uniform(0.28, 0.46, MAX_BODIES),
        height=uniform(0.6, 1.4, MAX_BODIES),
        yaw=uniform(0.0, np.pi / 2, MAX_BODIES),
        colour=uniform(0.15, 0.95, 2 + MAX_BODIES, 3),
        texture_scale=uniform(1.0, 2.5, 2 + MAX_BODIES),
    )
