"""A simulated shop whose tasks read the same histories differently: each goes by another aspect of the items.

An item has a group in each of three aspects (what kind of thing it is, its style, its price tier) and a tone: how well those who had
it liked it. Both are hidden; columns show the item's number alone. Whether a user clicks, puts into the cart or buys the item shown
depends on the mean tone of those items of their histories that share an aspect with it, every history and every aspect counting:
clicks go by the kind first, carts by the style, purchases by the price tier, and each task by the two other aspects with weights of
``side`` and minus ``side``. So the items of a history that matter differ from task to task, and a good past item of the same style
speaks for putting the item shown into the cart and, to another degree, for a click and against a purchase. Each task's own history
counts double. Columns of user, item and context matter to all tasks, with weights of either sign; tasks differ in noise.

No field, history or aspect belongs to one task. At ``conflict`` 0 all tasks weigh aspects and histories as clicks do.

Histories are columns as in :mod:`graftwork.data.suites.behaviours`; no user is on both sides of a split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.data.suites.behaviours import BEHAVIOURS
from graftwork.data.suites.latent_events import event_suite, happens, popularity, with_rate
from graftwork.data.suites.shop_histories import check_ranges, draw_history, history_columns, splits_by_user, users_of_rows

__all__ = ["ASPECTS", "aspect_weights", "aspects", "history_weights", "mean_tones"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

ASPECTS = ("kind", "style", "price tier")
"""What items have groups in; task ``k`` goes by aspect ``k`` first."""

_RATES = (0.40, 0.35, 0.30)
_FILLED = (1.0, 0.8, 0.6)
_NOISE = (0.2, 0.3, 0.4)
_LIKING = 1.5
_SEGMENTS, _DEVICES, _HOURS = 8, 4, 6


def aspects(
    *,
    rows: int = 40_000,
    test_rows: int = 10_000,
    num_items: int = 40,
    groups: int = 5,
    length: int = 5,
    side: float = 0.4,
    conflict: float = 1.0,
    strength: float = 4.0,
    rows_per_user: int = 8,
    seed: int = 0,
) -> Suite:
    """A simulated shop whose three yes-or-no tasks read the same histories by different aspects of the items.

    The tasks are whether a user clicks, puts into the cart and buys the item shown.

    Args:
        rows: Rows for training and validation (a tenth).
        test_rows: Rows of the test split.
        num_items: Items, at least as many as positions.
        groups: Groups of each aspect, of equal size, at most as many as items.
        length: Positions of each history; clicks fill all, the cart four fifths, purchases three fifths, on average.
        side: Weight of a task's second aspect, and of its third with the other sign, from 0 (each task has an aspect of its own, and
            no field is shared) to 1.
        conflict: From 0, where all tasks weigh aspects and histories alike, to 1.
        strength: Weight of the tones in the logit.
        rows_per_user: Rows of each user.
        seed: Root of all draws.

    Raises:
        ConfigError: If a number is out of range.
    """
    check_ranges(
        "aspects",
        {
            "rows": (rows, 100, 10_000_000),
            "test_rows": (test_rows, 10, 10_000_000),
            "length": (length, 2, 200),
            "num_items": (num_items, max(length, 2), 100_000),
            "groups": (groups, 1, num_items),
            "side": (side, 0.0, 1.0),
            "conflict": (conflict, 0.0, 1.0),
            "rows_per_user": (rows_per_user, 1, 1_000),
        },
    )
    seeds = Seeds(seed).child("aspects")
    total = rows + test_rows
    user = users_of_rows(rows, test_rows, rows_per_user)
    num_users = int(user[-1]) + 1
    draw = seeds.numpy("world")
    # Groups of equal size, and tones of mean 0 and variance 1: with few items, draws would make some worlds far easier than others.
    group = np.stack([draw.permutation(np.arange(num_items) % groups) for _ in ASPECTS])
    tone = draw.normal(size=num_items)
    tone = (tone - tone.mean()) / tone.std()
    histories = {
        name: _history(group, length, share, num_users, seeds.numpy(f"history of {name}"))
        for name, share in zip(BEHAVIOURS, _FILLED, strict=True)
    }
    item = draw.choice(num_items, size=total, p=popularity(num_items, 0.4, draw))
    # [histories, aspects, rows]
    tones = np.stack([mean_tones(codes[user], item, group, tone) for codes in histories.values()])
    matches = strength * np.einsum("ks,ka,san->kn", history_weights(conflict), aspect_weights(side, conflict), tones)
    segment, price, activity = draw.integers(_SEGMENTS, size=num_users), draw.normal(size=num_items), draw.normal(size=num_users)
    device, hour = draw.integers(_DEVICES, size=total), draw.integers(_HOURS, size=total)
    effects = 0.4 * sum(  # on each task, [3, N]
        (
            draw.normal(size=(3, 1)) * price[item],
            draw.normal(size=(3, 1)) * activity[user],
            draw.normal(size=(3, _SEGMENTS))[:, segment[user]],
            draw.normal(size=(3, _DEVICES))[:, device],
            draw.normal(size=(3, _HOURS))[:, hour],
        ),
        start=np.zeros((3, total)),
    )
    # What no column shows: even a perfect model is not sure.
    noise = seeds.numpy("noise").normal(size=(3, total)) * np.array(_NOISE)[:, None]
    logits = {name: with_rate(matches[task] + effects[task] + noise[task], _RATES[task]) for task, name in enumerate(BEHAVIOURS)}
    columns = {
        "item": (item + 1, num_items),
        "segment": (segment[user] + 1, _SEGMENTS),
        "device": (device + 1, _DEVICES),
        "hour": (hour + 1, _HOURS),
    }
    past, layout = history_columns(histories, user, num_items, len(columns))
    return event_suite(
        "aspects",
        tasks=BEHAVIOURS,
        targets={name: happens(values, seeds.numpy(f"label {task}")) for task, (name, values) in enumerate(logits.items())},
        numeric={"price": price[item], "activity": activity[user]},
        categorical=columns | past,
        splits=splits_by_user(user, rows, rows_per_user, seeds.numpy("split")),
        factors={f"{name} match": matches[task] for task, name in enumerate(BEHAVIOURS)}
        | {f"{name} effects": effects[task] for task, name in enumerate(BEHAVIOURS)},
        layout=layout,
        groups=user,
    )


def aspect_weights(side: float, conflict: float = 1.0) -> Floats:
    """Return how much each aspect counts for each task, ``[3, 3]``.

    Example:
        >>> aspect_weights(0.5).tolist()
        [[1.0, 0.5, -0.5], [-0.5, 1.0, 0.5], [0.5, -0.5, 1.0]]
    """
    first = np.array([1.0, side, -side])
    return np.stack([(1.0 - conflict) * first + conflict * np.roll(first, task) for task in range(len(BEHAVIOURS))])


def history_weights(conflict: float = 1.0) -> Floats:
    """Return how much each history counts for each task, ``[3, 3]`` with rows of length 1: its own double."""
    first = np.array([2.0, 1.0, 1.0])
    weights = np.stack([(1.0 - conflict) * first + conflict * np.roll(first, task) for task in range(len(BEHAVIOURS))])
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True))


def mean_tones(history: Array, item: Array, group: Array, tone: Floats) -> Floats:
    """Return the mean tone of the items of a history that share an aspect with the item shown, ``[aspects, N]``; 0 where none
    does.

    Args:
        history: Codes ``[N, length]`` from 1, 0 where empty.
        item: The item shown, ``[N]`` from 0.
        group: Group of each item in each aspect, ``[aspects, items]``.
        tone: Tone of each item, ``[items]``.
    """
    past, filled = np.maximum(history - 1, 0), history > 0
    alike = (group[:, past] == group[:, item][:, :, None]) & filled
    return np.asarray((alike * tone[past]).sum(axis=2) / np.maximum(alike.sum(axis=2), 1))


def _history(group: Array, length: int, share: float, num_users: int, draw: np.random.Generator) -> Array:
    """Return item codes ``[users, length]`` (see :func:`draw_history`); users like some groups of each aspect."""
    liking = draw.normal(size=(len(group), int(group.max()) + 1, num_users))
    liked = sum(_LIKING / np.sqrt(len(group)) * liking[aspect, of_items].T for aspect, of_items in enumerate(group))
    return draw_history(np.asarray(liked), length, share, draw)
