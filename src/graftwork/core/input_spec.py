"""What the inputs of a suite are: named and typed records, of any number of kinds (a table row with a text and a picture)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from graftwork.core.errors import ConfigError, FileFormatError

__all__ = [
    "InputSpec",
    "InputSpecs",
    "image_input",
    "input_of_kind",
    "read_input_specs",
    "table_input",
    "text_input",
    "write_input_specs",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """One input of every row: the columns of a table, a picture, a text."""

    kind: str
    """Name of a kind of :mod:`graftwork.core.input_kinds`: ``table``, ``image``, ``text`` ..."""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """What a trunk needs to be built; the kind's module in :mod:`graftwork.data.inputs` says which keys there are."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """JSON state of the encoder that makes the arrays from raw rows; empty if the data came as arrays."""
    arrays: Mapping[str, str] = field(default_factory=dict)
    """``{array of the kind: its name in the suite}``. Empty in suites of one input: all arrays are its, under their own names."""

    def own(self, arrays: Mapping[str, T]) -> Mapping[str, T]:
        """Return the arrays (or tensors) of this input, as its kind calls them, from those of the suite."""
        return arrays if not self.arrays else {own: arrays[name] for own, name in self.arrays.items()}

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return {"kind": self.kind, "sizes": dict(self.sizes), "encoder": dict(self.encoder), "arrays": dict(self.arrays)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            FileFormatError: If a key is missing or a value is of another type.
        """
        kind, rest = value.get("kind"), {key: value.get(key, {}) for key in ("sizes", "encoder", "arrays")}
        wrong = [key for key, item in rest.items() if not isinstance(item, Mapping)]
        if not isinstance(kind, str) or wrong:
            raise FileFormatError(
                f"The description of an input cannot be read: kind is {kind!r}"
                + (f", and {', '.join(wrong)} must be objects" if wrong else "")
                + ". Restore the file from a copy."
            )
        return cls(kind=kind, **rest)


InputSpecs = Mapping[str, InputSpec]
"""The inputs of a suite by name."""


def write_input_specs(inputs: InputSpecs) -> dict[str, Any]:
    """Return the JSON value of the key ``input_specs``."""
    return {name: spec.to_json() for name, spec in inputs.items()}


def read_input_specs(value: Mapping[str, Any]) -> dict[str, InputSpec]:
    """Return the inputs from a JSON object with the key ``input_specs``; older files say ``modality``, ``input_sizes`` and
    ``encoder`` of their only input.

    Raises:
        FileFormatError: If a description cannot be read.
        KeyError: If the object has neither.
    """
    if "input_specs" in value:
        specs = value["input_specs"]
        if not isinstance(specs, Mapping) or not all(isinstance(spec, Mapping) for spec in specs.values()):
            raise FileFormatError("`input_specs` must be an object of objects. Restore the file from a copy.")
        return {str(name): InputSpec.from_json(spec) for name, spec in specs.items()}
    encoder = value["encoder"]
    kind = str(value.get("modality") or encoder.get("kind", ""))
    return {kind: InputSpec(kind=kind, sizes=value.get("input_sizes") or {}, encoder=encoder)} if kind else {}


def input_of_kind(inputs: InputSpecs, kind: str, *, needed_by: str) -> InputSpec:
    """Return the only input of a suite, which must be of one kind.

    Args:
        inputs: The suite's inputs.
        kind: The kind.
        needed_by: What reads it, for the message: ``"MultiTab-Net"``.

    Raises:
        ConfigError: If there are others, or none.
    """
    specs = list(inputs.values())
    if len(specs) != 1 or specs[0].kind != kind:
        found = ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items()) or "none"
        raise ConfigError(f"{needed_by} reads one input of the kind {kind!r}; this suite has: {found}. Choose another plan.")
    return specs[0]


def table_input(
    num_numeric: int, cardinalities: Sequence[int] = (), *, encoder: Mapping[str, Any] | None = None, **layout: Any
) -> dict[str, InputSpec]:
    """Return the inputs of a suite that is a table.

    Args:
        num_numeric: Columns of ``numeric``.
        cardinalities: Number of codes of each column of ``categorical``, code 0 (missing or unseen) included.
        encoder: State of the encoder.
        **layout: Further sizes (see :mod:`graftwork.nn.fields`).

    Example:
        >>> table_input(3, [5])["table"].sizes
        {'num_numeric': 3, 'cardinalities': [5]}
    """
    sizes = {"num_numeric": int(num_numeric), "cardinalities": [int(size) for size in cardinalities], **layout}
    return {"table": InputSpec(kind="table", sizes=sizes, encoder=encoder or {})}


def image_input(image_size: int, *, encoder: Mapping[str, Any] | None = None) -> dict[str, InputSpec]:
    """Return the inputs of a suite of square pictures with sides of ``image_size`` pixels."""
    return {"image": InputSpec(kind="image", sizes={"image_size": int(image_size)}, encoder=encoder or {})}


def text_input(vocabulary_size: int, max_length: int, *, encoder: Mapping[str, Any] | None = None) -> dict[str, InputSpec]:
    """Return the inputs of a suite of texts: ``vocabulary_size`` token codes, padding included, ``max_length`` of them a text."""
    sizes = {"vocabulary_size": int(vocabulary_size), "max_length": int(max_length)}
    return {"text": InputSpec(kind="text", sizes=sizes, encoder=encoder or {})}
