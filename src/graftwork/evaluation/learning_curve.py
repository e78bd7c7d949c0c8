"""What more rows would bring: errors of one plan on growing parts of its training rows, and a power law through them.

The error of ``n`` rows is taken as ``a + b * n ** -c`` with ``a`` and ``b`` not below 0 (Hestness et al., "Deep Learning Scaling is
Predictable, Empirically", 2017; Viering and Loog, "The Shape of Learning Curves: a Review", TPAMI 2022, also on where such laws fail).
It is used for twice the rows and no further.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.evaluation.bootstrap import Resampler, percentile_interval, resample
from graftwork.evaluation.calibration import rounded
from graftwork.evaluation.metrics import default_metric, find_metric, prepare_metric
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric

__all__ = ["TOO_WIDE", "curve_sentence", "fit_power_law", "learning_curve"]

NUM_RESAMPLES = 400
TOO_WIDE = 15.0
"""Percentage points of an interval from which on nothing is said."""
LAW_ERROR = 1.5
"""Percentage points by which ends of intervals are moved outwards: no curve follows a law exactly."""
LEAST_GAIN, LITTLE = 0.5, 4.0
"""Percent: an interval above the one is a gain, one below the other is little."""
LEAST_STRAY = 0.01
"""Share of the error by which a training strays at least from one on other rows of the same number."""
FEW_POINTS = 1.5
"""The spread around a curve is known from four points only: it is taken so many times as large."""
_POWERS, _STRAIGHT = np.linspace(0.1, 1.5, 29), np.linspace(0.0, 1.5, 61)


def fit_power_law(
    sizes: Sequence[float],
    errors: Floats,
    *,
    spread: float = 0.0,
    floor: bool = True,
    generator: np.random.Generator | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Return ``a``, ``b`` and ``c`` of ``a + b * (n / n_last) ** -c`` for each row of errors.

    Args:
        sizes: Rows ``[S]``, rising.
        errors: ``[D, S]``, at least 0.
        spread: Share of the error by which single errors stray.
        floor: Whether ``a`` may be above 0.
        generator: If given, ``c`` is drawn by how well each value explains the errors with this spread, all values being alike before;
            else it is the one with the least squares.

    Returns:
        Three arrays ``[D]``; ``a`` and ``b`` are at least 0, ``c`` is between 0.1 and 1.5, from 0 without a floor.
    """
    share = np.asarray(sizes, dtype=np.float64) / float(sizes[-1])
    laws, losses = [], []
    powers = _POWERS if floor else _STRAIGHT  # without a floor, a flat curve is one of power 0
    for power in powers:
        x = share**-power
        centred = x - x.mean()
        b = np.maximum((errors - errors.mean(axis=1, keepdims=True)) @ centred / max(float(centred @ centred), 1e-300), 0.0)
        a = errors.mean(axis=1) - b * x.mean()
        # Below 0 the best line through the origin is taken.
        through = a < 0 if floor else np.ones(len(a), dtype=bool)
        b = np.where(through, errors @ x / (x @ x), b)
        a = np.where(through, 0.0, a)
        laws.append((a, b))
        losses.append(np.square(errors - a[:, None] - b[:, None] * x).sum(axis=1))
    loss = np.stack(losses)
    if generator is not None:
        scale = np.maximum(2.0 * np.square(spread * errors.mean(axis=1)), 1e-300)
        # The largest of these is a draw by the weights exp(-loss / scale).
        loss = loss / scale - generator.gumbel(size=loss.shape)
    place = loss.argmin(axis=0)
    rows = np.arange(len(errors))
    found = np.array(laws)
    return found[place, 0, rows], found[place, 1, rows], powers[place]


