"""Digits in several corruptions as many small tasks, and a network that many targets learn side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.seeds import Seeds
from graftwork.math.shared_linear import ridge_head

__all__ = ["CORRUPTIONS", "DigitTasks", "DrawnRows", "SharedNet", "digit_tasks"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_SIDE, _DIGITS, _TRAIN = 8, 10, 1200
_HIDDEN, _SHARED = 32, 8
"""Units of the shared network, and the features that all heads read."""


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

    def __init__(self, images: Floats, labels: Ints, targets: Sequence[int], *, shots: int = 40) -> None:
        self.views = np.stack([change(images).reshape(len(images), -1) for change in CORRUPTIONS])
        """``[corruptions, N, 64]``."""
        self.labels, self.targets, self.shots = labels, tuple(targets), shots
        self.num_tasks = len(CORRUPTIONS) * _DIGITS

    def empty(self) -> DrawnRows:
        """Return no rows."""
        return DrawnRows(np.zeros((0, _SIDE**2)), np.zeros(0), np.zeros(0, dtype=np.int64))

    def draw(self, tasks: Ints, counts: Ints, random: np.random.Generator) -> DrawnRows:
        """Return so many training rows of each task, half of them with its digit where they come in pairs."""
        found = self.empty()
        for task, count in zip(tasks.tolist(), counts.tolist(), strict=True):
            corruption, digit = divmod(task, _DIGITS)
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
        corruption, digit = divmod(task, _DIGITS)
        truth = self.labels[_TRAIN:] == digit
        said = answer(self.views[corruption, _TRAIN:]) > 0
        return 0.5 * float((~said[truth]).mean() + said[~truth].mean())

    def alone(self, task: int, seed: int) -> float:
        """Return the error of a linear model on the target's own rows."""
        rows, values = self.target_rows(task, seed)
        head = ridge_head(_with_one(rows), values, 0.03)
        return self.test_error(task, lambda asked: _with_one(asked) @ head)


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
    corruptions = random.permutation(_DIGITS) % len(CORRUPTIONS)
    targets = [_DIGITS * int(corruptions[digit]) + digit for digit in range(num_targets)]
    return DigitTasks(np.asarray(data.images)[order] / 16.0, np.asarray(data.target)[order].astype(np.int64), targets)


class SharedNet:
    """Networks of 64, 32 and 8 units with a linear head a task, one for each target, trained in one go.

    Args:
        count: Number of networks.
        num_tasks: Heads of each.
        rate: Learning rate of Adam.
        batch: Rows of a step, for each network.
        seed: Draws weights, the same for all networks, and batches.
    """

    def __init__(self, count: int, num_tasks: int, *, rate: float = 5e-3, batch: int = 256, seed: int = 0) -> None:
        self.rate, self.batch = rate, batch
        random = Seeds(seed).torch("weights")

        def weights(*shape: int) -> Tensor:
            one = torch.randn(1, *shape, generator=random) / shape[0] ** 0.5
            return one.repeat(count, 1, 1).requires_grad_()

        self.first, self.second = weights(_SIDE**2, _HIDDEN), weights(_HIDDEN, _SHARED)
        self.first_bias = torch.zeros(count, 1, _HIDDEN, requires_grad=True)
        self.second_bias = torch.zeros(count, 1, _SHARED, requires_grad=True)
        self.head = torch.zeros(count, num_tasks, _SHARED, requires_grad=True)
        self.bias = torch.zeros(count, num_tasks, requires_grad=True)
        self.random = Seeds(seed).numpy("batches")

    def features(self, inputs: Tensor) -> Tensor:
        """Return features ``[networks, n, 8]`` of inputs ``[networks, n, 64]``."""
        hidden = torch.relu(torch.baddbmm(self.first_bias, inputs, self.first))
        return torch.relu(torch.baddbmm(self.second_bias, hidden, self.second))

    def fit(self, drawn: Sequence[DrawnRows], steps: int) -> None:
        """Train every network on the rows of its target's sources, with squared errors."""
        parameters = [self.first, self.second, self.first_bias, self.second_bias, self.head, self.bias]
        optimizer = torch.optim.Adam(parameters, lr=self.rate)
        place = torch.arange(len(drawn))[:, None]
        arrays = [
            (torch.from_numpy(one.inputs).float(), torch.from_numpy(one.values).float(), torch.from_numpy(one.tasks))
            for one in drawn
        ]
        for _ in range(steps):
            chosen = [torch.from_numpy(self.random.integers(len(one[1]), size=self.batch)) for one in arrays]
            inputs, values, tasks = (
                torch.stack([one[part][rows] for one, rows in zip(arrays, chosen, strict=True)]) for part in range(3)
            )
            answers = (self.features(inputs) * self.head[place, tasks]).sum(dim=2) + self.bias[place, tasks]
            loss = ((answers - values) ** 2).mean(dim=1).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def heads(self, place: int) -> Floats:
        """Return the heads of a network, ``[8, tasks]``."""
        return self.head[place].detach().double().numpy().T

    @torch.no_grad()
    def _features(self, place: int, rows: Floats) -> Floats:
        # All networks see the rows, and one answers: a few hundred rows cost nothing.
        return self.features(torch.from_numpy(rows).float().expand(len(self.head), -1, -1))[place].double().numpy()

    def target_head(self, place: int, rows: Floats, values: Floats) -> Floats:
        """Return the head ``[8]`` that suits the target's rows best on the features of its network."""
        return ridge_head(_with_one(self._features(place, rows)), values, 1e-2)[:-1]

    def answer(self, place: int, asked: Floats, rows: Floats, values: Floats) -> Floats:
        """Return answers ``[n]`` to inputs, from a head fitted on the target's rows."""
        head = ridge_head(_with_one(self._features(place, rows)), values, 1e-2)
        return _with_one(self._features(place, asked)) @ head


def _with_one(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)
