"""From answers back to raw outputs: what a head would have to give for :func:`graftwork.tasks.decode.decode_output` to make these
answers of it. For teachers that are known by their predictions alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind

__all__ = ["raw_answers"]

Array = NDArray[Any]


def raw_answers(spec: TaskSpec, answers: Array) -> NDArray[np.float32]:
    """Return raw outputs ``[N, num_outputs]``.

    Args:
        spec: The task.
        answers: As ``Learner.predict`` lays them out: probabilities of classes ``[N, C]``, of a yes ``[N]`` or of labels ``[N,
            L]``; numbers in the user's units ``[N, K]``.

    Raises:
        ConfigError: If the kind has no such way back, or the shape does not fit.
    """
    kind, values = task_kind(spec), np.asarray(answers, dtype=np.float64)
    if kind.can_be_taught:
        expected = kind.answer_shape(spec, (len(values),))
        fits = values.shape == expected or (values.shape == (len(values), 1) and len(expected) == 1)
        if not fits and not (values.ndim == 1 and expected == (len(values), 1)):
            shape = f"[{', '.join(map(str, ('N', *expected[1:])))}]"
            raise ConfigError(
                f"Task {spec.name!r} ({spec.kind_words}): predictions must have the shape {shape}; got {values.shape}."
            )
    return kind.raw_output(spec, values).astype(np.float32)
