"""What the checkpoints of learners without a training loop have in common: files named by their content, an index written last,
and one kind of error for whatever is damaged or foreign."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import CheckpointError, FileFormatError
from graftwork.core.files import hash_bytes, read_json, write_bytes, write_json, write_text
from graftwork.interfaces.learner import LearnerContext

__all__ = [
    "named_damage",
    "read_arrays",
    "read_index",
    "read_named_text",
    "tensor_bytes",
    "write_arrays",
    "write_index",
    "write_named_text",
]

Array = NDArray[Any]
_DIGITS = 20
"""Of a file's hash, in its name. Files of an earlier checkpoint are never overwritten while its index may still be read."""


@contextmanager
def named_damage(words: str, folder: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint raises into a :class:`~graftwork.core.errors.CheckpointError`.

    Args:
        words: What the checkpoint is of.
        folder: Where it is.
    """
    from safetensors import SafetensorError

    try:
        yield
    except CheckpointError:
        raise
    except (OSError, KeyError, ValueError, FileFormatError, SafetensorError) as error:
        raise CheckpointError(f"There is no whole checkpoint of {words} in {folder}: {error}.") from error


def write_index(path: Path, format_name: str, context: LearnerContext, values: Mapping[str, Any]) -> None:
    """Write what a checkpoint is of, and ``values``, as JSON: the last file of a checkpoint."""
    write_json(path, {"format": format_name, "identity": context.identity(), **values})


def read_index(path: Path, format_name: str, context: LearnerContext, *, any_horizon: bool = False) -> dict[str, Any]:
    """Read :func:`write_index`'s file.

    Args:
        path: The file.
        format_name: What its ``format`` must be.
        context: Whose checkpoint it must be.
        any_horizon: Whether it may be of a training with another horizon.

    Raises:
        CheckpointError: If it is of another version, or belongs to another run.
    """
    stored: dict[str, Any] = read_json(path)
    if stored["format"] != format_name:
        raise CheckpointError(
            f"The checkpoint in {path.parent} has format {stored['format']!r}; this version reads {format_name!r}. Remove it and run "
            "again."
        )
    context.check_identity(stored.get("identity", {}), path.parent, any_horizon=any_horizon)
    return stored


def write_arrays(folder: Path, stem: str, arrays: Mapping[str, Array]) -> str:
    """Write arrays as safetensors; return the name of the file, ``stem`` and a hash of the content."""
    content = tensor_bytes(arrays)
    name = f"{stem}-{hash_bytes(content)[:_DIGITS]}.safetensors"
    write_bytes(folder / name, content)
    return name


def read_arrays(folder: Path, name: str) -> dict[str, Array]:
    """Read :func:`write_arrays`'s file.

    Raises:
        CheckpointError: If its content is not what its name says.
    """
    from safetensors.numpy import load

    # The bare name: an index must not lead out of its folder.
    file = folder / Path(name).name
    content = file.read_bytes()
    _check(file, file.stem.endswith(hash_bytes(content)[:_DIGITS]))
    return dict(load(content))


def write_named_text(folder: Path, suffix: str, text: str) -> str:
    """Write a text; return the name of the file, a hash of the content and the suffix."""
    name = f"{hash_bytes(text.encode())[:_DIGITS]}.{suffix}"
    write_text(folder / name, text)
    return name


def read_named_text(folder: Path, name: str) -> str:
    """Read :func:`write_named_text`'s file.

    Raises:
        CheckpointError: If its content is not what its name says.
    """
    file = folder / Path(name).name
    text = file.read_text(encoding="utf-8")
    _check(file, file.name.startswith(hash_bytes(text.encode())[:_DIGITS]))
    return text


def tensor_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Return the content of a safetensors file."""
    from safetensors.numpy import save

    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def _check(file: Path, is_whole: bool) -> None:
    if not is_whole:
        raise CheckpointError(f"{file} is damaged. Remove {file.parent} and run again.")
