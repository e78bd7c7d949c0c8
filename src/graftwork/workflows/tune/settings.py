"""What the user asked of ``tune``: the settings of ``fit`` about data and training, a method, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.workflows.quantities import parse_count
from graftwork.workflows.runs.settings import FitSettings
from graftwork.workflows.tune.methods import AUTO

__all__ = ["DEFAULT_STEPS", "TuneSettings", "parse_trainable"]

DEFAULT_STEPS = 500
"""Steps of the training if no number is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneSettings(FitSettings):
    """Settings of one ``tune``. ``max_memory`` is the most bytes that a step may take besides the model: what is held for the
    backward pass, gradients, and two moments of the optimiser."""

    method: str = AUTO
    """Name of a method, the dotted path of a tuner, or ``auto``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the method's tuner."""
    max_trainable: str = ""
    """Most numbers that learn: a count (``5M``), or a share of the model's (``1%``); empty: no limit."""

    def __post_init__(self) -> None:
        FitSettings.__post_init__(self)
        problems = []
        if self.max_trainable:
            try:
                parse_trainable(self.max_trainable)
            except ConfigError as error:
                problems.append(str(error))
        if self.settings and self.method == AUTO:
            problems.append("settings of a tuner need a method; name one with --method")
        if self.backbone in ("none", "scratch"):
            problems.append(f"the backbone must be a pretrained one (see graftwork backbones); got {self.backbone!r}")
        if problems:
            raise ConfigError("Some settings cannot be used.", problems)


def parse_trainable(text: str) -> tuple[float, bool]:
    """Return a limit, and whether it is a share.

    Raises:
        ConfigError: If it cannot be read, or is not above 0.

    Example:
        >>> parse_trainable("1%"), parse_trainable("5M")
        ((0.01, True), (5000000, False))
    """
    words = text.strip()
    if not words.endswith("%"):
        return parse_count(words), False
    try:
        share = float(words.removesuffix("%")) / 100.0
    except ValueError:
        share = float("nan")
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"max-trainable is a share such as 1%, or a count such as 5M; got {text!r}.")
    return share, True
