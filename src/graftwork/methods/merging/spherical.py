"""Merging on the sphere: weights as directions and lengths, so that the mean of two models is not shorter than they are.

SLERP: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, section 3.3. NuSLERP interpolates what two models
changed of their base, or rows of a tensor each on its own. Karcher mean: Karcher, "Riemannian center of mass and mollifier
smoothing", 1977, here of the directions of whole tensors, with the mean of their lengths. Forms and names are those of mergekit;
angles are computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.task_arithmetic import check_weights

__all__ = ["KarcherMerger", "NuSlerpMerger", "SlerpMerger", "slerp"]

Array = NDArray[Any]
_SMALL = 1e-8


def slerp(t: float, first: Array, second: Array, *, axis: int | None = None, straight: float = 0.9995) -> Array:
    """Return the point at ``t`` on the arc from ``first`` to ``second``; lengths are interpolated with the directions.

    Args:
        t: 0 gives the first, 1 the second.
        first: Float32 or wider, any shape.
        second: Like the first.
        axis: Vectors along this axis are turned each on its own; None takes the whole tensor as one vector.
        straight: Magnitude of the cosine from which on the line is taken in place of the arc.

    Example:
        >>> slerp(0.5, np.array([1.0, 0.0]), np.array([0.0, 1.0])).round(4).tolist()
        [0.7071, 0.7071]
    """
    is_whole = axis is None or first.ndim == 0
    a, b = (np.asarray(side).reshape(-1) if is_whole else np.asarray(side) for side in (first, second))
    along = 0 if is_whole else axis
    norms = [np.sqrt(np.sum(np.square(side, dtype=np.float64), axis=along, keepdims=True)) for side in (a, b)]
    lengths = [np.where(norm > _SMALL, norm, 1.0) for norm in norms]
    # Before the product: the dot product of the raw vectors may overflow.
    cosine = np.clip(np.sum((a / lengths[0]) * (b / lengths[1]), axis=along, keepdims=True), -1.0, 1.0)
    is_straight = np.abs(cosine) > straight
    angle = np.arccos(np.where(is_straight, 0.0, cosine))
    start = np.where(is_straight, 1.0 - t, np.sin((1.0 - t) * angle) / np.sin(angle))
    end = np.where(is_straight, t, np.sin(t * angle) / np.sin(angle))
    return np.asarray(start * a + end * b, np.result_type(a.dtype, b.dtype, np.float32)).reshape(first.shape)


class SlerpMerger(Merger):
    """Spherical interpolation between two models, or between the base and one model; tensor by tensor.

    Args:
        t: Where on the arc, in [0, 1]: 0 is the base (or the first of two models), 1 the other one.

    Raises:
        ConfigError: If ``t`` is out of range.
    """

    num_models: ClassVar[tuple[int, int | None]] = (1, 2)
    needs_base: ClassVar[bool] = False

    def __init__(self, *, t: float = 0.5) -> None:
        if not 0.0 <= t <= 1.0:
            raise ConfigError(f"`t` must be from 0 (the first model) to 1 (the second one); got {t!r}.")
        self.t = t

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the point on the arc, float32 at least."""
        first, second = (base, experts[0]) if len(experts) == 1 else experts
        return slerp(self.t, np.asarray(first), np.asarray(second))

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "slerp", "t": self.t}


