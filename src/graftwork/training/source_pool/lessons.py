"""What pool members learn from: the labels of their data set, or the pictures alone.

- ``labels``: the classes of the data set.
- ``turns``: by how many quarter turns a picture was turned (Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by
  Predicting Image Rotations", ICLR 2018, https://arxiv.org/abs/1803.07728).
- ``views``: which two changed pictures show the same one (Chen et al., "A Simple Framework for Contrastive Learning of Visual
  Representations", ICML 2020, https://arxiv.org/abs/2002.05709).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.seeds import Seeds
from graftwork.training.source_pool.fitting import Classifier, fit_classifier, fit_steps

__all__ = ["LESSONS", "Lesson", "changed_views", "fit_lesson", "head_width", "pair_loss"]

Lesson = Literal["labels", "turns", "views"]
LESSONS: tuple[str, ...] = get_args(Lesson)
Pictures = NDArray[np.uint8]
_TEMPERATURE = 0.2
_PROJECTED = 64
"""Width in which views are compared."""
_SHIFT = 2
"""Largest shift of a view, in pixels."""


def head_width(lesson: Lesson, classes: int) -> int:
    """Return the outputs of the head that a lesson needs, for a data set of so many classes."""
    return {"labels": classes, "turns": 4, "views": _PROJECTED}[lesson]


def fit_lesson(
    model: Classifier, lesson: Lesson, images: Pictures, labels: NDArray[np.int64], *, steps: int, rate: float, seed: int
) -> None:
    """Train a model in place, see :func:`~graftwork.training.source_pool.fitting.fit_classifier`.

    Args:
        model: What learns; its head has :func:`head_width` outputs.
        lesson: What it learns from.
        images: ``[N, S, S, 3]``.
        labels: ``[N]``; the lessons without labels do not look at them.
        steps: Number of steps.
        rate: Largest learning rate.
        seed: Orders the rows and draws turns and views.
    """
    if lesson == "labels":
        fit_classifier(model, images, labels, steps=steps, rate=rate, seed=seed)
    elif lesson == "turns":
        turns = Seeds(seed).numpy("turns").integers(4, size=len(images))
        turned = np.stack([np.rot90(image, turn) for image, turn in zip(images, turns.tolist(), strict=True)])
        fit_classifier(model, turned, turns.astype(np.int64), steps=steps, rate=rate, seed=seed)
    else:
        random = Seeds(seed).numpy("views")

        def loss(rows: NDArray[np.int64]) -> Tensor:
            first, second = (model(torch.from_numpy(changed_views(images[rows], random))) for _ in range(2))
            return pair_loss(first, second)

        fit_steps(model, loss, len(images), steps=steps, rate=rate, seed=seed)


def changed_views(images: Pictures, random: np.random.Generator) -> Pictures:
    """Return a changed copy of each picture: shifted by up to two pixels (edges repeat), with other contrast and new noise.

    Args:
        images: uint8 ``[N, S, S, 3]``.
        random: Draws the changes.
    """
    count, side = images.shape[:2]
    moves = random.integers(-_SHIFT, _SHIFT + 1, size=(2, count, 1))
    rows, columns = (np.clip(np.arange(side) + move, 0, side - 1) for move in moves)
    moved = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].astype(np.float64)
    contrast = random.uniform(0.6, 1.4, size=(count, 1, 1, 1))
    noise = random.normal(scale=20.0, size=(count, side, side, 1))
    return np.clip((moved - 127.5) * contrast + 127.5 + noise, 0, 255).astype(np.uint8)


def pair_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean cross-entropy with which each row finds its partner among all other rows of both sides.

    Args:
        first: Projections ``[B, P]`` of one view of each picture.
        second: Those of the other view.
    """
    rows = F.normalize(torch.cat([first, second]), dim=1)
    alike = (rows @ rows.T / _TEMPERATURE).fill_diagonal_(float("-inf"))
    count = len(first)
    partner = torch.cat([torch.arange(count) + count, torch.arange(count)])
    return F.cross_entropy(alike, partner)
