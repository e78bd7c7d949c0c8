"""From answers back to raw outputs: what a head would have to give for :func:`graftwork.tasks.decode.decode_output` to make these
answers of it. For teachers that are known by their predictions alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec

__all__ = ["KINDS_WITH_RAW_ANSWERS", "raw_answers"]

Array = NDArray[Any]
KINDS_WITH_RAW_ANSWERS = ("binary", "multiclass", "multilabel", "ordinal", "regression")
_SURE = 1e-4
"""Probabilities are kept this far from 0 and 1, whose logarithms are infinite."""


def raw_answers(spec: TaskSpec, answers: Array) -> NDArray[np.float32]:
    """Return raw outputs ``[N, num_outputs, ...]``.

    Args:
        spec: The task.
        answers: As ``Learner.predict`` lays them out: probabilities of classes ``[N, C]``, of a yes ``[N]`` or of labels ``[N,
            L]``; numbers in the user's units ``[N, K]``.

    Raises:
        ConfigError: If the kind has no such way back, or the shape does not fit.
    """
    if spec.kind not in KINDS_WITH_RAW_ANSWERS or spec.positions:
        raise ConfigError(
            f"Predictions of the task {spec.name!r} ({spec.kind_words}) cannot be taught as they are; those of the kinds "
            f"{', '.join(KINDS_WITH_RAW_ANSWERS)} can. Give the teacher's run folder, or its features."
        )
    values = np.asarray(answers, dtype=np.float64)
    width = 1 if spec.kind == "binary" else spec.size
    if values.ndim == 1 and width == 1:
        values = values[:, None]
    if values.shape[1:] != (width,):
        raise ConfigError(
            f"Task {spec.name!r} ({spec.kind_words}): predictions must have the shape [N, {width}]; got {values.shape}."
        )
    if spec.kind == "regression":
        center, scale = np.array(spec.center or [0.0] * width), np.array(spec.scale or [1.0] * width)
        return ((values - center) / scale).astype(np.float32)
    if spec.kind == "multiclass":
        return np.log(np.clip(values, _SURE / width, None)).astype(np.float32)
    if spec.kind == "ordinal":
        # The head says how probable each class is to be exceeded. [N, size - 1]
        values = values[:, ::-1].cumsum(axis=1)[:, -2::-1]
    values = np.clip(values, _SURE, 1.0 - _SURE)
    return np.asarray(np.log(values) - np.log1p(-values), dtype=np.float32)
