"""What to predict: the record of a task, checked against the kinds that exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from graftwork.core.errors import ConfigError
from graftwork.core.kinds import find_kind, resolve_kind
from graftwork.core.settings import converted_value

__all__ = ["TaskSpec"]

MAX_SIZE = 10_000_000
"""Largest ``size`` of a task; a larger one is a damaged number, for which nobody should wait or run out of memory."""
_WRITTEN_IF_SET = ("positions", "details")
"""Left out of JSON when empty, so that tasks without them read and hash as they always did."""
_Numbers = list[float | None]
# NaN is written as null.
_STORED: Mapping[str, Any] = {
    **dict.fromkeys(("name", "kind", "metric", "positions"), str),
    **dict.fromkeys(("classes", "columns"), list[str]),
    **dict.fromkeys(("center", "scale"), _Numbers),
    "size": int,
    "details": Mapping[str, Any],
}
"""Types of the values in JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """What to predict: output space, loss and metric follow from it.

    Targets are arrays (the same layout in NumPy and torch), ``N`` rows. Integers have -1 where a label is missing, floats NaN:

    ===========  =======================  ======================================
    kind         shape and dtype          outputs of the head
    ===========  =======================  ======================================
    binary       ``[N]`` int64, 0 or 1    1 logit
    multiclass   ``[N]`` int64, class     ``size`` logits
    ordinal      ``[N]`` int64, class     ``size - 1`` cumulative logits
    multilabel   ``[N, size]`` f32, 0/1   ``size`` logits
    regression   ``[N, size]`` float32    ``size`` standardised values
    ===========  =======================  ======================================

    With ``positions`` there is one answer for each pixel, point, step or node of a row. ``P`` stands for their axes, ``H, W``
    for pixels:

    ===========  ===========================  ======================================
    kind         shape and dtype              outputs of the head, each ``[N, ., P]``
    ===========  ===========================  ======================================
    binary       ``[N, P]`` int64, 0 or 1     1 logit
    multiclass   ``[N, P]`` int64, class      ``size`` logits
    regression   ``[N, size, P]`` float32     ``size`` standardised values
    normals      ``[N, 3, P]`` float32        3 values
    offsets      ``[N, 2, P]`` float32        2 values
    ===========  ===========================  ======================================

    Normals are right, up and towards the viewer; offsets are right and down (from a pixel to the centre of its body, say, or to
    where it moves). Other kinds are described in their modules, see :mod:`graftwork.tasks.kinds`.

    Raises:
        ConfigError: If there is no such kind, or the fields do not fit it.

    Example:
        >>> TaskSpec(name="parts", kind="dense_multiclass", size=7).positions  # the older word for a multiclass task over pixels
        'pixels'
    """

    name: str
    kind: str
    """Name of a module of :mod:`graftwork.tasks.kinds` or of a registered kind. Aliases are replaced by the kind's own name."""
    size: int
    """Number of classes, labels or values; 1 for a binary task, of pixels too."""
    classes: tuple[str, ...] = ()
    """Names of classes or labels in index order; empty for regression."""
    columns: tuple[str, ...] = ()
    """Columns of the user's table that hold the target."""
    center: tuple[float, ...] = ()
    """Mean of each regression value over the training rows; empty otherwise."""
    scale: tuple[float, ...] = ()
    """Standard deviation of each regression value over the training rows, above 0; empty otherwise."""
    metric: str = ""
    """Primary metric; empty takes the default of the kind (see ``evaluation.metrics``)."""
    positions: str = ""
    """What each row has one answer for: ``pixels``, ``points``, ``steps`` or ``nodes``; empty for one answer a row."""
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else the kind needs to know, JSON values only; the kind's module says which keys."""

    def __post_init__(self) -> None:
        try:
            kind, positions = resolve_kind(self.kind, self.positions)
        except ConfigError as error:
            # Not chained: the cause would say the same sentence again.
            raise ConfigError(f"Task {self.name!r}: {error}") from None
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "positions", positions)
        if self.size < 1:
            raise ConfigError(f"Task {self.name!r}: size must be at least 1; got {self.size}.")
        if self.size > MAX_SIZE:
            raise ConfigError(f"Task {self.name!r}: size must be at most {MAX_SIZE:,}; got {self.size}.")
        problems = find_kind(kind, positions).problems(self)
        if problems:
            raise ConfigError(f"Task {self.name!r} ({self.kind_words}): {' '.join(problems)}")

    @property
    def num_outputs(self) -> int:
        """Width of the head that this task needs."""
        return find_kind(self.kind, self.positions).num_outputs(self)

    @property
    def is_dense(self) -> bool:
        """Whether the task asks for one prediction per position of a row, such as a pixel."""
        return bool(self.positions)

    @property
    def kind_words(self) -> str:
        """The kind for messages: ``multiclass``, or ``multiclass over pixels``."""
        return f"{self.kind} over {self.positions}" if self.positions else self.kind

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        value = dataclasses.asdict(self)
        for name in _WRITTEN_IF_SET:
            if not value[name]:
                del value[name]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            ConfigError: If it is no object, or a value is of another type.
            TypeError: If a key is unknown or missing.
        """
        if not isinstance(value, Mapping):
            raise ConfigError(f"A task is described by an object; got {value!r:.80}.")
        for key in _STORED.keys() & value.keys():
            try:
                converted_value(value[key], _STORED[key])
            except ConfigError as error:
                raise ConfigError(f"Task {value.get('name')!r:.80}: {key} {error}.") from None
        fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        return cls(**fields)
