"""Two handwritten digits on one canvas, one task for each place: a small stand-in for Multi-MNIST.

After Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", https://arxiv.org/abs/1810.04650, section 5.1, who
overlay MNIST digits. Here digits of scikit-learn (8x8 pixels) are enlarged to 16x16 and drawn onto 24x24 pixels, one top left,
one bottom right, where they overlap the brighter pixel counts. Splits draw from different original digits, so no digit of the
test split was seen in training in any pair. Both classes are drawn independently.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite

__all__ = ["PLACES", "multidigits"]

Array = NDArray[Any]
CANVAS, DIGIT = 24, 16
PLACES: dict[str, int] = {"top_left": 0, "bottom_right": CANVAS - DIGIT}
"""Tasks, and where the corner of their digit lies, in pixels from the top and from the left."""
SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}
"""Shares of the original digits that the splits draw from."""


def multidigits(
    *,
    num_train: int = 4000,
    num_val: int = 500,
    num_test: int = 2000,
    digit_share: float = 1.0,
    spare_to_test: bool = False,
    label_noise: float = 0.0,
    noisy_task: Literal["top_left", "bottom_right"] = "bottom_right",
    seed: int = 0,
) -> Suite:
    """Two handwritten digits in one picture, a task for each: a small stand-in for Multi-MNIST.

    Equal arguments give equal bits.

    Args:
        num_train: Pictures of the training split; likewise ``num_val`` and ``num_test``.
        num_val: See ``num_train``.
        num_test: See ``num_train``.
        digit_share: Share of the training split's original digits that its pictures are drawn from, in (0, 1]; a small one makes a
            hard suite, in which few hands have to stand for all. The other splits keep all of theirs.
        spare_to_test: Whether the test split also draws from the training digits that ``digit_share`` leaves out: more hands, so
            that scores scatter less.
        label_noise: Share of labels of ``noisy_task`` that are replaced by another class, in the training and validation splits,
            in [0, 1).
        noisy_task: Name of the task with wrong labels.
        seed: Draws splits of the digits, pairs and noise.

    Returns:
        A suite with input ``image`` (grey as RGB) and two tasks of 10 classes. ``raw`` keeps ``preview`` (the pictures),
        ``sources`` (int64 ``[N, 2]``, numbers of the original digits) and ``factors`` (the true classes).

    Raises:
        ConfigError: If an argument is out of range; all problems at once.
    """
    problems = [f"{name} must be at least 1; got {n}" for name, n in (("num_train", num_train), ("num_test", num_test)) if n < 1]
    problems += [f"num_val must be at least 0; got {num_val}"] if num_val < 0 else []
    problems += [] if 0 < digit_share <= 1 else [f"digit_share must be above 0 and at most 1; got {digit_share!r}"]
    problems += [] if 0 <= label_noise < 1 else [f"label_noise must be in [0, 1); got {label_noise!r}"]
    problems += [] if noisy_task in PLACES else [f"noisy_task must be one of {', '.join(PLACES)}; got {noisy_task!r}"]
    if problems:
        raise ConfigError("The composite digits cannot be drawn as asked.", problems)
    from sklearn.datasets import load_digits

    digits, seeds = load_digits(), Seeds(seed).child("multidigits")
    sizes = {"train": num_train, "val": num_val, "test": num_test}
    pools = _pools(len(digits.target), seeds)
    # The pools are shuffled already, so the first ones are a fair part.
    kept = max(1, round(digit_share * len(pools["train"])))
    spare = pools["train"][kept:] if spare_to_test else pools["train"][:0]
    pools |= {"train": pools["train"][:kept], "test": np.concatenate([pools["test"], spare])}
    # A pair may show one digit twice; both places are drawn independently.
    sources = np.concatenate([seeds.numpy(f"pairs/{name}").choice(pools[name], size=(n, 2)) for name, n in sizes.items()])
    bounds = np.cumsum([0, *sizes.values()])
    rows = np.arange(len(sources))
    splits = {name: rows[bounds[index] : bounds[index + 1]] for index, name in enumerate(sizes)}
    images = _draw(digits.images, sources)
    classes = {name: digits.target[sources[:, index]].astype(np.int64) for index, name in enumerate(PLACES)}
    targets = dict(classes)
    # Training and validation rows are the first two of three parts.
    learned = rows[: bounds[2]]
    wrong = learned[seeds.numpy("noise/rows").random(len(learned)) < label_noise]
    # 1 to 9: a replaced label is never the right one.
    shift = seeds.numpy("noise/classes").integers(1, 10, size=len(wrong))
    targets[noisy_task] = targets[noisy_task].copy()
    targets[noisy_task][wrong] = (targets[noisy_task][wrong] + shift) % 10
    return Suite.of_arrays(
        name="multidigits",
        input_specs=image_input(CANVAS, encoder={"kind": "image", "size": CANVAS}),
        tasks=tuple(TaskSpec(name=name, kind="multiclass", size=10, classes=tuple(map(str, range(10)))) for name in PLACES),
        inputs={"image": images},
        targets=targets,
        splits=splits,
        raw={"preview": images, "sources": sources.astype(np.int64), "factors": classes},
        credits={"digits": "scikit-learn's copy of the UCI optical digits, BSD-3 / CC BY 4.0"},
    )


def _pools(count: int, seeds: Seeds) -> dict[str, NDArray[np.int64]]:
    """Return the original digits of each split."""
    order = seeds.numpy("split").permutation(count)
    cuts = np.round(np.cumsum(list(SHARES.values()))[:-1] * count).astype(np.int64)
    return dict(zip(SHARES, np.split(order, cuts), strict=True))


def _draw(pictures: Array, sources: Array) -> NDArray[np.uint8]:
    """Return canvases, uint8 ``[N, 24, 24, 3]``, from pictures ``[n, 8, 8]`` with values 0 to 16."""
    # uint8 first: repeating floats would take eight times the memory.
    large = np.round(pictures * (255.0 / 16.0)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    canvas = np.zeros((len(sources), CANVAS, CANVAS), np.uint8)
    for index, corner in enumerate(PLACES.values()):
        window = canvas[:, corner : corner + DIGIT, corner : corner + DIGIT]
        # `window` is a view, so this writes into the canvas.
        np.maximum(window, large[sources[:, index]], out=window)
    return canvas[..., None].repeat(3, axis=3)
