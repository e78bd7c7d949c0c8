"""From a layout to pictures: nearest surfaces by ray casting, then light, shadow, texture and noise in a style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suites.scene_geometry import BODIES, rotate_y
from graftwork.data.suites.scene_layout import MAX_BODIES, SceneLayout

__all__ = ["CLASSES", "STYLES", "SceneStyle", "Surfaces", "cast_rays", "render", "shade"]

Array = NDArray[Any]
CLASSES: tuple[str, ...] = ("floor", "wall", *BODIES)
"""Semantic classes in index order."""
CHUNK = 128
"""Scenes rendered at a time, to bound memory."""
HALF_VIEW = 0.55
"""Tangent of half the field of view."""


@dataclass(frozen=True, slots=True)
class SceneStyle:
    """How surfaces look; what stands where does not depend on it."""

    texture: Literal["none", "checker", "stripes", "dots"] = "none"
    contrast: float = 0.0
    """How much darker the dark parts of the texture are, in [0, 1]."""
    ambient: float = 0.45
    """Share of light that comes from everywhere."""
    exposure: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Colour of the light."""
    noise: float = 0.02
    """Standard deviation of the sensor's noise, of a full range of 1."""


STYLES: dict[str, SceneStyle] = {
    "plain": SceneStyle(),
    "checker": SceneStyle(texture="checker", contrast=0.55),
    "stripes": SceneStyle(texture="stripes", contrast=0.55, tint=(0.85, 0.95, 1.15)),
    "night": SceneStyle(texture="dots", contrast=0.4, ambient=0.15, exposure=0.6, tint=(1.2, 0.9, 0.6), noise=0.05),
}
"""Drawing styles by name; each can be a domain."""


@dataclass(frozen=True, slots=True)
class Surfaces:
    """What every pixel of ``n`` scenes sees, ``P`` pixels each."""

    depth: Array
    """Distance along the camera's axis, float32 ``[n, P]``."""
    normal: Array
    """Unit normals in world coordinates, float32 ``[n, P, 3]``."""
    instance: Array
    """0 floor, 1 wall, ``2 + slot`` for bodies, int64 ``[n, P]``."""
    point: Array
    """Place in world coordinates, float32 ``[n, P, 3]``."""


