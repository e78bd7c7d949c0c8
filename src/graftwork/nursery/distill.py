"""How a student of the nursery learns: from a teacher's features, of the whole picture and place by place, and from what pictures
show.

Transformers read a part of the patches only for most of the training (a random half): twice the pictures in the same time, and
an augmentation by itself. The teacher saw the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.seeds import Seeds
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.interfaces.train_step import TrainStep
from graftwork.nn.taps import tapped
from graftwork.nursery.teacher import MAP_WIDTH, POOLED_WIDTH, SIDE

__all__ = ["Distillation", "Lesson", "LessonSource", "PictureStates", "masked_tokens", "whole_maps"]

JITTER = 0.2
"""Largest relative change of each colour channel."""
LABEL_SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch."""

    image: Tensor
    """uint8 ``[B, S, S, 3]``."""
    pooled: Tensor
    """Roots of the teacher's pooled features, standardised, ``[B, 1280]``."""
    places: Tensor
    """Teacher's states of 8 x 8 places, standardised, ``[B, 64, 112]``."""
    label: Tensor
    """int64 ``[B]``, -1 where there is none."""


@dataclass(frozen=True, slots=True)
class PictureStates:
    """What a student makes of pictures."""

    pooled: Tensor
    """``[B, width]``."""
    places: Tensor
    """``[B, n, width of the places]``."""
    read: Tensor | None
    """Which of the 64 places were read, int64 ``[B, n]``; None means all, in order."""


Reader = Callable[[BlockBackbone, Tensor, int], PictureStates]
"""From a student, pictures ``[B, S, S, 3]`` and the number of finished steps to its states."""


def masked_tokens(keep: int, until: int) -> Reader:
    """Return a reader for transformers that shows ``keep`` random patches of each picture in the first ``until`` steps, then all."""

    def read(model: BlockBackbone, image: Tensor, step: int) -> PictureStates:
        inputs = {"image": image}
        states = model.embed(inputs)
        read: Tensor | None = None
        if step < until:
            read = torch.rand(states.shape[:2]).argsort(dim=1)[:, :keep]
            states = states.gather(1, read.unsqueeze(2).expand(-1, -1, states.shape[2]))
        for block in model.block_list():
            states = block(states)
        states = model.final_norm(states)
        return PictureStates(states.mean(dim=1), states, read)

    return read


def whole_maps(depth: int) -> Reader:
    """Return a reader for convolutional networks; block ``depth`` gives the 8 x 8 places."""

    def read(model: BlockBackbone, image: Tensor, step: int) -> PictureStates:
        with tapped(model, [depth]) as found:
            pooled = model({"image": image})
        return PictureStates(pooled, found[depth].flatten(2).transpose(1, 2), None)

    return read