def learning_curve(
    tasks: Sequence[TaskSpec],
    targets: Mapping[str, Array],
    sizes: Sequence[int],
    answers: Sequence[Sequence[Mapping[str, Array]]],
    *,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    is_late: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Return how scores grow with the training rows, and what twice as many would bring.

    Intervals are over rows (or groups) and trainings; what the points stray from the curve counts as well, since a training on other
    rows of the same number would stray so.

    Args:
        tasks: The tasks.
        targets: Truth of ``N`` rows, ``{task: [N, ...]}``.
        sizes: Training rows ``[S]``, rising, at least three.
        answers: For each size the answers of its trainings for these rows, equally many for each.
        groups: Group of each row; whole groups are resampled.
        seed: Seed of the resamples.
        is_late: Asked often; from then on tasks are left out.

    Returns:
        ``sizes``; ``tasks``, ``{task: ...}`` with ``metric``, ``points`` (``rows``, ``value``, ``low``, ``high``: 95 % over test rows and
        trainings), ``curve`` (``rows``, ``value``, ``low``, ``high`` along the law, up to twice the rows) and ``twice``: by how many
        percent the error becomes smaller with twice the rows, ``value`` (median), ``low``, ``high``; ``twice``: the same as a mean over tasks;
        ``says``: ``gain``, ``little``, or ``""`` where the interval is too wide for a word. Tasks whose metric has no best value, or is
        undefined on these rows, are left out.
    """
    number = len(next(iter(targets.values())))
    resampler = Resampler(number, groups=groups, num_resamples=NUM_RESAMPLES, seed=seed)
    generator = np.random.default_rng([seed, 2])
    picked = generator.integers(len(answers[0]), size=(NUM_RESAMPLES, len(answers[0])))
    found: dict[str, Any] = {}
    gains: list[Floats] = []
    for task in tasks:
        metric = find_metric(default_metric(task))
        best = metric.high if metric.higher_is_better else metric.low
        if not np.isfinite(best):
            continue
        evaluators = [[prepare_metric(task, targets[task.name], one[task.name]) for one in row] for row in answers]
        made = _task_curve(metric, float(best), evaluators, sizes, resampler, picked, generator, is_late)
        if made is not None:
            found[task.name], draws = made
            gains.append(draws)
    if not gains:
        return {"sizes": list(sizes), "tasks": {}, "twice": None, "says": ""}
    mean = np.mean(gains, axis=0)
    twice = _interval(mean)
    return {"sizes": list(sizes), "tasks": found, "twice": twice, "says": _says(twice)}


def _says(twice: Mapping[str, float]) -> str:
    low, high = twice["low"], twice["high"]
    if not np.isfinite([low, high]).all() or high - low > TOO_WIDE:
        return ""
    return "gain" if low > LEAST_GAIN else "little" if high < LITTLE else ""


def _task_curve(
    metric: Metric,
    best: float,
    evaluators: Sequence[Sequence[Evaluator]],
    sizes: Sequence[int],
    resampler: Resampler,
    picked: NDArray[np.int64],
    generator: np.random.Generator,
    is_late: Callable[[], bool],
) -> tuple[dict[str, Any], Floats] | None:
    """Return what is said of a task, and draws of its gain with twice the rows in percent."""
    once = np.ones((1, resampler.num_rows))
    values = np.array([np.mean([one(once)[0] for one in row]) for row in evaluators])
    found: list[Floats] = []
    for one in (one for row in evaluators for one in row):
        # Areas under curves of many labels take seconds.
        if is_late():
            return None
        found.append(resample([resampler.adapt(one)], resampler)[0])
    draws = np.stack(found).reshape(len(sizes), -1, resampler.num_resamples)
    # The same trainings of every size.
    draws = np.take_along_axis(draws, picked.T[None], axis=1).mean(axis=1).T
    known = np.isfinite(draws).all(axis=1)
    if not np.isfinite(values).all() or known.mean() < 0.9:
        return None
    draws = np.where(known[:, None], draws, values)
    sign = -1.0 if metric.higher_is_better else 1.0
    errors, drawn = sign * (values - best), np.maximum(sign * (draws - best), 0.0)
    law = fit_power_law(sizes, errors[None])
    # Relative, and with a floor: few points lie near a curve of three parameters by chance.
    strays = (errors / np.maximum(_along(law, np.asarray(sizes), sizes[-1])[0], 1e-300) - 1.0) if errors.any() else np.zeros(1)
    strayed = float(np.sqrt(np.square(strays).sum() / max(len(sizes) - 3, 1)))
    spread = FEW_POINTS * max(strayed, LEAST_STRAY / np.sqrt(picked.shape[1]))
    noisy = np.maximum(drawn * (1.0 + spread * generator.standard_normal(drawn.shape)), 0.0)
    laws = fit_power_law(sizes, noisy, spread=spread, generator=generator)
    rows = np.unique(np.round(np.geomspace(sizes[0], 2 * sizes[-1], 13)).astype(np.int64))
    curve, curves = _along(law, rows, sizes[-1])[0], _along(laws, rows, sizes[-1])
    ends = np.array([sizes[-1], 2 * sizes[-1]])
    gains = _gain(_along(laws, ends, sizes[-1]))
    # A law without a floor promises the most, and few points cannot refute it: half of the draws are its.
    straight = fit_power_law(sizes, noisy, floor=False)
    gains = np.where(np.arange(len(gains)) % 2 == 0, gains, _gain(_along(straight, ends, sizes[-1])))
    # Not that of the best law: few points choose it, and it may stand at the edge of all that explain them.
    twice = _interval(gains)
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    shown = [best + sign * one for one in (curve, low, high)]
    shown[1], shown[2] = np.minimum(shown[1], shown[2]), np.maximum(shown[1], shown[2])
    points = np.quantile(draws, [0.025, 0.975], axis=0)
    made = {
        "metric": metric.name,
        "points": [
            {"rows": int(size), "value": rounded(float(value)), "low": rounded(float(a)), "high": rounded(float(b))}
            for size, value, a, b in zip(sizes, values, *points, strict=True)
        ],
        "curve": {
            "rows": rows.tolist(),
            **{key: [rounded(float(one)) for one in part] for key, part in zip(("value", "low", "high"), shown, strict=True)},
        },
        "twice": twice,
    }
    return made, gains


def _interval(gains: Floats) -> dict[str, float]:
    found = percentile_interval(float(np.median(gains)), gains)
    # Twice the rows never make an error larger by the law, and none is above all of it.
    low, high = max(found.low - LAW_ERROR, 0.0), min(found.high + LAW_ERROR, 100.0)
    return {"value": rounded(found.value), "low": rounded(low), "high": rounded(high)}


def _along(law: tuple[Floats, Floats, Floats], rows: NDArray[np.int64], last: int) -> Floats:
    """Return errors of the law ``[D, len(rows)]``."""
    a, b, c = (part[:, None] for part in law)
    found: Floats = a + b * (rows / last) ** -c
    return found


def _gain(errors: Floats) -> Floats:
    """Return by how many percent the second column is below the first; 0 where there is no error."""
    first = np.maximum(errors[:, 0], 1e-300)
    return np.where(errors[:, 0] > 0, 100.0 * (1.0 - errors[:, 1] / first), 0.0)


def curve_sentence(curve: Mapping[str, Any], plan: str, *, grouped: bool = False) -> str:
    """Return what more rows would bring in a sentence; empty where the interval is too wide for one.

    Args:
        curve: From :func:`learning_curve`.
        plan: Name of the plan.
        grouped: Whether the rows are those of groups, which were left out as a whole.
    """
    twice, sizes, number = curve.get("twice") or {}, curve["sizes"], len(curve["tasks"])
    if not curve["says"]:
        return ""
    rows = "rows, of new groups" if grouped else "rows like these"
    error = "the error" if number == 1 else f"the errors of {number} tasks together"
    source = f"the learning curve of `{plan}` from {sizes[0]:,} to {sizes[-1]:,} training rows"
    if curve["says"] == "gain":
        return (
            f"With twice as many {rows}, {error} would probably fall by about {_percent(twice['value'])} % (95 % interval "
            f"{_percent(twice['low'])} to {_percent(twice['high'])} %), by {source}."
        )
    return f"Twice as many {rows} would probably bring little: {error} would fall by less than {LITTLE:.0f} %, by {source}."


def _percent(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 10 else f"{value:.0f}"
