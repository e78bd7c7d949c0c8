"""The result of another document of the file, as a model: known by its layout before it is there, and read once it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from graftwork.core.bfloat16 import WidenedTensor
from graftwork.core.tensor_files import TensorSource, open_tensors
from graftwork.workflows.merge_beside import SideFiles

__all__ = ["Stage", "StageTensors"]

Array = NDArray[Any]


class StageTensors(TensorSource):
    """Tensors that will be there.

    Args:
        layout: ``{name: (stored type, shape)}`` of each.
    """

    metadata: Mapping[str, str] = {}

    def __init__(self, layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self._layout = dict(layout)
        self._made: TensorSource | None = None

    def open(self, folder: Path) -> None:
        """Take the values from the model folder that was written."""
        self._made = open_tensors(folder)

    def close(self) -> None:
        """Let the values go, so that the disk has their room again once the folder is removed."""
        self._made = None

    def _values(self) -> TensorSource:
        assert self._made is not None, "documents are merged in the order in which they need each other"
        return self._made

    def __getitem__(self, name: str) -> Array:
        return self._values()[name]

    def lazy(self, name: str) -> Array | WidenedTensor:
        """Return the values, bfloat16 widened slice by slice."""
        return self._values().lazy(name)

    def __contains__(self, name: object) -> bool:
        return name in self._layout

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._layout))

    def __len__(self) -> int:
        return len(self._layout)

    def dtype_name(self, name: str) -> str:
        """Return the stored type."""
        return self._layout[name][0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape."""
        return self._layout[name][1]

    def release(self, name: str) -> None:
        """Give the pages of a tensor back."""
        self._values().release(name)

    def files(self) -> tuple[Path, ...]:
        """Return nothing: the files are temporary, and no inputs of the user."""
        return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """The result of a document."""

    tensors: StageTensors
    files: SideFiles
    """What goes with them."""
    originals: Sequence[tuple[Path, TensorSource]]
    """All models of the user that went into it, with those of the stages before it."""