class LessonSource:
    """Batches as a pure function of the step: every epoch has an order of its own.

    Args:
        arrays: ``image``, ``label``, ``pooled`` and ``map`` of all pictures, see :mod:`graftwork.nursery.pictures` and
            :mod:`graftwork.nursery.teacher`.
        batch_size: Pictures a step, at most all.
        seeds: The stream ``order/<epoch>`` draws an order.
    """

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]], batch_size: int, seeds: Seeds) -> None:
        self._seeds = seeds
        self._size = len(arrays["image"])
        self.batch_size = min(batch_size, self._size)
        # Pooled features are never negative, and few are large: their roots are nearer to normal.
        self._arrays = {**arrays, "pooled": np.sqrt(np.asarray(arrays["pooled"]).clip(min=0))}
        self._scales = {name: _mean_and_spread(np.asarray(self._arrays[name])) for name in ("pooled", "map")}
        self._epoch, self._order = -1, np.arange(0)

    def batch(self, step: int) -> Lesson:
        """Return the batch of ``step``."""
        epoch, place = divmod(step, self._size // self.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._seeds.numpy(f"order/{epoch}").permutation(self._size)
        rows = np.sort(self._order[place * self.batch_size : (place + 1) * self.batch_size])
        return Lesson(
            torch.from_numpy(np.asarray(self._arrays["image"][rows])),
            self._standard("pooled", rows),
            self._standard("map", rows),
            torch.from_numpy(np.asarray(self._arrays["label"][rows])),
        )

    def _standard(self, name: str, rows: NDArray[np.int64]) -> Tensor:
        mean, spread = self._scales[name]
        return (torch.from_numpy(np.asarray(self._arrays[name][rows])).float() - mean) / spread


class Distillation(TrainStep[Lesson]):
    """Squared error to the standardised features of the teacher, and cross-entropy of what the picture shows.

    Args:
        model: The student.
        reader: How it reads pictures.
        widths: Width of its pooled states and of its places.
        num_labels: Number of things that pictures show.
        label_weight: Weight of the cross-entropy; the two other losses have 1.
        norm_places: Whether the states of places are normalised first.
    """

    loss_names = ("pooled", "places", "label")

    def __init__(
        self,
        model: BlockBackbone,
        reader: Reader,
        *,
        widths: tuple[int, int],
        num_labels: int,
        label_weight: float = 0.1,
        norm_places: bool = False,
    ) -> None:
        self.model = model
        self._student, self._reader, self._label_weight = model, reader, label_weight
        pooled, places = nn.Linear(widths[0], POOLED_WIDTH), nn.Linear(widths[1], MAP_WIDTH)
        self._heads = nn.ModuleDict(
            {
                "pooled": pooled,
                "places": nn.Sequential(nn.LayerNorm(widths[1]), places) if norm_places else places,
                "label": nn.Linear(widths[0], num_labels),
            }
        )

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the heads, which nobody needs afterwards."""
        return {"heads": self._heads}

    def backward(self, batch: Lesson, step: int) -> Tensor:
        """Write the gradients; return the three losses."""
        image, places = _augmented(batch.image, batch.places)
        states = self._reader(self._student, image, step)
        if states.read is not None:
            places = places.gather(1, states.read.unsqueeze(2).expand(-1, -1, places.shape[2]))
        pooled = F.mse_loss(self._heads["pooled"](states.pooled), batch.pooled)
        local = F.mse_loss(self._heads["places"](states.places), places)
        logits = self._heads["label"](states.pooled)
        known = (batch.label >= 0).sum().clamp(min=1)
        shown = F.cross_entropy(logits, batch.label, ignore_index=-1, label_smoothing=LABEL_SMOOTHING, reduction="sum") / known
        (pooled + local + self._label_weight * shown).backward()
        return torch.stack([pooled, local, shown]).detach()


def _augmented(image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return pictures, half of them mirrored and all with other strengths of their colours, and the places to match."""
    mirrored = torch.rand(len(image), 1, 1, 1) < 0.5
    image = torch.where(mirrored, image.flip(2), image)
    grid = places.unflatten(1, (SIDE, SIDE))
    grid = torch.where(mirrored, grid.flip(2), grid)
    gain = 1.0 + JITTER * (2.0 * torch.rand(len(image), 1, 1, 3) - 1.0)
    return (image * gain).clamp(max=255.0), grid.flatten(1, 2)


def _mean_and_spread(values: NDArray[np.generic]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel (the last dimension), over everything else."""
    flat = values.reshape(-1, values.shape[-1])
    # In parts, in float64: half precision cannot sum, and a copy of all of it would be large.
    parts = [flat[start : start + 100_000].astype(np.float64) for start in range(0, len(flat), 100_000)]
    mean = np.sum([part.sum(axis=0) for part in parts], axis=0) / len(flat)
    square = np.sum([((part - mean) ** 2).sum(axis=0) for part in parts], axis=0) / len(flat)
    spread = np.sqrt(np.maximum(square, 1e-6))
    return torch.from_numpy(mean).float(), torch.from_numpy(spread).float()
