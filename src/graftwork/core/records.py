"""The records that cross rooms. Frozen, JSON for everything but tensors, no torch at import."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from graftwork.core.components import Component
from graftwork.core.plan import Modality, Plan, Role
from graftwork.core.task_spec import TaskSpec

__all__ = [
    "Component",
    "Interval",
    "Ledger",
    "Lineage",
    "Modality",
    "Plan",
    "Role",
    "Scores",
    "TaskSpec",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with its confidence interval."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def to_json(self) -> dict[str, float]:
        """Return a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, float]) -> Self:
        """Read :meth:`to_json`'s object."""
        return cls(**value)


Scores = dict[str, dict[str, float]]
"""``{task: {metric: value}}``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """What a run cost. Zero means not measured; the same probes fill it for every plan."""

    parameters_total: int = 0
    parameters_trained: int = 0
    parameters_stored: int = 0
    """Numbers in the files that deployment needs for all tasks (a shared backbone counts once)."""
    flops_per_sample: float = 0.0
    steps: int = 0
    samples: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_bytes: int = 0
    activation_bytes: int = 0
    latency_ms_batch1: float = 0.0
    latency_ms_batch32: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object."""
        return cls(**value)

    def without(self, parts: Sequence[Self]) -> Self:
        """Return what is left of the stored numbers and the operations without some parts; everything else stays."""
        names = ("parameters_total", "parameters_stored", "flops_per_sample")
        left = {name: max(0, getattr(self, name) - sum(getattr(part, name) for part in parts)) for name in names}
        return dataclasses.replace(self, **left)

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """Return what several models cost that are used together: all adds up, but of memory the highest counts."""
        highest = ("peak_rss_bytes", "activation_bytes")
        names = [item.name for item in dataclasses.fields(cls)]
        return cls(**{name: (max if name in highest else sum)(getattr(part, name) for part in parts) for name in names})


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """What a saved model was made from, by what, with which data."""

    made_by: str
    """Verb and version, for example ``"graftwork fit 0.1.0"``."""
    command: str
    plan: str
    seed: int
    inputs: Mapping[str, str]
    """SHA-256 of every input file, or the suite's fingerprint, by name."""
    bases: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of every pretrained model it starts from, by name."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Licence or credit line of data and bases, by name."""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    """ISO 8601 date and time, UTC."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {key: dict(item) if isinstance(item, Mapping) else item for key, item in dataclasses.asdict(self).items()}
