"""Advertising creatives and the day on which they were stopped: a table row with a text and a picture, two causes of stopping.

A creative is stopped by whichever comes first: a cut-out in its first days, because it does not work, or a wear-out weeks later,
because people have seen enough of it. Both log-hazards are sums over the same eight hidden factors with weights of their own,
some of opposite sign: what sells at once tires soon. The hazard of a cut-out falls (``exp(-t / 5)`` over days), that of a wear-out
rises (``t^2``), and they overlap around day 10. Creatives that were still running when the log ended are censored.

No input shows a factor as it is: pictures have noise, random places and colours of the ground; a text is eight words drawn from
probabilities; numbers are measured with noise; categories have effects that nothing says. Every input tells something about both
causes.

Creatives that are clicked much are stopped for other reasons than the rest (``shift``): their weights of the factors differ. The
click rate is that of a trial run before the first day that counts, so it says nothing about how long the creative ran.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.encoders.text import TextEncoder
from graftwork.data.suite import Suite
from graftwork.data.suites.creative_faces import FACE_SIZE, draw_faces

__all__ = ["EDGES", "FACTORS", "THRESHOLD", "creatives"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

THRESHOLD = 10.0
"""Day after which a stop counts as long-term."""
EDGES = (*map(float, range(1, 11)), *map(float, range(15, 65, 5)))
"""Ends of the 20 intervals in days."""
FACTORS = ("mood", "warmth", "urgency", "thrift", "quality", "novelty", "taste", "reach")
"""Hidden factors: two of the picture, two of the text, three of the numbers and categories (``taste`` is the genre's), and one of
the numbers."""
_EARLY = (0.5, -1.3, -1.0, 1.0, -0.8, 0.3, -0.8, 0.5)
_LATE = (0.5, 1.0, 1.0, 0.8, 0.5, -1.0, 0.7, 0.5)
_EARLY_OF_POPULAR = (0.5, 0.3, 1.0, -1.3, -0.8, -1.0, 0.5, 0.5)
_LATE_OF_POPULAR = (0.5, -1.0, 0.5, 1.0, 0.5, 0.5, -1.0, 0.8)
"""Weights of the factors in the log-hazards of cut-out and wear-out, in the order of :data:`FACTORS`."""
_DECAY, _WEAR, _SHAPE = 5.0, 38.0, 3.0
_WORDS = {
    ("urgency", 1): "now today hurry last final quick instant tonight",
    ("urgency", -1): "anytime relax gentle slow steady calm easy forever",
    ("thrift", 1): "save cheap sale discount bargain half coupon deal",
    ("thrift", -1): "luxury premium finest golden exclusive royal silk noble",
}
_PLAIN = "the your our new with for shop home style game book shoes phone travel music garden"
_TEXT_LENGTH = 8
_GENRES, _AUDIENCES, _PLACES = 8, 3, 6


def creatives(
    *,
    rows: int = 10_000,
    test_rows: int = 10_000,
    censored: float = 0.25,
    shift: float = 1.0,
    noise: float = 0.5,
    terms: bool = False,
    seed: int = 0,
) -> Suite:
    """Simulated advertising creatives (columns, text and picture) and the day on which each was stopped, for two causes.

    Equal arguments give equal bits.

    Args:
        rows: Creatives for training and validation (a tenth).
        test_rows: Creatives of the test split.
        censored: Share of creatives that were still running when the log ended, in [0, 0.6].
        shift: How far the reasons of creatives with a high click rate differ from those of the others, in [0, 1].
        noise: Standard deviation of the noise on numbers that show a factor, at least 0.
        terms: Whether tasks ``short`` and ``long`` are added, to judge predictions of each term on those at risk: ``short`` looks
            at the first 10 days, later stops are censored there; ``long`` at the days after, missing for creatives that did not
            run so long.
        seed: Root of all draws.

    Returns:
        A suite with a table (6 numbers, 3 categories), a text and a picture of 16 x 16 pixels, and the survival task ``life`` in
        days. ``raw["factors"]`` holds the hidden factors; ``raw["truth"]`` the true probability of running at each of
        :data:`EDGES` (``curve``), and how much of a creative's reasons are those of the much clicked ones, in [0, 1]
        (``popular``).

    Raises:
        ConfigError: If an argument is out of range; all problems at once.
    """
    limits = {"rows": (rows, 100, 1e6), "test_rows": (test_rows, 10, 1e6), "censored": (censored, 0, 0.6)}
    limits |= {"shift": (shift, 0, 1), "noise": (noise, 0, 100)}
    problems = [
        f"{key} must be from {low} to {high:g}; got {x!r}" for key, (x, low, high) in limits.items() if not low <= x <= high
    ]
    if problems:
        raise ConfigError("The creatives cannot be drawn as asked.", problems)
    seeds, total = Seeds(seed).child("creatives"), rows + test_rows
    factors, columns, click_rate = _table(total, noise, seeds)
    popular = 1.0 / (1.0 + np.exp(-4.0 * (click_rate - 1.0)))  # in standard deviations of the log: about a sixth is
    # `shift` scales how far the reasons of the popular ones go; 0 gives everybody the usual ones.
    curve, stopped = _stops(factors, shift * popular, seeds.numpy("stops"))
    time, event = _censor(stopped, censored, seeds.numpy("log"))
    order = seeds.numpy("split").permutation(rows)
    splits = {"train": np.sort(order[rows // 10 :]), "val": np.sort(order[: rows // 10]), "test": np.arange(rows, total)}
    texts = _texts(factors, seeds.numpy("text"))
    encoders = {
        "table": TableEncoder.fit(columns, [str(name) for name in columns], rows=splits["train"]),
        # The tokenizer is trained on training rows; a word may be cut into two tokens.
        "text": TextEncoder.fit([texts[row] for row in splits["train"]], columns=["text"], max_length=2 * _TEXT_LENGTH),
        "image": ImageEncoder(FACE_SIZE, column="picture"),
    }
    pictures = draw_faces(factors["mood"], factors["warmth"], seeds.numpy("pictures"))
    arrays = {**encoders["table"].transform(columns), **encoders["text"].transform(texts), "image": pictures}
    owned = {"table": ("numeric", "categorical"), "text": ("tokens",), "image": ("image",)}
    tasks, targets = _tasks(time, event, terms)
    return Suite.of_arrays(
        name="creatives",
        input_specs={name: _named(encoder.spec(), owned[name]) for name, encoder in encoders.items()},
        tasks=tasks,
        inputs=arrays,
        targets=targets,
        splits=splits,
        raw={"preview": pictures, "text": texts, "factors": factors, "truth": {"curve": curve, "popular": popular}},
        notes=("Generated data: the right answer is known.",),
        credits={"creatives": "generated"},
    )


def _named(spec: InputSpec, arrays: tuple[str, ...]) -> InputSpec:
    return replace(spec, arrays={name: name for name in arrays})


def _table(total: int, noise: float, seeds: Seeds) -> tuple[dict[str, Floats], pd.DataFrame, Floats]:
    """Return the factors, the columns of the table, and the true click rate in standard deviations of its logarithm."""
    draw = seeds.numpy("factors")
    factors = {name: draw.normal(size=total) for name in FACTORS}
    genre, audience, place = (draw.integers(size, size=total) for size in (_GENRES, _AUDIENCES, _PLACES))
    factors["taste"] = _level_effects(_GENRES, draw)[genre]
    measured = seeds.numpy("numbers")

    def shown(name: str) -> Floats:
        return factors[name] + noise * measured.normal(size=total)

    # An audience and a place shift what is measured, so that categories say something about all factors of the numbers.
    quality = shown("quality") + 0.5 * _level_effects(_AUDIENCES, draw)[audience]
    reach = shown("reach") + 0.5 * _level_effects(_PLACES, draw)[place]
    click_rate = draw.normal(size=total)
    impressions = np.exp(8.0 + 0.6 * reach)
    rate = np.clip(0.02 * np.exp(0.8 * click_rate), 0.0, 0.5)
    clicks = measured.binomial(np.round(impressions).astype(np.int64), rate)
    columns = {
        "ctr": clicks / np.round(impressions),
        "impressions": impressions,
        "cost": np.exp(0.3 * quality + 0.2 * measured.normal(size=total)),
        "bid": 1.0 + 0.3 * shown("quality") + 0.2 * shown("reach"),
        "score": shown("novelty") - 0.5 * shown("quality"),
        "similarity": -shown("novelty"),
    }
    words = {"genre": genre, "audience": audience, "place": place}
    return (
        factors,
        pd.DataFrame({**columns, **{name: [f"{name} {level}" for level in levels] for name, levels in words.items()}}),
        click_rate,
    )


def _level_effects(levels: int, generator: np.random.Generator) -> Floats:
    """Return effects of mean 0 and variance 1, one per level, in random order."""
    ranks = generator.permutation(np.linspace(-1.0, 1.0, levels))
    return np.asarray(ranks / ranks.std())


def _stops(factors: dict[str, Floats], popular: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the true probability of running at each edge, ``[N, K]``, and the day of the stop, infinite if there were none."""
    values = np.stack([factors[name] for name in FACTORS], axis=1)
    scores = [
        (1.0 - popular) * (values @ np.array(usual)) + popular * (values @ np.array(other))
        for usual, other in ((_EARLY, _EARLY_OF_POPULAR), (_LATE, _LATE_OF_POPULAR))
    ]
    early, late = 0.07 * np.exp(scores[0]), np.exp(scores[1])
    edges = np.array(EDGES)
    # Cumulative hazards of both causes: integrals of exp(-t / decay) and of 3 t^2 / wear^3.
    total = early[:, None] * _DECAY * (1.0 - np.exp(-edges / _DECAY)) + late[:, None] * (edges / _WEAR) ** _SHAPE
    # A unit exponential is reached where the cumulative hazard equals it; both are inverted below.
    first, second = generator.exponential(size=(2, len(values)))
    # The cumulative hazard of a cut-out has a limit: whoever would need more of it is never cut out.
    used = np.minimum(first / (early * _DECAY), 1.0)
    with np.errstate(divide="ignore"):
        cut_out = -_DECAY * np.log1p(-used)
    # Whichever comes first; the curve is exp(-sum of both).
    return np.exp(-total), np.minimum(cut_out, _WEAR * (second / late) ** (1.0 / _SHAPE))


def _censor(stopped: Floats, share: float, generator: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return time and event for a log that ends at a day drawn evenly for each creative, so that ``share`` of them still run."""
    drawn = generator.uniform(size=len(stopped))
    low, high = 1.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2.0
        # The later the log ends, the fewer still run.
        low, high = (middle, high) if (drawn * middle < stopped).mean() > share else (low, middle)
    end = drawn * (np.inf if share == 0 else high)
    return np.minimum(stopped, end), stopped <= end


def _texts(factors: dict[str, Floats], generator: np.random.Generator) -> list[str]:
    """Return eight words for each creative; words of a kind are likelier the more of its factor there is."""
    kinds = list(_WORDS)
    lists = [text.split() for text in (*_WORDS.values(), _PLAIN)]
    logits = np.stack([sign * factors[name] for name, sign in kinds] + [np.full(len(factors["urgency"]), 0.7)], axis=1)
    shares = np.exp(logits)
    bounds = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
    # The number of bounds below a random number is the kind that it fell into. [N, 8]
    kind = (generator.random((len(shares), _TEXT_LENGTH, 1)) > bounds[:, None, :-1]).sum(axis=2)
    place = generator.random(kind.shape)
    return [
        " ".join(lists[k][int(p * len(lists[k]))] for k, p in zip(kinds_row, places_row, strict=True))
        for kinds_row, places_row in zip(kind.tolist(), place.tolist(), strict=True)
    ]


def _tasks(time: Floats, event: NDArray[np.bool_], terms: bool) -> tuple[list[TaskSpec], dict[str, Array]]:
    def target(days: Floats, came: NDArray[np.bool_]) -> Array:
        return np.stack([days, came], axis=1).astype(np.float32)

    def task(name: str, edges: list[float]) -> TaskSpec:
        return TaskSpec(name=name, kind="survival", size=len(edges), columns=("days", "stopped"), details={"edges": edges})

    early = [edge for edge in EDGES if edge <= THRESHOLD]
    tasks, targets = [task("life", list(EDGES))], {"life": target(time, event)}
    if terms:
        tasks += [task("short", early), task("long", [edge - THRESHOLD for edge in EDGES if edge > THRESHOLD])]
        targets["short"] = target(np.minimum(time, THRESHOLD), event & (time <= THRESHOLD))
        targets["long"] = target(time - THRESHOLD, event)
        # Stopped or censored by then: nothing is known of the days after.
        targets["long"][time <= THRESHOLD] = np.nan
    return tasks, targets
