"""The plain training of small models that pool and table are made with: AdamW, one cycle of the rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import Backbone

__all__ = ["Classifier", "fit_classifier", "fit_steps", "predict_probabilities"]

BATCH = 64


class Classifier(nn.Module):
    """A backbone and a linear head.

    Args:
        backbone: Gives vectors.
        classes: Number of classes.
    """

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.feature_shape.width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` of pictures uint8 ``[B, S, S, 3]``."""
        return self.head(self.backbone({"image": images}))


def fit_classifier(
    model: Classifier, images: NDArray[Any], labels: NDArray[np.int64], *, steps: int, rate: float, seed: int
) -> None:
    """Train a classifier in place and leave it in evaluation mode.

    Args:
        model: What learns, all of it.
        images: What the model reads: pictures ``[N, S, S, 3]``, or rows of numbers ``[N, columns]``.
        labels: ``[N]``.
        steps: Number of steps; 0 changes nothing.
        rate: Largest learning rate.
        seed: Orders the rows.
    """

    def loss(rows: NDArray[np.int64]) -> Tensor:
        outputs = model(torch.from_numpy(images[rows]))
        return F.cross_entropy(outputs, torch.from_numpy(labels[rows]), label_smoothing=0.05)

    fit_steps(model, loss, len(labels), steps=steps, rate=rate, seed=seed)


def fit_steps(
    model: nn.Module, loss: Callable[[NDArray[np.int64]], Tensor], count: int, *, steps: int, rate: float, seed: int
) -> None:
    """Train a model in place on batches of row numbers and leave it in evaluation mode.

    Args:
        model: What learns, all of it.
        loss: Returns the loss of the rows with these numbers.
        count: Number of rows.
        steps: Number of steps; 0 changes nothing.
        rate: Largest learning rate.
        seed: Orders the rows.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    model.train()
    for step, rows in enumerate(_batches(count, steps, seed)):
        # A rise over the first tenth, then half a cosine.
        at = (step + 1) / steps
        scale = at / 0.1 if at < 0.1 else 0.5 * (1 + math.cos(math.pi * (at - 0.1) / 0.9))
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        value = loss(rows)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def _batches(count: int, steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    random, order = Seeds(seed).numpy("batches"), np.zeros(0, dtype=np.int64)
    size = min(BATCH, count)
    for _ in range(steps):
        if len(order) < size:
            order = random.permutation(count)
        rows, order = order[:size], order[size:]
        yield rows


@torch.inference_mode()
def predict_probabilities(model: Classifier, images: NDArray[Any]) -> NDArray[np.float32]:
    """Return class probabilities ``[N, classes]``."""
    parts: Sequence[Tensor] = [
        model(torch.from_numpy(images[start : start + 256])).softmax(dim=1) for start in range(0, len(images), 256)
    ]
    return torch.cat(list(parts)).numpy()
