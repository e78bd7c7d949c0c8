"""How a user's data is to be read, as one frozen record: it travels as a whole from the command line to the readers. No pandas
here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["CLASS_WEIGHTS", "DataOptions", "Targets"]

CLASS_WEIGHTS = ("balanced",)
"""What can be asked of the weights of classes: ``balanced`` lets all classes weigh the same together."""
Targets = str | Sequence[str] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions:
    """What the user says about data; nothing of it is needed for data that describes itself."""

    targets: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None
    """Columns to predict: names, ``name=a+b`` for a task of several columns, or ``{task: columns}``."""
    labels: Any = None
    """Table with the labels of pictures: a path, or a DataFrame."""
    text: str | tuple[str, ...] | None = None
    """Column(s) with the text to learn from."""
    group: str | None = None
    """Column whose equal values stay on one side of every split; ``"none"`` splits by rows whatever is found."""
    time: str | None = None
    """Column by whose order the rows are divided: the latest ones are tested on."""
    categories: tuple[str, ...] | None = None
    """Columns whose numbers are names (ids, codes)."""
    histories: Mapping[str, str] = field(default_factory=dict)
    """``{history column: item column}``."""
    task_kinds: Mapping[str, str] = field(default_factory=dict)
    """Overrides of the inferred kinds, ``{"size": "ordinal: s < m < l"}``."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Primary metrics of tasks, ``{"sold": "log_loss"}``."""
    class_weights: Mapping[str, str] = field(default_factory=dict)
    """Weights of classes in the loss, ``{"sold": "balanced"}``."""
    image_size: int | None = None
    """Side of the encoded pictures in pixels."""
    image_column: str | tuple[str, ...] | None = None
    """Column of the labels that names the pictures; of a table, column(s) with the paths of pictures."""
    ignore: tuple[str, ...] | None = None
    """Columns of a table that are not learned from."""
    missing: tuple[str, ...] | None = None
    """Words and numbers that mean a missing cell, in all columns."""
    split_labels: str | None = None
    """What separates the labels in a cell of a target; ``"auto"`` looks for it."""
    strict: bool = False
    """Whether a single picture that cannot be read is an error."""

    @classmethod
    def of_user(
        cls,
        *,
        targets: Targets | None = None,
        labels: Any = None,
        text: str | Sequence[str] | None = None,
        group: str | None = None,
        time: str | None = None,
        categories: str | Sequence[str] | None = None,
        histories: Mapping[str, str] | None = None,
        task_kinds: Mapping[str, str] | None = None,
        metrics: Mapping[str, str] | None = None,
        class_weights: Mapping[str, str] | None = None,
        image_size: int | None = None,
        image_column: str | Sequence[str] | None = None,
        ignore: str | Sequence[str] | None = None,
        missing: str | Sequence[str] | None = None,
        split_labels: str | None = None,
        strict: bool = False,
    ) -> Self:
        """Build options from what people write, such as ``"a,b"`` for names."""
        if isinstance(targets, Mapping):
            wanted: Any = {name: (part,) if isinstance(part, str) else tuple(part) for name, part in targets.items()}
        else:
            wanted = _names(targets)
        return cls(
            targets=wanted,
            labels=os.fspath(labels) if isinstance(labels, os.PathLike) else labels,
            text=text if text is None or isinstance(text, str) else tuple(text),
            group=group,
            time=time,
            categories=_names(categories),
            histories=dict(histories or {}),
            task_kinds=dict(task_kinds or {}),
            metrics=dict(metrics or {}),
            class_weights=dict(class_weights or {}),
            image_size=image_size,
            image_column=image_column if image_column is None or isinstance(image_column, str) else tuple(image_column),
            ignore=_names(ignore),
            # Not cut at commas, which a word may hold.
            missing=None if missing is None else (missing,) if isinstance(missing, str) else tuple(map(str, missing)),
            split_labels=split_labels,
            strict=strict,
        )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(one.name for one in dataclasses.fields(cls))

    def group_in(self, columns: Collection[object]) -> str | None:
        """Return the group column; ``"none"`` is no column unless one is called so."""
        return None if self.is_ungrouped(columns) else self.group

    def is_ungrouped(self, columns: Collection[object]) -> bool:
        """Return whether the rows of a table with these columns are to be split one by one."""
        return self.group == "none" and "none" not in columns

    def text_columns(self, columns: Collection[object]) -> tuple[str, ...]:
        """Return the text columns; ``"title+body"`` are two unless a column is called so."""
        if isinstance(self.text, str):
            return (self.text,) if self.text in columns else tuple(self.text.split("+"))
        return self.text or ()

    def image_columns(self, columns: Collection[object]) -> tuple[str, ...]:
        """Return the columns of a table with paths of pictures; ``"front,back"`` are two unless a column is called so."""
        if isinstance(self.image_column, str):
            return (self.image_column,) if self.image_column in columns else _names(self.image_column) or ()
        return self.image_column or ()

    def given(self, *, besides: Sequence[str] = ()) -> dict[str, Any]:
        """Return the options that are set, without those named in ``besides``."""
        values = {name: getattr(self, name) for name in self.names() if name not in besides}
        # Empty mappings are "not given"; an empty tuple was given on purpose.
        return {
            name: value
            for name, value in values.items()
            if value is not None and value is not False and not (isinstance(value, Mapping) and not value)
        }

    def to_json(self) -> dict[str, Any]:
        """Return a flat JSON object that :meth:`from_json` reads back."""
        values = {name: getattr(self, name) for name in self.names()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object; other keys are left alone."""
        found: dict[str, Any] = {name: value[name] for name in cls.names() if name in value}
        fields: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in found.items()}
        return cls(**fields)


def _names(value: Any) -> tuple[str, ...] | None:
    """Return comma-separated names as a tuple."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
    return tuple(part.strip() for part in parts if part.strip())
