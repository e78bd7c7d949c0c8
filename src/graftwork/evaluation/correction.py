"""Corrections of probabilities: a temperature, and a shift of each class or label where the rows suffice for it.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (temperature scaling); Platt, "Probabilistic Outputs for Support
Vector Machines", 1999; Alexandari et al., "Maximum Likelihood with Bias-Corrected Calibration Is Hard-To-Beat at Label Shift
Adaptation", ICML 2020. They work on logarithms of the probabilities themselves, so that trees, averages and networks are corrected in
one way, behind whatever computed them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from graftwork.core.errors import FileFormatError
from graftwork.interfaces.metric import Array, Floats

__all__ = ["LEAST_PROBABILITY", "Correction"]

LEAST_PROBABILITY = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logarithm is taken, as the log loss does it."""

_MOST_ENTRIES = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """What is done to the probabilities of one task.

    ``exclusive`` probabilities ``[N, C]`` of one class among several become the softmax of ``scale * log p + shifts``; all others,
    ``[N]`` or ``[N, L]``, one by one the sigmoid of ``scale * log(p / (1 - p)) + shifts``. Without shifts the largest probability
    stays the largest, and what was above one half stays so.
    """

    exclusive: bool
    scale: float = 1.0
    """One over the temperature, above 0: below 1 makes probabilities less sure."""
    shifts: tuple[float, ...] = ()
    """One for each class or label; empty for none."""

    @property
    def temperature(self) -> float:
        """Above 1 the model was too sure, below 1 not sure enough."""
        return 1.0 / self.scale

    def logits(self, probabilities: Array) -> Floats:
        """Return the logarithms that are scaled and shifted, of the shape of the probabilities, float64."""
        return log_odds(probabilities, exclusive=self.exclusive)

    def apply(self, probabilities: Array) -> Array:
        """Return corrected probabilities of the same shape and type; NaN stays NaN.

        Example:
            >>> Correction(exclusive=False, scale=0.5).apply(np.array([0.5, 0.9])).round(3).tolist()
            [0.5, 0.75]
        """
        rows = max(1, _MOST_ENTRIES * len(probabilities) // max(1, np.size(probabilities)))
        if len(probabilities) > rows:  # in float64, some at a time
            return np.concatenate(
                [self.apply(probabilities[start : start + rows]) for start in range(0, len(probabilities), rows)]
            )
        values = self.scale * self.logits(probabilities)
        if self.shifts:
            values = values + (self.shifts[0] if values.ndim == 1 else np.asarray(self.shifts, dtype=np.float64))
        if not self.exclusive:
            found = 1.0 / (1.0 + np.exp(-values))
        else:
            raised = np.exp(values - values.max(axis=1, keepdims=True))
            found = raised / raised.sum(axis=1, keepdims=True)
        return found.astype(np.asarray(probabilities).dtype)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return {"exclusive": self.exclusive, "temperature": self.temperature, "shifts": list(self.shifts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            FileFormatError: If it is none.
        """
        try:
            shifts: Sequence[Any] = value["shifts"]
            made = cls(
                exclusive=bool(value["exclusive"]), scale=1.0 / float(value["temperature"]), shifts=tuple(map(float, shifts))
            )
        except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise FileFormatError(
                f"{value!r} is no correction of probabilities: it takes exclusive, temperature and shifts. Restore the model's "
                "config.json from a copy."
            ) from error
        if not (made.scale > 0 and np.isfinite([made.scale, *made.shifts]).all()):
            raise FileFormatError(
                f"{value!r} is no correction of probabilities: the temperature must be above 0 and all numbers finite. Restore the "
                "model's config.json from a copy."
            )
        return made


def log_odds(probabilities: Array, *, exclusive: bool) -> Floats:
    """Return logarithms of probabilities, or of their odds where they are not exclusive, float64."""
    found = np.clip(np.asarray(probabilities, dtype=np.float64), LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return np.asarray(np.log(found) - (0.0 if exclusive else np.log1p(-found)))