class NuSlerpMerger(Merger):
    """Spherical interpolation between two models with weights: of what they changed, where a base is given, else of themselves.

    Args:
        weights: Weight of each of the two, not negative and not both 0; None weighs them equally.
        vectors: What is turned as one vector: the whole ``"tensor"``, every vector along the ``"last"`` dimension (rows of a
            linear layer), or along the ``"first"`` one (its columns).

    Raises:
        ConfigError: If weights are out of range.
    """

    num_models: ClassVar[tuple[int, int | None]] = (2, 2)
    needs_base: ClassVar[bool] = False

    def __init__(self, *, weights: Sequence[float] | None = None, vectors: Literal["tensor", "last", "first"] = "tensor") -> None:
        check_weights(weights, None if weights is None else 2)
        if weights is not None and (min(weights) < 0 or sum(weights) <= 0):
            raise ConfigError(f"`weights` must be at least 0 and not both 0; got {tuple(weights)!r}.")
        self.weights = None if weights is None else tuple(weights)
        self.vectors = vectors

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the point on the arc, float32 at least."""
        weights = self.weights or (1.0, 1.0)
        t = weights[1] / sum(weights)
        axis = {"tensor": None, "last": -1, "first": 0}[self.vectors]
        dtype = np.result_type(base.dtype, *(expert.dtype for expert in experts), np.float32)
        sides = [np.asarray(expert, dtype) for expert in experts]
        start = np.asarray(base, dtype)
        if self.has_base:
            sides = [side - start for side in sides]
        merged = slerp(t, sides[0], sides[1], axis=axis, straight=1.0 - 1e-12)
        return np.asarray(start + merged if self.has_base else merged, dtype)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "nuslerp", "weights": self.weights, "vectors": self.vectors}


class KarcherMerger(Merger):
    """The point on the sphere with the least sum of squared angles to the models' directions, with their mean length.

    Args:
        weights: Weight of each model, above 0; None weighs all equally.
        max_iter: Most steps towards it, at least 1.
        tol: Length of a step (in radians) below which it is there; above 0.

    Raises:
        ConfigError: If a number is out of range.
    """

    needs_base: ClassVar[bool] = False

    def __init__(self, *, weights: Sequence[float] | None = None, max_iter: int = 10, tol: float = 1e-5) -> None:
        check_weights(weights)
        if weights is not None and min(weights, default=1.0) <= 0:
            raise ConfigError(
                f"`weights` must be above 0; got {tuple(weights)!r}. Leave a model out instead of weighing it by 0."
            )
        if max_iter < 1 or not 0.0 < tol < math.inf:
            raise ConfigError(f"`max_iter` must be at least 1 and `tol` above 0; got {max_iter!r} and {tol!r}.")
        self.weights = None if weights is None else tuple(weights)
        self.max_iter, self.tol = max_iter, tol

    def merge_tensor(self, name: str, base: Array, experts: Sequence[Array]) -> Array:
        """Return the mean, float32 at least."""
        check_weights(self.weights, len(experts))
        dtype = np.result_type(*(expert.dtype for expert in experts), np.float32)
        if len(experts) == 1:
            return np.array(experts[0], dtype)
        weights = np.asarray(self.weights or (1.0,) * len(experts)) / sum(self.weights or (1.0,) * len(experts))
        flat = [np.asarray(expert, np.float64).reshape(-1) for expert in experts]
        norms = np.array([np.linalg.norm(item) for item in flat])
        used = np.flatnonzero(norms > self.tol)
        if not used.size:
            # No direction to speak of: the plain mean of what is nearly zero.
            return np.asarray(sum(w * item for w, item in zip(weights, flat, strict=True)), dtype).reshape(experts[0].shape)
        shares = weights[used] / weights[used].sum()
        mean = self._direction([flat[index] / norms[index] for index in used], shares)
        return np.asarray(float(weights @ norms) * mean, dtype).reshape(experts[0].shape)

    def _direction(self, units: Sequence[Array], shares: Array) -> Array:
        mean: Array = sum(share * unit for share, unit in zip(shares, units, strict=True))  # type: ignore[assignment]
        length = float(np.linalg.norm(mean))
        # Opposite directions have no mean to start from.
        mean = units[0].copy() if length < self.tol else mean / length
        for _ in range(self.max_iter):
            step = np.zeros_like(mean)
            for share, unit in zip(shares, units, strict=True):
                cosine = float(np.clip(mean @ unit, -1.0, 1.0))
                angle = math.acos(cosine)
                if angle >= self.tol:
                    step += share * (angle / math.sin(angle)) * (unit - cosine * mean)
            length = float(np.linalg.norm(step))
            if length < self.tol:
                break
            mean = math.cos(length) * mean + math.sin(length) * (step / length)
            mean /= np.linalg.norm(mean)
        return mean

    def settings(self) -> Mapping[str, Any]:
        """Return the settings."""
        return {"method": "karcher", "weights": self.weights, "max_iter": self.max_iter, "tol": self.tol}
