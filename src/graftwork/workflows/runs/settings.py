"""What the user asked for, as one frozen record that is written into the run folder and read back on resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from graftwork.core.errors import ConfigError
from graftwork.core.machine import available_cores
from graftwork.data.options import DataOptions
from graftwork.workflows.quantities import parse_bytes, parse_count, parse_milliseconds, parse_seconds
from graftwork.workflows.runs.presets import DEFAULT_PRESET, Preset, preset_of

__all__ = ["DEFAULT_TIME_LIMIT", "MOST_FOLDS", "FitSettings"]

DEFAULT_TIME_LIMIT = 300.0
"""Seconds that ``fit`` may take if neither a time limit nor a number of steps is given."""
MOST_FOLDS = 50

_Device = Literal["auto", "cpu", "cuda", "mps"]
_Precision = Literal["auto", "fp32", "bf16"]
_Prefer = Literal["score", "cost"]
_Keep = Literal["finalists", "chosen"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSettings:
    """Settings of one ``fit``. Everything here is JSON."""

    source: str = "emoji"
    """Path or name of an embedded suite; ``"<data>"`` if the caller handed in an object."""
    data: DataOptions = field(default_factory=DataOptions)
    """How the data is read."""
    time_limit: float | None = None
    """Seconds for everything up to the verdict; None: no limit."""
    preset: str = DEFAULT_PRESET
    """How thorough the run is where nothing else is said: a name of :data:`graftwork.workflows.runs.presets.PRESETS`."""
    steps: int | None = None
    """Optimiser steps of a full training; None: as many as fit into the time limit."""
    seeds: int = 3
    """Seeds of every finalist, at least 1."""
    folds: int | None = None
    """Folds of a cross-validation by which plans are compared, at least 3; 0: one split; None: five below 2,000 rows."""
    single: bool = False
    """Whether one model of one plan is handed over for all tasks: no average of plans, no plan for each task, no average of models that
    see different rows."""
    refit: bool = True
    """Whether the model that is handed over learns from all rows, once its plan is chosen."""
    keep: _Keep = "finalists"
    """Whose models stay in the run folder: those of all ``finalists``, or the ``chosen`` one alone."""
    warm_start: str | None = None
    """Folder of a finished run of the same tasks from which this one begins; None begins anew."""
    plans: tuple[str, ...] | None = None
    """Names of plans, ``all``, ``+name`` (besides the defaults), or paths of TOML files with plans; None: the defaults."""
    backbone: str | None = None
    """Pretrained backbone (see ``graftwork backbones``); ``"none"`` leaves pretrained plans out; None takes the default one."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of tasks in means over tasks, above 0; tasks without one weigh 1."""
    tolerance: float = 1.0
    """Percent of the best validation score that a cheaper plan may be worse by, at least 0."""
    prefer: _Prefer = "score"
    """Within the tolerance: ``score`` keeps the best plan, ``cost`` takes the cheapest that is not worse."""
    max_params: int | None = None
    """Most parameters to store."""
    max_latency: float | None = None
    """Most milliseconds for one row."""
    max_memory: int | None = None
    """Most bytes of resident memory while training."""
    workers: int | None = None
    """Processes that train at the same time; None: one for each core; 0: in this process."""
    device: _Device = "auto"
    """Where networks are trained; ``auto`` takes an accelerator where there is one."""
    precision: _Precision = "auto"
    """Of the forward passes of networks while they train; see :func:`graftwork.training.devices.chosen_precision`."""
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Training settings stronger than those of every plan."""
    checkpoint_seconds: float = 20.0
    """Longest time whose work a kill may undo."""

    def __post_init__(self) -> None:
        problems = []
        try:
            preset_of(self.preset)
        except ConfigError as error:
            problems.append(str(error))
        if self.steps is not None and self.steps < 4:
            problems.append(f"steps must be at least 4 (a race stops at a quarter and a half of them); got {self.steps}")
        if not 1 <= self.seeds <= 100:
            problems.append(f"seeds must be between 1 and 100; got {self.seeds}")
        if self.folds is not None and (self.folds in (1, 2) or not 0 <= self.folds <= MOST_FOLDS):
            problems.append(f"folds must be 0 (one split), or between 3 and {MOST_FOLDS}; got {self.folds}")
        if self.workers is not None and self.workers < 0:
            problems.append(f"workers must be at least 0; got {self.workers}")
        if self.device not in get_args(_Device):
            problems.append(f"device must be one of {', '.join(get_args(_Device))}; got {self.device!r}")
        if self.precision not in get_args(_Precision):
            problems.append(f"precision must be one of {', '.join(get_args(_Precision))}; got {self.precision!r}")
        wrong = [f"{name}={weight}" for name, weight in self.weights.items() if not 0 < weight < float("inf")]
        if wrong:
            problems.append(f"weights of tasks must be above 0; got {', '.join(wrong)}")
        if not 0 <= self.tolerance <= 100:
            problems.append(f"tolerance must be between 0 and 100 percent; got {self.tolerance}")
        if self.prefer not in get_args(_Prefer):
            problems.append(f"prefer must be one of {', '.join(get_args(_Prefer))}; got {self.prefer!r}")
        if self.keep not in get_args(_Keep):
            problems.append(f"keep must be one of {', '.join(get_args(_Keep))}; got {self.keep!r}")
        if problems:
            raise ConfigError("Some settings cannot be used.", problems)

    @property
    def preset_values(self) -> Preset:
        """What the preset stands for."""
        return preset_of(self.preset)

    @property
    def num_workers(self) -> int:
        """Number of worker processes; 0 runs the jobs in this process."""
        return available_cores() if self.workers is None else self.workers

    @classmethod
    def of_user(
        cls,
        source: str,
        *,
        time_limit: float | str | None = None,
        steps: int | None = None,
        preset: str | None = None,
        seeds: int | None = None,
        single: bool | None = None,
        plans: str | Sequence[str] | None = None,
        max_params: float | str | None = None,
        max_latency: float | str | None = None,
        max_memory: float | str | None = None,
        weights: Mapping[str, float | str] | None = None,
        tolerance: float | str | None = None,
        overrides: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Self:
        """Build settings from what people write: ``"6m"``, ``"5M"``, ``"a,b,c"``; ``others`` are fields, those of ``data``
        included. What is None is as the preset says.

        Raises:
            ConfigError: If a value cannot be read.
        """
        # With steps the user wants them all, however long they take.
        limit = parse_seconds(time_limit) if time_limit is not None else (None if steps is not None else DEFAULT_TIME_LIMIT)
        chosen = preset_of(preset or DEFAULT_PRESET)
        about_data = {name: others.pop(name) for name in DataOptions.names() if name in others}
        return cls(
            source=source,
            data=others.pop("data", None) or DataOptions.of_user(**about_data),
            time_limit=limit,
            steps=steps,
            preset=preset or DEFAULT_PRESET,
            seeds=chosen.seeds if seeds is None else seeds,
            single=chosen.single if single is None else single,
            plans=_names(plans),
            max_params=parse_count(max_params) if max_params is not None else None,
            max_latency=parse_milliseconds(max_latency) if max_latency is not None else None,
            max_memory=parse_bytes(max_memory) if max_memory is not None else None,
            weights={name: _number(weight, f"The weight of {name!r}") for name, weight in (weights or {}).items()},
            tolerance=1.0 if tolerance is None else _number(tolerance, "The tolerance"),
            overrides=dict(overrides or {}),
            **others,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a flat JSON object that :meth:`from_json` reads back; the options of ``data`` are keys like all others."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        own = {
            key: list(item) if isinstance(item, tuple) else item for key, item in values.items() if key not in ("source", "data")
        }
        return {"source": self.source, **self.data.to_json(), **own}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object."""
        own = {key: item for key, item in value.items() if key not in DataOptions.names()}
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in own.items()}
        return cls(data=DataOptions.from_json(value), **fields)


def _number(value: float | str, what: str) -> float:
    """Return a number that a user wrote, as in ``1.5``, ``"2"`` or ``"1 %"``.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return float(value.strip().removesuffix("%") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise ConfigError(f"{what} is a number, as in 2 or 0.5; got {value!r}.") from None


def _names(value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return comma-separated names as a tuple."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else list(value)
    return tuple(part.strip() for part in parts if part.strip())
