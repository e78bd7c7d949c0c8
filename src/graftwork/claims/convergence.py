"""Whether arms had learned what they could when they were measured: curves of every arm, and a warning where one still rises.

An arm that is cut off early is compared for its speed and not for what the claim is about. So evidence keeps a curve of every arm:
its validation score where one is recorded (plans do, and arms with :meth:`~graftwork.claims.arm_context.ArmContext.watch`), and the
training loss of all that count their steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

__all__ = ["STILL", "TRAINING_CURVE", "Curve", "Points", "convergence_record", "curve_of", "still_improving", "thinned"]

TRAINING_CURVE = "training loss"
"""Name of the curve that every counted training leaves."""
STILL = 0.05
"""A curve still improves if its last quarter gains more than this share of all that was gained over the one before."""
_MOST_POINTS = 12

Points: TypeAlias = Sequence[tuple[int, float]]
"""``(step, value)``, in order of the steps."""
Curve: TypeAlias = Mapping[str, Any]
"""``{"larger_is_better": bool, "points": [[step, value], ...]}``, as JSON keeps it."""


def curve_of(points: Points, *, larger_is_better: bool) -> dict[str, Any]:
    """Return a curve for the evidence: values that are finite, at most a dozen, to six digits."""
    kept = thinned([(step, value) for step, value in points if math.isfinite(value)], _MOST_POINTS)
    return {"larger_is_better": larger_is_better, "points": [[step, float(f"{value:.6g}")] for step, value in kept]}


def thinned(points: Points, most: int) -> list[tuple[int, float]]:
    """Return at most ``most`` points: means over neighbours, each at the last of their steps."""
    if len(points) <= most:
        return list(points)
    parts = np.array_split(np.arange(len(points)), most)
    return [(points[int(part[-1])][0], float(np.mean([points[int(place)][1] for place in part]))) for part in parts]


def still_improving(points: Points, *, larger_is_better: bool) -> bool:
    """Return whether a curve was still on its way when it ended; fewer than four points do not tell.

    Example:
        >>> still_improving([(step, float(step)) for step in range(8)], larger_is_better=True)
        True
        >>> still_improving([(step, 2.0 ** -(2 * step)) for step in range(8)], larger_is_better=False)
        False
    """
    values = np.array([value for _, value in points], dtype=np.float64) * (1.0 if larger_is_better else -1.0)
    if len(values) < 4:
        return False
    size = len(values) // 4
    last, before = float(values[-size:].mean()), float(values[-2 * size : -size].mean())
    gained = last - float(values[0])
    return gained > 0 and last - before > STILL * gained


def convergence_record(curves: Mapping[int, Mapping[str, Mapping[str, Curve]]]) -> dict[str, Any]:
    """Return what evidence keeps of the curves.

    Args:
        curves: ``{seed: {arm: {measure: curve}}}``.

    Returns:
        ``arms``: ``{arm: {measure: {larger_is_better, points, still_improving}}}`` with the mean curve over seeds (that of the first
        seed where steps differ) and the seeds in which it still improved; ``warnings``: a sentence for every arm that did so in more
        than half of its seeds, by its validation where there is one.
    """
    arms: dict[str, dict[str, Any]] = {}
    for seed, by_arm in curves.items():
        for arm, by_measure in by_arm.items():
            for measure, curve in by_measure.items():
                if curve["points"]:
                    arms.setdefault(arm, {}).setdefault(measure, {})[seed] = curve
    kept = {arm: {measure: _over_seeds(by_seed) for measure, by_seed in found.items()} for arm, found in arms.items()}
    return {"arms": kept, "warnings": [warning for arm, found in kept.items() for warning in _warnings(arm, found, len(curves))]}


def _over_seeds(by_seed: Mapping[int, Curve]) -> dict[str, Any]:
    first = next(iter(by_seed.values()))
    larger = bool(first["larger_is_better"])
    steps = [step for step, _ in first["points"]]
    alike = [curve["points"] for curve in by_seed.values() if [step for step, _ in curve["points"]] == steps]
    mean = np.mean([[value for _, value in points] for points in alike], axis=0) if len(alike) == len(by_seed) else None
    points = first["points"] if mean is None else list(zip(steps, mean.tolist(), strict=True))
    still = [seed for seed, curve in by_seed.items() if still_improving(curve["points"], larger_is_better=larger)]
    return {**curve_of(points, larger_is_better=larger), "still_improving": still}


def _warnings(arm: str, found: Mapping[str, Mapping[str, Any]], seeds: int) -> list[str]:
    # The training loss falls for as long as a network can learn by heart: it speaks where nothing else does.
    measures = [measure for measure in found if measure != TRAINING_CURVE] or list(found)
    lines = []
    for measure in measures:
        still = found[measure]["still_improving"]
        if 2 * len(still) > seeds:
            verb = "rising" if found[measure]["larger_is_better"] else "falling"
            lines.append(f"arm {arm!r}: {measure} still {verb} at the end in {len(still)} of {seeds} seeds")
    return lines
