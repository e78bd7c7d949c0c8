"""A simulated shop with behaviour histories: what a user clicked, put into the cart and bought, and what of an item shown they
do next.

A user has one latent interest; what they click follows it, what they put into the cart follows it turned by ``conflict_angle``,
what they buy turned by twice that angle (in fixed planes of the latent space, the same for everybody). Items of each history are
drawn by the interest of that
behaviour, so every history tells about every task to whom turns it right: at 0 degrees all tasks read it alike, at 60 degrees
clicks and purchases pull apart. Columns of user, item and context matter to all tasks, with weights of either sign and noise of
different strength.

Histories are categorical columns, one a position, newest first, 0 where the history is shorter; the sizes of the table declare
the layout (see :mod:`graftwork.nn.fields`). The items of histories and the item shown share one vocabulary. No column names the
user, and no user is on
both sides of a split: a model has to read the histories.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.latent_events import event_suite, grouped_vectors, happens, popularity, with_rate
from graftwork.data.suites.shop_histories import check_ranges, draw_history, history_columns, splits_by_user, users_of_rows

__all__ = ["BEHAVIOURS", "behaviours", "turned"]

Array = NDArray[Any]

BEHAVIOURS = ("click", "cart", "buy")
"""Behaviour types, and the tasks."""

_RATES = (0.30, 0.20, 0.12)
_FILLED = (0.9, 0.5, 0.25)
_NOISE = (0.4, 0.6, 0.8)
_SEGMENTS, _CATEGORIES, _BRANDS, _DEVICES, _HOURS = 10, 12, 30, 4, 12


def behaviours(
    *,
    rows: int = 40_000,
    test_rows: int = 10_000,
    num_items: int = 400,
    num_factors: int = 6,
    length: int = 20,
    conflict_angle: float = 60.0,
    rows_per_user: int = 8,
    strength: float = 1.5,
    seed: int = 0,
) -> Suite:
    """A simulated shop: whether a user clicks, puts into the cart and buys the item shown, from three histories.

    Args:
        rows: Rows for training and validation (a tenth).
        test_rows: Rows of the test split.
        num_items: Items.
        num_factors: Width of the latent space, even.
        length: Positions of each history; clicks fill up to nine tenths of it, the cart half, purchases a quarter, on average.
        conflict_angle: Angle in degrees between the interests of neighbouring behaviours, from 0 to 90.
        rows_per_user: Rows of each user.
        strength: Weight of the interest in the logit.
        seed: Root of all draws.

    Raises:
        ConfigError: If a number is out of range.
    """
    check_ranges(
        "behaviours",
        {
            "rows": (rows, 100, 10_000_000),
            "test_rows": (test_rows, 10, 10_000_000),
            "num_factors": (num_factors, 2, 64),
            "length": (length, 2, 200),
            "conflict_angle": (conflict_angle, 0.0, 90.0),
            "rows_per_user": (rows_per_user, 1, 1_000),
        },
    )
    if num_factors % 2:
        raise ConfigError(f"behaviours: num_factors must be even, since interests turn in planes; got {num_factors}.")
    seeds = Seeds(seed).child("behaviours")
    total = rows + test_rows
    user = users_of_rows(rows, test_rows, rows_per_user)
    num_users = int(user[-1]) + 1
    draw = seeds.numpy("world")
    category, brand = draw.integers(_CATEGORIES, size=num_items), draw.integers(_BRANDS, size=num_items)
    segment = draw.integers(_SEGMENTS, size=num_users)
    items = grouped_vectors(category, _CATEGORIES, num_factors, draw)
    interest = grouped_vectors(segment, _SEGMENTS, num_factors, draw, group_share=0.2)
    interests = np.stack([turned(interest, np.radians(conflict_angle) * task) for task in range(len(BEHAVIOURS))])
    # [3, users, items]; the root keeps products of longer vectors at the same spread.
    affinity = interests @ items.T / np.sqrt(num_factors)
    liked = 2.0 * affinity + np.log(popularity(num_items, 0.7, draw))
    histories = {
        name: draw_history(liked[task], length, _FILLED[task], seeds.numpy(f"history of {name}"))
        for task, name in enumerate(BEHAVIOURS)
    }
    item = draw.choice(num_items, size=total, p=popularity(num_items, 0.7, draw))
    price, activity = draw.normal(size=num_items), draw.normal(size=num_users)
    device, hour = draw.integers(_DEVICES, size=total), draw.integers(_HOURS, size=total)
    tasks = range(len(BEHAVIOURS))
    fields = {  # effect on each task, [3, N]
        "price": draw.normal(size=(3, 1)) * price[item],
        "activity": draw.normal(size=(3, 1)) * activity[user],
        "segment": draw.normal(size=(3, _SEGMENTS))[:, segment[user]],
        "brand": draw.normal(size=(3, _BRANDS))[:, brand[item]],
        "device": draw.normal(size=(3, _DEVICES))[:, device],
        "hour": draw.normal(size=(3, _HOURS))[:, hour],
    }
    effects = 0.3 * np.sum(list(fields.values()), axis=0)
    # What no column shows: even a perfect model is not sure.
    noise = seeds.numpy("noise").normal(size=(3, total)) * np.array(_NOISE)[:, None]
    matches = affinity[:, user, item]
    targets = {
        BEHAVIOURS[task]: happens(
            with_rate(strength * matches[task] + effects[task] + noise[task], _RATES[task]), seeds.numpy(f"label {task}")
        )
        for task in tasks
    }
    columns = {
        "item": (item + 1, num_items),
        "category": (category[item] + 1, _CATEGORIES),
        "brand": (brand[item] + 1, _BRANDS),
        "segment": (segment[user] + 1, _SEGMENTS),
        "device": (device + 1, _DEVICES),
        "hour": (hour + 1, _HOURS),
    }
    past, layout = history_columns(histories, user, num_items, len(columns))
    return event_suite(
        "behaviours",
        tasks=BEHAVIOURS,
        targets=targets,
        numeric={"price": price[item], "activity": activity[user]},
        categorical=columns | past,
        splits=splits_by_user(user, rows, rows_per_user, seeds.numpy("split")),
        factors={f"{BEHAVIOURS[task]} match": matches[task] for task in tasks}
        | {f"{BEHAVIOURS[task]} effects": effects[task] for task in tasks},
        layout=layout,
        groups=user,
    )


def turned(vectors: Array, angle: float) -> Array:
    """Return vectors ``[N, width]`` turned by ``angle`` (radians) in the planes of channels 0 and 1, 2 and 3, and so on."""
    even, odd = vectors[:, 0::2], vectors[:, 1::2]
    # [N, width / 2, 2]; reshaping puts the two channels of each plane side by side again.
    pair = np.stack([np.cos(angle) * even - np.sin(angle) * odd, np.sin(angle) * even + np.cos(angle) * odd], axis=2)
    return pair.reshape(vectors.shape)
