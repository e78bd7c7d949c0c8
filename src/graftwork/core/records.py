"""The records that cross rooms. Frozen, JSON for everything but tensors, no torch at import."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.task_spec import TaskSpec

__all__ = [
    "Component",
    "Interval",
    "Ledger",
    "Lineage",
    "Modality",
    "Plan",
    "RunResult",
    "Scores",
    "TaskSpec",
]

Modality = Literal["table", "image", "text"]

_LEARNER = Component("graftwork.training.learner:NeuralLearner")
_SHARING = Component("graftwork.methods.sharing.shared_trunk:SharedTrunk")
_OPTIMIZATION = Component("graftwork.methods.optimization.equal_weights:EqualWeights")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How the tasks are to be learned: source x sharing x tuning x optimization, as plain data."""

    name: str
    """Short stable name, for example ``"shared-trunk"``."""
    title: str
    """One line for people."""
    family: str
    """What the report groups by: ``separate``, ``sharing``, ``balancing``, ``frozen``, ``tuning`` or ``trees``."""
    modalities: tuple[Modality, ...]
    learner: Component = _LEARNER
    """The :class:`~graftwork.interfaces.learner.Learner` that trains it."""
    source: str = "scratch"
    """``"scratch"``, or ``"pretrained"`` for the backbone chosen for the run."""
    sharing: Component = _SHARING
    tuning: Component | None = None
    """A Tuner for pretrained sources (frozen, LoRA, full); None trains everything."""
    optimization: Component = _OPTIMIZATION
    objectives: tuple[Component, ...] = ()
    """Extra losses (the Objective seam)."""
    transforms: tuple[Component, ...] = ()
    """What changes the gradients before the optimiser sees them, in this order (the GradientTransform seam)."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of :class:`graftwork.training.config.TrainConfig`."""
    min_tasks: int = 1
    """The race leaves the plan out of suites with fewer tasks."""
    shuffled_control: bool = True
    """Whether it can be trained with its companions' labels shuffled. A plan that builds on how labels of its tasks depend on each other (no
    purchase without a click) cannot."""
    system: str = ""
    """Slug of the published system that this plan comes from, if any."""

    def components(self) -> Iterator[tuple[str, Component]]:
        """Yield every component with the name of its place, as in ``("sharing", Component(...))``."""
        for place in ("learner", "sharing", "tuning", "optimization", "objectives", "transforms"):
            held = getattr(self, place)
            for component in held if isinstance(held, tuple) else (held,):
                if component is not None:
                    yield place, component

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return {
            "name": self.name,
            "title": self.title,
            "family": self.family,
            "modalities": list(self.modalities),
            "learner": self.learner.to_json(),
            "source": self.source,
            "sharing": self.sharing.to_json(),
            "tuning": self.tuning.to_json() if self.tuning else None,
            "optimization": self.optimization.to_json(),
            "objectives": [objective.to_json() for objective in self.objectives],
            "transforms": [transform.to_json() for transform in self.transforms],
            "training": dict(self.training),
            "min_tasks": self.min_tasks,
            "shuffled_control": self.shuffled_control,
            "system": self.system,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a plan from JSON or TOML data.

        Raises:
            ConfigError: If a key is unknown or a required one is missing.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        unknown = sorted(set(value) - known)
        missing = sorted({"name", "title", "family", "modalities"} - set(value))
        if unknown or missing:
            problems = [f"unknown key {key!r}; known keys: {', '.join(sorted(known))}" for key in unknown]
            problems += [f"missing key {key!r}" for key in missing]
            raise ConfigError(f"Plan {value.get('name', '?')!r} cannot be read.", problems)
        fields = dict(value)
        for key in ("learner", "sharing", "tuning", "optimization"):
            if fields.get(key) is not None:
                fields[key] = Component.from_json(fields[key])
        for key in ("objectives", "transforms"):
            fields[key] = tuple(Component.from_json(item) for item in fields.get(key, ()))
        fields["modalities"] = tuple(fields["modalities"])
        return cls(**fields)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """One plan trained with one seed, and what came of it."""

    plan: Plan
    seed: int
    steps: int
    suite_fingerprint: str
    validation: Scores
    ledger: Ledger
    status: Literal["ok", "diverged", "failed"] = "ok"
    message: str = ""
    """Why it did not end well; empty if it did."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "plan": self.plan.to_json(),
            "seed": self.seed,
            "steps": self.steps,
            "suite_fingerprint": self.suite_fingerprint,
            "validation": self.validation,
            "ledger": self.ledger.to_json(),
            "status": self.status,
            "message": self.message,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object."""
        return cls(**{**value, "plan": Plan.from_json(value["plan"]), "ledger": Ledger.from_json(value["ledger"])})


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
