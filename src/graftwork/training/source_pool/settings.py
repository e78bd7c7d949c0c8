"""How large a pool and its table are; what the results of one table may depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from graftwork.core.errors import ConfigError

__all__ = ["PoolSettings", "refuse_below", "settings_hash"]

_VERSION = 2
"""Raised whenever equal settings would give other results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Sizes of data and trainings. Equal settings give equal tables on one machine.

    Raises:
        ConfigError: If a number is out of range.
    """

    channels: tuple[int, int, int, int] = (16, 32, 64, 64)
    """Widths of the convolutions of the generated members."""
    source_rows: int = 2000
    """Training rows of a source with the full share."""
    target_rows: int = 120
    test_rows: int = 600
    source_steps: int = 350
    tune_steps: int = 120
    """Steps of fine-tuning on a target."""
    packaged_steps: int = 40
    """Likewise of backbones that come as packages, whose steps cost more."""
    packaged: bool = True
    """Whether the pretrained image backbones that are installed join the pool."""
    members: tuple[str, ...] = ()
    """Names of the generated sources; empty takes all."""
    targets: tuple[str, ...] = ()
    """Names of the targets; empty takes all."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"source_rows": 40, "target_rows": 24, "test_rows": 24, "source_steps": 1, "tune_steps": 1, "packaged_steps": 1}
        refuse_below(self, least)

    def key(self) -> str:
        """Return the name under which members are kept: a hash of all that their training depends on."""
        return settings_hash([_VERSION, list(self.channels), self.source_rows, self.source_steps, self.seed])

    def row_key(self) -> str:
        """Return a hash of all that a row of the table depends on besides the member."""
        values = dataclasses.asdict(self)
        return settings_hash(
            [_VERSION, {name: value for name, value in values.items() if name not in ("packaged", "members", "targets")}]
        )


def refuse_below(settings: object, least: Mapping[str, int]) -> None:
    """Refuse settings of which a number is smaller than it may be.

    Args:
        settings: Has an attribute for each name.
        least: The least value by name.

    Raises:
        ConfigError: Naming all that are too small.
    """
    wrong = [
        f"{name} must be at least {low}; got {getattr(settings, name)}"
        for name, low in least.items()
        if getattr(settings, name) < low
    ]
    if wrong:
        raise ConfigError("The pool cannot be made as asked.", wrong)


def settings_hash(value: object) -> str:
    """Return a short hash of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
