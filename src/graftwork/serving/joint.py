"""Rows with inputs of several kinds: an object holds the columns of all of them, pictures in base64. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graftwork.core.input_kinds import input_kind, load_part
from graftwork.data.encoders.joint import JointEncoder
from graftwork.data.names import short_list
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import Problem
from graftwork.serving.reading import RowReader

__all__ = ["JointReader"]


class JointReader(RowReader):
    """Reads each row with the readers of its inputs.

    Args:
        encoder: The run's encoder.
        limits: Of requests.
    """

    keys = ("rows",)
    encoder: JointEncoder

    def __init__(self, encoder: JointEncoder, limits: ServeLimits) -> None:
        super().__init__(encoder, limits)
        self.parts: dict[str, RowReader] = {
            name: load_part(input_kind(spec.kind).reader)(encoder.parts[name], limits) for name, spec in encoder.inputs.items()
        }

    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return what each part reads in the row, a tuple."""
        if not isinstance(item, dict):
            columns = [column["name"] for column in self.inputs()]
            problems.append(Problem(place, item, f"an object with the columns {short_list(columns)}"))
            return None
        return tuple(part.read_one(key, place, item, problems) for part in self.parts.values())

    def blank(self) -> list[Any]:
        """Return a row of nothing in particular."""
        return [tuple(part.blank()[0] for part in self.parts.values())]

    def notes(self, rows: Sequence[Any]) -> list[str]:
        """Return what the parts say."""
        # Cells by part: each part sees its own column of the tuples.
        return [
            note for part, cells in zip(self.parts.values(), zip(*rows, strict=True), strict=True) for note in part.notes(cells)
        ]

    def finish(self, rows: list[Any]) -> list[Any]:
        """Do what is slow for some parts: decode pictures."""
        columns = [part.finish(list(cells)) for part, cells in zip(self.parts.values(), zip(*rows, strict=True), strict=True)]
        return list(zip(*columns, strict=True))

    @property
    def is_slow(self) -> bool:
        """Whether a part has something slow to do."""
        return any(part.is_slow for part in self.parts.values())

    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the arrays of all inputs."""
        cells = zip(*rows, strict=True)
        return self.encoder.join(
            {name: part.encode(list(own)) for (name, part), own in zip(self.parts.items(), cells, strict=True)}
        )

    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the schema of a row with the columns of all inputs."""
        required: list[str] = []
        properties: dict[str, Any] = {}
        for part in self.parts.values():
            schema = part.item_schemas()["rows"]
            required += schema["required"]
            properties |= schema["properties"]
        return {"rows": {"type": "object", "required": required, "properties": properties}}

    def inputs(self) -> list[dict[str, Any]]:
        """Return one entry per column."""
        return [column for part in self.parts.values() for column in part.columns()]
