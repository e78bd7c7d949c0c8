"""Several inputs of the rows of one table: each has an encoder that reads its own columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.input_spec import InputSpec, InputSpecs, read_input_specs, write_input_specs
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.base import Encoder
from graftwork.data.reading.table import as_table

__all__ = ["JointEncoder", "encoder_of_inputs"]


class JointEncoder(Encoder):
    """Turns a table into the arrays of all inputs.

    Args:
        inputs: The suite's inputs.
        parts: The encoder of each.
    """

    kind: ClassVar[str] = "joint"

    def __init__(self, inputs: InputSpecs, parts: Mapping[str, Encoder]) -> None:
        self.inputs, self.parts = dict(inputs), dict(parts)

    @property
    def picture_columns(self) -> tuple[str, ...]:
        """Columns whose cells name picture files."""
        return tuple(column for part in self.parts.values() for column in part.picture_columns)

    def transform(self, source: Any) -> dict[str, NDArray[Any]]:
        """Encode a table that has the columns of all inputs.

        Raises:
            DataError: If it is no table, columns are missing, or cells cannot be read.
        """
        if not hasattr(source, "columns"):
            raise DataError(f"Rows with {', '.join(self.parts)} are read from a table; got {type(source).__name__}.")
        table = as_table(source)
        return self.join({name: part.transform(table) for name, part in self.parts.items()})

    def join(self, arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """Return the arrays of all inputs, ``{input: {array of its kind: ...}}``, by their names in the suite."""
        return {self.inputs[name].arrays[own]: array for name, found in arrays.items() for own, array in found.items()}

    def cells_read_as_missing(self, source: Any) -> dict[str, Counter[str]]:
        """Return what the parts return."""
        found: dict[str, Counter[str]] = {}
        for part in self.parts.values():
            found |= part.cells_read_as_missing(source)
        return found

    def state(self) -> dict[str, Any]:
        """Return the JSON state."""
        return {"kind": self.kind, "input_specs": write_input_specs(self.inputs)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Encoder:
        """Restore from :meth:`state`."""
        return encoder_of_inputs(read_input_specs(state))

    def sizes(self) -> dict[str, Any]:
        """Return nothing: each input has sizes of its own."""
        return {}

    def spec(self, **more_sizes: Any) -> InputSpec:
        """Refuse: an encoder of several inputs has several records."""
        raise DataError("An encoder of several inputs has one record for each; see `inputs`.")


def encoder_of_inputs(inputs: InputSpecs) -> Encoder:
    """Return the encoder of a suite's rows: that of its only input, or one that reads all inputs from a table.

    Raises:
        FileFormatError: If a state cannot be read, or an input has none.
    """
    parts = {name: encoder_from_state(spec.encoder) for name, spec in inputs.items()}
    return next(iter(parts.values())) if len(parts) == 1 else JointEncoder(inputs, parts)
