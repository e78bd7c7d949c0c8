"""A simulated log of impressions, clicks and conversions, in which it is known what would have happened without the click.

Every impression shows an item to a user. A click needs interest, a purchase needs a click and then a conversion. Interest in
clicking and in buying
are sums over latent vectors: one part is common to both, the rest each event's own, so that the two scores correlate at
``correlation``. Each also has traits of the item (appeal, quality) and of the user (activity, readiness to buy), which correlate
alike, effects of the context, and noise that no column shows. Users, items and what a model may see of them (segment, category,
brand, price) are drawn from one seed.

A conversion is drawn for every impression, clicked or not: ``raw["factors"]["conversion"]`` holds it. What a log would hold is
``purchase``, click and conversion together. ``selection_bias=False`` draws everything behind clicks apart from everything behind
conversions, so that clicked impressions are a fair sample of all impressions as far as conversions go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.latent_events import event_suite, grouped_vectors, happens, popularity, with_rate

__all__ = ["click_log"]

Array = NDArray[Any]
_SEGMENTS, _CATEGORIES, _BRANDS, _POSITIONS, _DEVICES, _HOURS = 12, 16, 40, 10, 4, 24


def click_log(
    *,
    rows: int = 60_000,
    test_rows: int = 20_000,
    num_users: int = 2_000,
    num_items: int = 1_000,
    num_factors: int = 8,
    correlation: float = 0.5,
    click_rate: float = 0.05,
    conversion_rate: float = 0.065,
    noise: float = 0.5,
    selection_bias: bool = True,
    with_conversion: bool = False,
    seed: int = 0,
) -> Suite:
    """A simulated log of impressions, clicks and purchases, where it is known what would have followed without the click.

    Tasks are ``click`` and ``purchase`` (a click that converts), both labelled for all rows. ``with_conversion`` adds
    ``conversion``: labelled for clicked rows in ``train`` and ``val``, as in any log, and for all rows in ``test``, as in none.

    Args:
        rows: Impressions for training and validation (a twentieth, at most 20,000).
        test_rows: Impressions of the test split, of the same users and items.
        num_users: Users.
        num_items: Items.
        num_factors: Width of each latent vector.
        correlation: Share of variance that the click and the conversion score have in common, in [0, 1].
        click_rate: Expected share of clicked impressions.
        conversion_rate: Expected share of conversions among the clicked.
        noise: Standard deviation of the unseen part of both scores.
        selection_bias: False sets the correlation of all that is behind the two events to 0.
        with_conversion: Whether the task ``conversion`` is added.
        seed: Root of all draws.

    Raises:
        ConfigError: If a number is out of range.
    """
    for name, value, low, high in (
        ("rows", rows, 100, 10_000_000),
        ("test_rows", test_rows, 10, 10_000_000),
        ("correlation", correlation, 0.0, 1.0),
        ("click_rate", click_rate, 0.001, 0.999),
        ("conversion_rate", conversion_rate, 0.001, 0.999),
    ):
        if not low <= value <= high:
            raise ConfigError(f"click_log: {name} must be from {low} to {high}; got {value}.")
    seeds = Seeds(seed).child("click-log")
    common = correlation if selection_bias else 0.0
    total = rows + test_rows
    draw = seeds.numpy("impressions")
    user = draw.choice(num_users, size=total, p=popularity(num_users, 0.5, seeds.numpy("users")))
    item = draw.choice(num_items, size=total, p=popularity(num_items, 0.8, seeds.numpy("items")))
    context = {
        "position": draw.integers(_POSITIONS, size=total),
        "device": draw.integers(_DEVICES, size=total),
        "hour": draw.integers(_HOURS, size=total),
    }
    world = _World(num_users, num_items, num_factors, common, seeds)
    click_score, conversion_score, factors = world.scores(user, item)
    effects = seeds.numpy("context")
    # Lower positions are seen less: a cause of clicks that says nothing about buying.
    click_score = click_score - 0.12 * context["position"] + 0.3 * effects.normal(size=_HOURS)[context["hour"]]
    conversion_score = conversion_score + 0.5 * effects.normal(size=_DEVICES)[context["device"]]
    unseen = seeds.numpy("noise").normal(size=(2, total)) * noise
    click_logit = with_rate(click_score + unseen[0], click_rate)
    clicked = happens(click_logit, seeds.numpy("click"))
    # The rate is that among the clicked, so rows weigh by their probability of a click.
    conversion_logit = with_rate(conversion_score + unseen[1], conversion_rate, 1.0 / (1.0 + np.exp(-click_logit)))
    converted = happens(conversion_logit, seeds.numpy("conversion"))
    # A purchase needs both, whatever would have happened without the click.
    targets = {"click": clicked, "purchase": clicked * converted}
    if with_conversion:
        # Before the test split nobody knows what those would have done who did not click.
        targets["conversion"] = np.where((clicked == 1) | (np.arange(total) >= rows), converted, -1)
    num_validation = min(rows // 20, 20_000)
    order = seeds.numpy("split").permutation(rows)
    return event_suite(
        "clicks",
        tasks=list(targets),
        targets=targets,
        numeric={"price": world.price[item], "tenure": world.tenure[user]},
        categorical={
            "user": (user + 1, num_users),
            "item": (item + 1, num_items),
            "segment": (world.segment[user] + 1, _SEGMENTS),
            "category": (world.category[item] + 1, _CATEGORIES),
            "brand": (world.brand[item] + 1, _BRANDS),
            "position": (context["position"] + 1, _POSITIONS),
            "device": (context["device"] + 1, _DEVICES),
            "hour": (context["hour"] + 1, _HOURS),
        },
        splits={
            "train": np.sort(order[num_validation:]),
            "val": np.sort(order[:num_validation]),
            "test": np.arange(rows, total),
        },
        factors={**factors, "noise of clicks": unseen[0], "noise of conversions": unseen[1], "conversion": converted},
    )


class _World:
    """Users and items: latent vectors, traits, and the columns that show a part of them."""

    def __init__(self, num_users: int, num_items: int, width: int, common: float, seeds: Seeds) -> None:
        draw = seeds.numpy("world")
        self.width, self.common = width, common
        self.segment = draw.integers(_SEGMENTS, size=num_users)
        self.category = draw.integers(_CATEGORIES, size=num_items)
        self.brand = draw.integers(_BRANDS, size=num_items)
        parts = ("common", "click", "conversion")
        self.users = {part: grouped_vectors(self.segment, _SEGMENTS, width, draw) for part in parts}
        self.items = {part: grouped_vectors(self.category, _CATEGORIES, width, draw) for part in parts}
        self.appeal, self.quality = self._pair(draw, num_items)
        brands = draw.normal(size=_BRANDS)[self.brand]
        # Shares of variance, 0.7 and 0.3, so that it stays 1.
        self.quality = np.sqrt(0.7) * self.quality + np.sqrt(0.3) * brands
        self.activity, self.readiness = self._pair(draw, num_users)
        # 0.6^2 + 0.8^2 = 1: the variance stays 1.
        self.price = 0.6 * self.quality + 0.8 * draw.normal(size=num_items)
        self.tenure = 0.6 * self.activity + 0.8 * draw.normal(size=num_users)

    def _pair(self, draw: np.random.Generator, number: int) -> tuple[Array, Array]:
        shared, first, second = draw.normal(size=(3, number))
        # Correlation `common` between both, and variance 1 of each.
        weight, rest = np.sqrt(self.common), np.sqrt(1.0 - self.common)
        return weight * shared + rest * first, weight * shared + rest * second

    def scores(self, user: Array, item: Array) -> tuple[Array, Array, dict[str, Array]]:
        """Return the click score, the conversion score and the parts that they are made of, ``[N]`` each."""
        match = {
            part: np.einsum("nf,nf->n", self.users[part][user], self.items[part][item]) / np.sqrt(self.width)
            for part in self.users
        }
        weight, rest = np.sqrt(self.common), np.sqrt(1.0 - self.common)
        click = weight * match["common"] + rest * match["click"] + 0.8 * self.appeal[item] + 0.5 * self.activity[user]
        conversion = (
            weight * match["common"]
            + rest * match["conversion"]
            + 0.8 * self.quality[item]
            + 0.5 * self.readiness[user]
            - 0.4 * self.price[item]
        )
        factors = {f"{part} match": value for part, value in match.items()}
        traits = {"appeal": self.appeal[item], "quality": self.quality[item]}
        return click, conversion, {**factors, **traits, "activity": self.activity[user], "readiness": self.readiness[user]}