def _camera(layout: SceneLayout, size: int) -> tuple[Array, Array, Array]:
    """Return the camera's place ``[n, 1, 3]``, ray directions ``[n, P, 3]`` with 1 along its axis, and its axes ``[n, 3, 3]`` as
    rows."""
    cosine, sine = np.cos(layout.pitch), np.sin(layout.pitch)
    zero, one = np.zeros_like(cosine), np.ones_like(cosine)
    axes = np.stack(
        [np.stack(axis, axis=1) for axis in ((one, zero, zero), (zero, cosine, sine), (zero, -sine, cosine))], axis=1
    ).astype(np.float32)
    # Middles of the pixels, in [-1, 1], times half the view.
    grid = (((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1) * np.float32(HALF_VIEW)
    # Minus: rows go down, `up` goes up.
    right, up = np.meshgrid(grid, -grid)
    in_camera = np.stack([right.ravel(), up.ravel(), np.ones(size * size, dtype=np.float32)], axis=1)
    place = np.stack([zero, layout.camera_height, zero], axis=1)[:, None, :].astype(np.float32)
    # Axes as rows, so a row of coordinates times them is a place in the world.
    return place, in_camera @ axes, axes


def cast_rays(layout: SceneLayout, origin: Array, direction: Array, *, bodies_only: bool = False) -> Surfaces:
    """Return the nearest surface of each ray.

    Args:
        layout: ``n`` scenes.
        origin: ``[n, 1 or P, 3]``.
        direction: ``[n, P or 1, 3]``.
        bodies_only: Leave out floor and wall; depth is infinite where no body is met (shadow rays).
    """
    shape = np.broadcast_shapes(origin.shape, direction.shape)
    origin, direction = np.broadcast_to(origin, shape), np.broadcast_to(direction, shape)
    depth = np.full(shape[:2], np.inf, dtype=np.float32)
    instance = np.zeros(shape[:2], dtype=np.int64)
    normal = np.zeros(shape, dtype=np.float32)
    normal[..., 1] = 1.0
    if not bodies_only:
        with np.errstate(divide="ignore", invalid="ignore"):
            # Rays that do not go down never meet the floor.
            floor = np.where(direction[..., 1] < -1e-6, -origin[..., 1] / direction[..., 1], np.inf)
            wall = (layout.wall[:, None] - origin[..., 2]) / direction[..., 2]
        on_wall = wall < floor
        depth = np.where(on_wall, wall, floor).astype(np.float32)
        instance[on_wall] = 1
        normal[on_wall] = (0.0, 0.0, -1.0)
    bodies = list(BODIES.values())
    for slot in range(MAX_BODIES):
        # Few rays pass near a body; only those are tested exactly.
        scene, pixel = np.nonzero(_near(layout, slot, origin, direction))
        for index, hit in enumerate(bodies):
            of_kind = layout.kind[scene, slot] == index
            rows, columns = scene[of_kind], pixel[of_kind]
            place = np.zeros((len(rows), 3), dtype=np.float32)
            place[:, 0::2] = layout.place[rows, slot]
            yaw = layout.yaw[rows, slot]
            distance, outward = hit(
                # Into the body's own frame: the functions know it at the origin, unturned.
                rotate_y(origin[rows, columns] - place, -yaw),
                rotate_y(direction[rows, columns], -yaw),
                layout.half_width[rows, slot],
                layout.height[rows, slot],
            )
            nearer = distance < depth[rows, columns]
            rows, columns = rows[nearer], columns[nearer]
            depth[rows, columns] = distance[nearer]
            instance[rows, columns] = 2 + slot
            normal[rows, columns] = rotate_y(outward[nearer], yaw[nearer])
    # Shadow rays may meet nothing; infinity times 0 would be NaN.
    finite = np.where(np.isfinite(depth), depth, 0.0).astype(np.float32)
    return Surfaces(depth, normal, instance, origin + finite[..., None] * direction)


def _near(layout: SceneLayout, slot: int, origin: Array, direction: Array) -> Array:
    """Return which rays pass the ball around a slot's body, bool ``[n, P]``: only those are worth an exact test."""
    half_height = np.maximum(layout.height[:, slot] / 2, layout.half_width[:, slot])
    center = np.stack([layout.place[:, slot, 0], half_height, layout.place[:, slot, 1]], axis=1)[:, None, :]
    # Squared radius of a ball around a box, the widest body.
    reach = 2 * layout.half_width[:, slot] ** 2 + half_height**2
    offset = center - origin
    along = np.einsum("npc,npc->np", offset, direction)
    squared = np.einsum("npc,npc->np", direction, direction)
    # Squared distance of the ray's line from the centre (Pythagoras).
    missed_by = np.einsum("npc,npc->np", offset, offset) - along**2 / squared
    return (missed_by <= reach[:, None]) & (layout.kind[:, slot] >= 0)[:, None]


def shade(layout: SceneLayout, seen: Surfaces, style: SceneStyle, generator: np.random.Generator) -> Array:
    """Return colours uint8 ``[n, P, 3]``: diffuse light with shadows, a texture, and the sensor's noise."""
    light = layout.light[:, None, :].astype(np.float32)
    facing = np.maximum((seen.normal * light).sum(axis=-1), 0.0)
    # A little off the surface, or rounding would let it shade itself.
    lifted = seen.point + 2e-3 * seen.normal
    lit = np.isinf(cast_rays(layout, lifted, light, bodies_only=True).depth)
    brightness = style.ambient + (1.0 - style.ambient) * facing * lit
    reflectance = np.take_along_axis(layout.colour, seen.instance[..., None], axis=1)
    scale = np.take_along_axis(layout.texture_scale, seen.instance, axis=1)
    dark = _pattern(style.texture, seen.point * scale[..., None])
    colour = reflectance * (1.0 - style.contrast * dark)[..., None] * brightness[..., None]
    colour = colour * (style.exposure * np.asarray(style.tint, dtype=np.float32))
    colour = colour + style.noise * generator.standard_normal(colour.shape, dtype=np.float32)
    # 0.5 rounds where the conversion cuts.
    return (np.clip(colour, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _pattern(texture: str, point: Array) -> Array:
    """Return where a solid texture is dark, float32 0 or 1, from places in units of the texture's period."""
    x, y, z = point[..., 0], point[..., 1], point[..., 2]
    if texture == "checker":
        # 0.01: the floor lies exactly on a border of the pattern, where rounding would make noise.
        return ((np.floor(2 * x) + np.floor(2 * y + 0.01) + np.floor(2 * z)) % 2).astype(np.float32)
    if texture == "stripes":
        return (np.sin(6.0 * (x + y + 0.3 * z)) > 0).astype(np.float32)
    if texture == "dots":
        return (np.sin(7.0 * x) * np.sin(7.0 * (y + z)) > 0.35).astype(np.float32)
    return np.zeros_like(x)


def render(layout: SceneLayout, styles: Array, size: int, generator: np.random.Generator) -> dict[str, Array]:
    """Return pictures and dense labels of ``N`` scenes.

    Args:
        layout: The scenes.
        styles: Name of each scene's style, ``[N]``.
        size: Height and width in pixels.
        generator: Draws the sensor's noise.

    Returns:
        ``image`` uint8 ``[N, size, size, 3]``, ``semantic`` int64 and ``instance`` int64 ``[N, size, size]``, ``depth`` float32
        ``[N, 1, size, size]`` (world units along the camera's axis) and ``normals`` float32 ``[N, 3, size, size]`` (camera
        frame: right, up, towards the viewer).
    """
    parts: dict[str, list[Array]] = {name: [] for name in ("image", "semantic", "instance", "depth", "normals")}
    for start in range(0, len(layout), CHUNK):
        chunk, names = layout.part(slice(start, start + CHUNK)), styles[start : start + CHUNK]
        place, rays, axes = _camera(chunk, size)
        seen = cast_rays(chunk, place, rays)
        image = np.zeros(seen.normal.shape, dtype=np.uint8)
        # Scenes of one style at a time; the order of names is part of what the seed means.
        for name in np.unique(names):
            rows = names == name
            some = Surfaces(*(getattr(seen, field)[rows] for field in Surfaces.__slots__))
            image[rows] = shade(_select(chunk, rows), some, STYLES[str(name)], generator)
        # Floor 0, wall 1, then kinds; an empty slot has -1 + 2 and is seen by no pixel.
        classes = np.concatenate([np.broadcast_to([0, 1], (len(chunk), 2)), chunk.kind + 2], axis=1)
        in_camera = np.einsum("npc,nac->nap", seen.normal, axes)
        # The camera looks along z; normals point towards the viewer.
        in_camera[:, 2] *= -1.0
        square = (len(chunk), size, size)
        parts["image"].append(image.reshape(*square, 3))
        parts["semantic"].append(np.take_along_axis(classes, seen.instance, axis=1).reshape(square))
        parts["instance"].append(seen.instance.reshape(square))
        parts["depth"].append(seen.depth.reshape(len(chunk), 1, size, size))
        parts["normals"].append(in_camera.reshape(len(chunk), 3, size, size).astype(np.float32))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _select(layout: SceneLayout, rows: Array) -> SceneLayout:
    return SceneLayout(*(getattr(layout, name)[rows] for name in SceneLayout.__slots__))
