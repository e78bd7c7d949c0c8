"""Settings of the training loop, and of the training of several tasks on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.data.policies import POLICIES
from graftwork.data.quotas import parse_quotas

__all__ = ["Augmentation", "Autocast", "LoopConfig", "OptimizerName", "ScheduleName", "TrainConfig"]

OptimizerName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["cosine", "constant", "linear", "wsd"]
Autocast = Literal["none", "bfloat16"]
Augmentation = Literal["none", "flip", "shift", "flip+shift"]
Demand = tuple[str, str, bool]
"""A setting, what it must be, and whether it is."""
_MIXING = tuple(name for name in POLICIES if name != "temperature")  # a temperature is given as a number


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """Settings of the loop, whatever it trains.

    Raises:
        ConfigError: If a value is out of range; all problems are listed at once.
    """

    max_steps: int = 1000
    """Horizon of the learning rate schedule in steps."""
    learning_rate: float = 2e-3
    """Highest learning rate."""
    backbone_lr_scale: float = 1.0
    """Factor on the learning rate inside backbones; below 1 for pretrained ones."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and kernels (coupled for ``sgd`` and ``adam``); norms, biases and embeddings of one dimension
    are spared."""
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.9
    """Momentum of ``sgd``."""
    schedule: ScheduleName = "cosine"
    """``wsd`` is warm-up, stable, linear decay over the last third."""
    warmup_steps: int = 20
    """Steps of linear warm-up; at most a tenth of the horizon is used."""
    grad_clip: float = 5.0
    """Largest norm of all gradients together; 0 switches clipping off."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that evaluation uses, below 1; 0 evaluates the plain weights."""

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ConfigError("The training settings cannot be used.", problems)

    def _problems(self) -> list[str]:
        return [f"{name} must be {wanted}; got {getattr(self, name)!r}." for name, wanted, holds in self._demands() if not holds]

    def _demands(self) -> list[Demand]:
        """Return for each setting what it must be and whether it is."""
        return [
            ("max_steps", "an integer of at least 1", _is_int(self.max_steps, 1)),
            ("learning_rate", "a number above 0", _is_number(self.learning_rate) and self.learning_rate > 0),
            ("backbone_lr_scale", "a number above 0", _is_number(self.backbone_lr_scale) and self.backbone_lr_scale > 0),
            ("weight_decay", "a number of at least 0", _is_number(self.weight_decay) and self.weight_decay >= 0),
            ("optimizer", f"one of {', '.join(get_args(OptimizerName))}", self.optimizer in get_args(OptimizerName)),
            ("momentum", "a number in [0, 1)", _is_number(self.momentum) and 0 <= self.momentum < 1),
            ("schedule", f"one of {', '.join(get_args(ScheduleName))}", self.schedule in get_args(ScheduleName)),
            ("warmup_steps", "an integer of at least 0", _is_int(self.warmup_steps, 0)),
            ("grad_clip", "a number of at least 0", _is_number(self.grad_clip) and self.grad_clip >= 0),
            ("ema_decay", "a number in [0, 1)", _is_number(self.ema_decay) and 0 <= self.ema_decay < 1),
        ]

    @classmethod
    def from_settings(cls, *layers: Mapping[str, Any]) -> Self:
        """Build from several mappings, later ones stronger.

        Raises:
            ConfigError: If a key is unknown (the nearest known one is named) or a value is out of range.
        """
        known = [item.name for item in dataclasses.fields(cls)]
        merged: dict[str, Any] = {}
        for layer in layers:
            merged.update(layer)
        # All wrong keys at once: the constructor would stop at the first one.
        problems = []
        for key in merged:
            if key not in known:
                hint = did_you_mean(str(key), known)
                problems.append(f"unknown training setting {key!r}.{hint} Known settings: {', '.join(sorted(known))}.")
        if problems:
            raise ConfigError("The training settings cannot be used.", problems)
        return cls(**merged)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(LoopConfig):
    """How a model of several tasks is trained, apart from what the plan says (sharing, tuning, balancing).

    Raises:
        ConfigError: If a value is out of range; all problems are listed at once.
    """

    batch_size: int = 64
    """Rows a step; with ``quotas``, their sum counts in its place."""
    quotas: Sequence[Mapping[str, Any]] = ()
    """What a step is made of: ``[{"role": "labelled", "rows": 64}, {"role": "unlabelled", "rows": 64, "domain": "night"}]``;
    ``domain`` is the name of one data set, without it all count. Empty takes ``batch_size`` labelled rows. Rows without labels
    reach objectives, no task's loss."""
    mixing: str | float = "proportional"
    """How often each data set is met: ``proportional``, ``uniform``, ``balanced``, ``round-robin`` or a temperature of at least
    1."""
    augment: Augmentation = "none"
    """Random changes of pictures; other modalities take ``none`` only."""
    robust_regression: bool = False
    """Smooth L1 in place of the squared error, for targets with outliers."""
    accumulate: int = 1
    """Parts in which a batch goes through the model (gradient accumulation): less memory, the same gradients."""
    autocast: Autocast = "none"
    """Precision of forward passes; losses, gradients and weights stay in float32."""
    evaluations: int = 8
    """At most so many validations over the horizon; fewer if they would cost too much. 0 keeps the last weights."""
    patience: float = 0.0
    """Share of the horizon without a better validation after which training stops, below 1; 0 goes on to the horizon."""

    def _problems(self) -> list[str]:
        problems = LoopConfig._problems(self)
        try:
            parse_quotas(self.quotas)
        except ConfigError as error:
            problems += error.problems or [str(error)]
        return problems

    def _demands(self) -> list[Demand]:
        # Named, not `super()`: slots make a new class, and the bare form would look for the old one.
        return [
            *LoopConfig._demands(self),
            ("batch_size", "an integer of at least 1", _is_int(self.batch_size, 1)),
            (
                "mixing",
                f"one of {', '.join(_MIXING)}, or a temperature of at least 1",
                self.mixing in _MIXING or (_is_number(self.mixing) and float(self.mixing) >= 1),
            ),
            ("augment", f"one of {', '.join(get_args(Augmentation))}", self.augment in get_args(Augmentation)),
            ("robust_regression", "true or false", isinstance(self.robust_regression, bool)),
            ("accumulate", "an integer of at least 1", _is_int(self.accumulate, 1)),
            ("autocast", f"one of {', '.join(get_args(Autocast))}", self.autocast in get_args(Autocast)),
            ("evaluations", "an integer of at least 0", _is_int(self.evaluations, 0)),
            ("patience", "a number in [0, 1)", _is_number(self.patience) and 0 <= self.patience < 1),
        ]


def _is_int(value: Any, least: int) -> bool:
    # `true` is an integer to Python; a batch of `true` rows is a mistake in a file.
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
