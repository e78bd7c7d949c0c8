"""Where rays meet spheres, boxes, cylinders and cones that stand on a floor. NumPy, any number of rays and bodies at once.

Every function works in the body's own frame: the origin is the middle of its footprint, ``y`` points up. Arrays broadcast over
leading dimensions; the last one holds ``x, y, z``. Distances are multiples of the given direction, infinite where a ray misses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BODIES", "hit_box", "hit_cone", "hit_cylinder", "hit_sphere", "rotate_y"]

Array = NDArray[Any]
EPSILON = 1e-4
"""Hits nearer than this are the surface that a ray starts from."""


def rotate_y(vectors: Array, angle: Array) -> Array:
    """Return vectors ``[..., 3]`` turned about the vertical axis by ``angle`` (radians, broadcast over all but the last
    dimension)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack(np.broadcast_arrays(cosine * x + sine * z, y, cosine * z - sine * x), axis=-1)


def hit_sphere(origin: Array, direction: Array, half_width: Array, height: Array) -> tuple[Array, Array]:
    """Return distances and outward normals for a ball of radius ``half_width`` that rests on the floor; ``height`` is not
    used."""
    center = np.zeros((*np.shape(half_width), 3), dtype=origin.dtype)
    center[..., 1] = half_width
    offset = origin - center
    squared = (direction**2).sum(axis=-1)
    middle = (offset * direction).sum(axis=-1)
    rest = (offset**2).sum(axis=-1) - half_width**2
    distance = _nearest_root(squared, middle, rest)[0]
    normal = offset + _finite(distance)[..., None] * direction
    return distance, normal / np.maximum(half_width, EPSILON)[..., None]


def hit_box(origin: Array, direction: Array, half_width: Array, height: Array) -> tuple[Array, Array]:
    """Return distances and outward normals for a box with a square footprint (slab method)."""
    zero = np.zeros_like(height)
    low = np.stack([-half_width, zero, -half_width], axis=-1)
    high = np.stack([half_width, height, half_width], axis=-1)
    # A direction of 0 gives a huge, finite distance instead of 0 / 0.
    safe = np.where(np.abs(direction) < 1e-9, np.float32(1e-9), direction)
    first, second = (low - origin) / safe, (high - origin) / safe
    # A ray is inside the box while it is between all three pairs of planes.
    enter, leave = np.minimum(first, second), np.maximum(first, second)
    near = enter.max(axis=-1)
    hit = (near < leave.min(axis=-1)) & (near > EPSILON)
    # The plane entered last is the one that is hit.
    axis = enter.argmax(axis=-1)
    sides = np.broadcast_to(-np.sign(safe), enter.shape)
    normal = np.where(np.arange(3) == axis[..., None], sides, 0.0).astype(enter.dtype)
    return np.where(hit, near, np.inf), normal


def hit_cylinder(origin: Array, direction: Array, half_width: Array, height: Array) -> tuple[Array, Array]:
    """Return distances and outward normals for an upright cylinder with a lid."""
    flat_direction, flat_origin = direction[..., 0::2], origin[..., 0::2]
    # The circle of the footprint, without the vertical component.
    roots = _nearest_root(
        (flat_direction**2).sum(axis=-1),
        (flat_direction * flat_origin).sum(axis=-1),
        (flat_origin**2).sum(axis=-1) - half_width**2,
    )
    side = np.full_like(roots[0], np.inf)
    # The nearer root last, so that it wins where both are on the side.
    for root in reversed(roots):
        level = origin[..., 1] + _finite(root) * direction[..., 1]
        side = np.where(np.isfinite(root) & (level >= 0) & (level <= height), root, side)
    down = np.where(np.abs(direction[..., 1]) < 1e-9, np.float32(1e-9), direction[..., 1])
    top = (height - origin[..., 1]) / down
    reach = flat_origin + top[..., None] * flat_direction
    top = np.where((top > EPSILON) & ((reach**2).sum(axis=-1) <= half_width**2), top, np.inf)
    distance = np.minimum(side, top)
    point = origin + _finite(distance)[..., None] * direction
    outward = point * np.array([1, 0, 1], dtype=point.dtype) / np.maximum(half_width, EPSILON)[..., None]
    return distance, np.where((top < side)[..., None], np.array([0, 1, 0], dtype=point.dtype), outward)


def hit_cone(origin: Array, direction: Array, half_width: Array, height: Array) -> tuple[Array, Array]:
    """Return distances and outward normals for an upright cone with its point at ``height``."""
    slope = (half_width / np.maximum(height, EPSILON)) ** 2
    below = height - origin[..., 1]
    flat_direction, flat_origin = direction[..., 0::2], origin[..., 0::2]
    roots = _nearest_root(
        (flat_direction**2).sum(axis=-1) - slope * direction[..., 1] ** 2,
        (flat_direction * flat_origin).sum(axis=-1) + slope * below * direction[..., 1],
        (flat_origin**2).sum(axis=-1) - slope * below**2,
    )
    # The equation also describes a second cone above the point, which the height rules out.
    distance = np.full_like(roots[0], np.inf)
    for root in roots:
        level = origin[..., 1] + _finite(root) * direction[..., 1]
        inside = np.isfinite(root) & (level >= 0) & (level <= height)
        distance = np.where(inside & (root < distance), root, distance)
    point = origin + _finite(distance)[..., None] * direction
    # The gradient of x^2 + z^2 - slope (height - y)^2.
    upward = slope * (height - point[..., 1])
    normal = np.stack([point[..., 0], upward, point[..., 2]], axis=-1)
    return distance, normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), EPSILON)


BODIES: dict[str, Callable[[Array, Array, Array, Array], tuple[Array, Array]]] = {
    "sphere": hit_sphere,
    "box": hit_box,
    "cylinder": hit_cylinder,
    "cone": hit_cone,
}
"""Bodies by name: ``hit(origin, direction, half_width, height) -> (distance, normal)``."""


def _nearest_root(squared: Array, middle: Array, rest: Array) -> tuple[Array, Array]:
    """Return both solutions of ``squared t^2 + 2 middle t + rest = 0`` that lie ahead, infinite otherwise; the smaller one
    first."""
    inside = middle**2 - squared * rest
    square_root = np.sqrt(np.maximum(inside, 0.0))
    safe = np.where(np.abs(squared) < 1e-9, np.float32(1e-9), squared)
    # `squared` can be negative for a cone, so the roots are put in order below.
    one, two = (-middle - square_root) / safe, (-middle + square_root) / safe
    first, second = np.minimum(one, two), np.maximum(one, two)
    # A ray that just touches does not hit.
    hit = inside > 0
    return tuple(np.where(hit & (root > EPSILON), root, np.inf) for root in (first, second))  # type: ignore[return-value]


def _finite(distance: Array) -> Array:
    return np.where(np.isfinite(distance), distance, 0.0).astype(distance.dtype)
