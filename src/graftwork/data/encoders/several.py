"""One input read in several ways: a text in the tokens of two vocabularies, say, where models with different backbones are
averaged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec, InputSpecs
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.base import SEVERAL, Encoder

__all__ = ["SeveralEncoders", "join_inputs"]


class SeveralEncoders(Encoder):
    """Gives the arrays of all its encoders, which read the same rows.

    Args:
        parts: Encoders of one kind whose arrays have different names, at least one.
    """

    def __init__(self, parts: Sequence[Encoder]) -> None:
        self.parts = tuple(parts)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The kind of its encoders."""
        return self.parts[0].kind

    @property
    def columns(self) -> tuple[Any, ...]:
        """Columns of a table that hold the input."""
        found: tuple[Any, ...] = tuple(self.parts[0].columns)  # type: ignore[attr-defined]
        return found

    @property
    def missing(self) -> tuple[str, ...]:
        """Words that mean a missing cell; all encoders read them alike."""
        return tuple(getattr(self.parts[0], "missing", ()))

    @property
    def picture_columns(self) -> tuple[str, ...]:
        """Columns of a table whose cells name picture files."""
        return self.parts[0].picture_columns

    def transform(self, source: Any) -> dict[str, NDArray[Any]]:
        """Return the arrays of all encoders."""
        made: dict[str, NDArray[Any]] = {}
        for part in self.parts:
            made |= part.transform(source)
        return made

    def places(self) -> dict[str, dict[str, list[int]]]:
        """Return where each column lies in the arrays of all encoders; empty if one of them reads the input as one thing."""
        parts = [part.places() for part in self.parts]
        found: dict[str, dict[str, list[int]]] = {}
        for part in parts:
            for name, places in part.items():
                found.setdefault(name, {}).update(places)
        return found if all(parts) else {}

    def cells_read_as_missing(self, source: Any) -> dict[str, Counter[str]]:
        """Return what the first encoder returns: all read the same cells."""
        return self.parts[0].cells_read_as_missing(source)

    def sizes(self) -> dict[str, Any]:
        """Return the sizes of all encoders."""
        return {key: size for part in reversed(self.parts) for key, size in part.sizes().items()}

    def state(self) -> dict[str, Any]:
        """Return the JSON state."""
        return {"kind": self.kind, SEVERAL: [part.state() for part in self.parts]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SeveralEncoders:
        """Restore from :meth:`state`."""
        return cls([encoder_from_state(part) for part in state[SEVERAL]])


def join_inputs(described: Sequence[InputSpecs]) -> dict[str, InputSpec]:
    """Return inputs that give what all models read, from what each of them reads.

    Args:
        described: The inputs of each model. An input of one name is made from the same cells, perhaps by other encoders.

    Raises:
        ConfigError: If two encoders of an input give arrays of one name, or an input is not described by an encoder.
    """
    joined: dict[str, InputSpec] = {}
    for name in dict.fromkeys(name for specs in described for name in specs):
        own = [specs[name] for specs in described if name in specs]
        different = list({json.dumps(spec.encoder, sort_keys=True): spec for spec in own}.values())
        joined[name] = different[0] if len(different) == 1 else _several(name, different)
    return joined


def _several(name: str, specs: Sequence[InputSpec]) -> InputSpec:
    if not all(spec.encoder for spec in specs):
        raise ConfigError(
            f"The input {name!r} is read in different ways, and one of them has no encoder, so they cannot be joined."
        )
    arrays = [own for spec in specs for own in (spec.arrays or _names(spec))]
    twice = sorted({own for own in arrays if arrays.count(own) > 1})
    if twice:
        raise ConfigError(
            f"The input {name!r} is read in different ways that give arrays of one name, {', '.join(twice)}, so they cannot be "
            "joined. Choose one pretrained backbone for a kind of input."
        )
    encoder = SeveralEncoders([encoder_from_state(spec.encoder) for spec in specs])
    placed = {own: place for spec in specs for own, place in spec.arrays.items()}
    return InputSpec(kind=specs[0].kind, sizes=encoder.sizes(), encoder=encoder.state(), arrays=placed)


def _names(spec: InputSpec) -> list[str]:
    inputs = spec.encoder.get("inputs", {})
    return [str(name) for name in inputs]
