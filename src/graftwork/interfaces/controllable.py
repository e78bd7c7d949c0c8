"""ControllableModel: a trained model that can be made smaller, or prefer some tasks, without another checkpoint.

How the hardest systems fit:

- ECMT slims encoder and decoders to nested widths: a configuration is one ratio for the encoder and one for each task's decoder.
- What is served is a few ordinary networks (``slice``), not the elastic one: runtimes need no support for it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftwork.interfaces.shared_model import SharedModel

__all__ = ["Configuration", "ControllableModel"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """How large each part of a controllable model is, relative to the full one, in ``(0, 1]``."""

    encoder: float
    decoders: Mapping[str, float]
    """``{task: ratio}``."""

    def key(self) -> tuple[float, tuple[tuple[str, float], ...]]:
        """Return a hashable form."""
        return self.encoder, tuple(sorted(self.decoders.items()))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"encoder": self.encoder, "decoders": dict(self.decoders)}


class ControllableModel(SharedModel):
    """A model with a configuration; a fresh one is at its full size. The training loop sees an ordinary :class:`SharedModel`."""

    @property
    @abstractmethod
    def full(self) -> Configuration:
        """The largest configuration."""

    @abstractmethod
    def choose(self, *, budget: float = 1.0, importance: Mapping[str, float] | None = None) -> Configuration:
        """Return the configuration for a budget and the importance of the tasks; the model is not changed.

        Args:
            budget: Largest share of the full model's FLOPs per sample, above 0 and at most 1.
            importance: Weight of each task, at least 0; tasks that are not named weigh 1. None weighs all alike.

        Raises:
            ConfigError: If no configuration fits the budget, or a weight cannot be used.
        """

    @abstractmethod
    def set_configuration(self, configuration: Configuration) -> None:
        """Compute with this configuration from now on."""

    @abstractmethod
    def flops(self, configuration: Configuration) -> float:
        """Return the measured floating-point operations per sample of the sliced network, all tasks."""

    @abstractmethod
    def slice(self, configuration: Configuration | None = None) -> SharedModel:
        """Return an ordinary network with a copy of the weights of a configuration (None: the present one), equal in its
        outputs."""
