"""Digits in several corruptions as many small tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.math.shared_linear import ridge_head

__all__ = ["CORRUPTIONS", "DIGITS", "DigitTasks", "DrawnRows", "digit_tasks", "with_one"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DIGITS = 10
_SIDE, _TRAIN = 8, 1200


def _noisy(images: Floats) -> Floats:
    return np.clip(images + 0.35 * np.random.default_rng(0).normal(size=images.shape), 0.0, 1.0)


def _blurred(images: Floats) -> Floats:
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return np.asarray(sum(padded[:, i : i + _SIDE, j : j + _SIDE] for i in range(3) for j in range(3)) / 9.0)


def _striped(images: Floats) -> Floats:
    stripes = np.zeros((_SIDE, _SIDE))
    stripes[::2] = 0.8
    return np.maximum(images, stripes)


def _occluded(images: Floats) -> Floats:
    covered = images.copy()
    covered[:, 2:5, 2:5] = 0.5
    return covered


CORRUPTIONS: tuple[Callable[[Floats], Floats], ...] = (
    lambda images: images,
    _noisy,
    _blurred,
    lambda images: 1.0 - images,
    lambda images: np.rot90(images, axes=(1, 2)),
    lambda images: np.roll(images, (2, -1), axis=(1, 2)),
    _striped,
    _occluded,
)
"""From pictures in [0, 1] ``[N, 8, 8]`` to pictures of the same shape; the same in every run."""


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Labelled rows of several tasks."""

    inputs: Floats
    """``[n, 64]``."""
    values: Floats
    """1 for the task's digit, -1 for others, ``[n]``."""
    tasks: Ints
    """``[n]``."""

    def joined(self, other: DrawnRows) -> DrawnRows:
        """Return the rows of both."""
        return DrawnRows(
            np.concatenate([self.inputs, other.inputs]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.tasks, other.tasks]),
        )


class DigitTasks:
    """Task ``10 c + d`` asks whether a picture in corruption ``c`` shows the digit ``d``.

    Args:
        images: Pictures in [0, 1], ``[N, 8, 8]``, the first 1,200 for training.
        labels: ``[N]``.
        targets: Tasks that are learned with the help of all others.
        shots: Labelled rows of a target.
    """

    def __init__(self, images: Floats, labels: Ints, targets: Sequence[int], *, shots: int = 16) -> None:
        self.views = np.stack([change(images).reshape(len(images), -1) for change in CORRUPTIONS])
        """``[corruptions, N, 64]``."""
        self.labels, self.targets, self.shots = labels, tuple(targets), shots
        self.num_tasks = len(CORRUPTIONS) * DIGITS

    def empty(self) -> DrawnRows:
        """Return no rows."""
        return DrawnRows(np.zeros((0, _SIDE**2)), np.zeros(0), np.zeros(0, dtype=np.int64))

    def draw(self, tasks: Ints, counts: Ints, random: np.random.Generator) -> DrawnRows:
        """Return so many training rows of each task, half of them with its digit where they come in pairs."""
        found = self.empty()
        for task, count in zip(tasks.tolist(), counts.tolist(), strict=True):
            corruption, digit = divmod(task, DIGITS)
            own = np.flatnonzero(self.labels[:_TRAIN] == digit)
            others = np.flatnonzero(self.labels[:_TRAIN] != digit)
            positive = int(count) // 2 + (int(count) % 2 and int(random.integers(2)))
            rows = np.concatenate([random.choice(own, positive), random.choice(others, int(count) - positive)])
            values = np.where(self.labels[rows] == digit, 1.0, -1.0)
            found = found.joined(DrawnRows(self.views[corruption, rows], values, np.full(len(rows), task)))
        return found

    def target_rows(self, task: int, seed: int) -> tuple[Floats, Floats]:
        """Return the labelled rows of a target, the same for all who ask."""
        drawn = self.draw(np.array([task]), np.array([self.shots]), np.random.default_rng([seed, 3, task]))
        return drawn.inputs, drawn.values

    def test_error(self, task: int, answer: Callable[[Floats], Floats]) -> float:
        """Return the share of wrong signs on rows that are never drawn, the mean over both classes."""
        corruption, digit = divmod(task, DIGITS)
        truth = self.labels[_TRAIN:] == digit
        said = answer(self.views[corruption, _TRAIN:]) > 0
        return 0.5 * float((~said[truth]).mean() + said[~truth].mean())

    def alone(self, task: int, seed: int) -> float:
        """Return the error of a linear model on the target's own rows."""
        rows, values = self.target_rows(task, seed)
        head = ridge_head(with_one(rows), values, 0.03)
        return self.test_error(task, lambda asked: with_one(asked) @ head)


def digit_tasks(seed: int, *, num_targets: int = 10) -> DigitTasks:
    """Return scikit-learn's digits in an order of their own, with targets of different digits and corruptions.

    Args:
        seed: Orders the rows and draws the corruptions of the targets.
        num_targets: At most 10.
    """
    from sklearn.datasets import load_digits

    random = np.random.default_rng([seed, 0])
    data = load_digits()
    order = random.permutation(len(data.target))
    corruptions = random.permutation(DIGITS) % len(CORRUPTIONS)
    targets = [DIGITS * int(corruptions[digit]) + digit for digit in range(num_targets)]
    return DigitTasks(np.asarray(data.images)[order] / 16.0, np.asarray(data.target)[order].astype(np.int64), targets)


def with_one(features: Floats) -> Floats:
    """Return features ``[n, k + 1]``, the last of them 1."""
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)
