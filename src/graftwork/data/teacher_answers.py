"""What teachers say of the rows of a suite, computed once: outputs for its tasks, features, probabilities of their own classes,
what tapped modules give. Kept in the array cache, mapped when they are read, so that memory stays bounded however many rows there
are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import FileFormatError
from graftwork.core.scratch import scratch_folder
from graftwork.data.array_cache import cached_arrays, stored_arrays

__all__ = ["TeacherAnswers", "answers_in_parts", "read_answers", "store_answers"]

Array = NDArray[Any]
Ask = Callable[[NDArray[np.int64]], Mapping[str, Array]]
_ABOUT = "about"


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherAnswers:
    """Answers of one teacher, one row a row of the suite."""

    name: str
    """The teacher, for people."""
    outputs: Mapping[str, Array] = field(default_factory=dict)
    """``{task: raw outputs [N, num_outputs, ...]}``, laid out as a model's for this task."""
    features: Array | None = None
    """``[N, width]``."""
    classes: Array | None = None
    """Probabilities of the teacher's own classes, ``[N, C]``, each row with the sum 1."""
    vectors: Mapping[str, Array] = field(default_factory=dict)
    """``{module path: mean over places of what the module gives, [N, width]}``."""
    maps: Mapping[str, Array] = field(default_factory=dict)
    """``{module path: attention map, [N, H, W]}``."""

    def __len__(self) -> int:
        return len(next(iter(self.arrays().values()), ()))

    def arrays(self) -> dict[str, Array]:
        """Return all arrays by the names that :meth:`of_arrays` reads: ``features``, ``outputs/stars`` and so on."""
        found = {f"{group}/{name}": array for group in _GROUPS for name, array in getattr(self, group).items()}
        single = {name: getattr(self, name) for name in ("features", "classes")}
        return {**found, **{name: array for name, array in single.items() if array is not None}}

    @classmethod
    def of_arrays(cls, name: str, arrays: Mapping[str, Array]) -> Self:
        """Return the answers that :meth:`arrays` took apart."""
        groups: dict[str, dict[str, Array]] = {group: {} for group in _GROUPS}
        for key, array in arrays.items():
            group, _, item = key.partition("/")
            if group in groups:
                groups[group][item] = array
        return cls(name=name, features=arrays.get("features"), classes=arrays.get("classes"), **groups)  # type: ignore[arg-type]


_GROUPS = ("outputs", "vectors", "maps")


def answers_in_parts(
    ask: Ask, num_rows: int, folder: Path, *, batch_size: int = 64, on_progress: Callable[[int], None] | None = None
) -> dict[str, Array]:
    """Ask for the answers part by part and keep them in mapped files: memory holds one part at a time.

    Args:
        ask: Returns arrays by name for row numbers ``[n]``, each with ``n`` rows and the same names, widths and types every time.
        num_rows: Rows of the suite, at least 1.
        folder: Where the files lie as long as the arrays are used.
        batch_size: Rows of a part.
        on_progress: Called with the number of finished rows; it may raise to stop.

    Returns:
        Arrays by name, float32, one row a row of the suite.

    Raises:
        FloatingPointError: If an answer is not finite.
    """
    files: dict[str, Array] = {}
    for start in range(0, num_rows, batch_size):
        rows = np.arange(start, min(start + batch_size, num_rows))
        part = {name: np.asarray(array, dtype=np.float32) for name, array in ask(rows).items()}
        for number, (name, array) in enumerate(part.items()):
            if not np.isfinite(array).all():
                raise FloatingPointError(f"{name} of rows {rows[0]} to {rows[-1]} holds numbers that are not finite.")
            if name not in files:
                files[name] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                    folder / f"{number}.npy", mode="w+", dtype=np.float32, shape=(num_rows, *array.shape[1:])
                )
            files[name][rows] = array
        if on_progress is not None:
            on_progress(int(rows[-1]) + 1)
    return files


def store_answers(
    cache: str | Path,
    key: str,
    name: str,
    num_rows: int,
    ask: Ask,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> Path:
    """Return the entry of the cache with a teacher's answers; they are computed if it is not there.

    Args:
        cache: Folder of the cache.
        key: Hash over all that the answers depend on: weights of the teacher, rows, what is asked.
        name: The teacher, for people.
        num_rows: Rows of the suite.
        ask: As :func:`answers_in_parts` takes it, by the names of :meth:`TeacherAnswers.arrays`.
        batch_size: Rows of a part.
        on_progress: Called with the number of finished rows; not called if the cache has them.

    Raises:
        FloatingPointError: If an answer is not finite.
        StorageError: If the cache cannot be written.
    """
    entry = f"teacher-{key}"
    with scratch_folder("teacher") as folder:

        def compute() -> dict[str, Array]:
            arrays = answers_in_parts(ask, num_rows, Path(folder), batch_size=batch_size, on_progress=on_progress)
            about = {"name": name, "arrays": list(arrays)}
            # Numbered: names of tasks and modules may be no names of files.
            numbered = {f"a{number}": array for number, array in enumerate(arrays.values())}
            return {_ABOUT: np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **numbered}

        cached_arrays(cache, entry, compute)
    return Path(cache) / entry


def read_answers(entry: str | Path) -> TeacherAnswers:
    """Read what :func:`store_answers` kept; the arrays are mapped and read-only.

    Raises:
        FileFormatError: If the entry is gone or damaged.
    """
    arrays = stored_arrays(entry)
    try:
        if arrays is None:
            raise FileFormatError("there is no whole entry")
        about = json.loads(bytes(arrays[_ABOUT]))
        named = {str(key): arrays[f"a{number}"] for number, key in enumerate(about["arrays"])}
        return TeacherAnswers.of_arrays(str(about["name"]), named)
    except (FileFormatError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"The answers of a teacher in {entry} are missing or damaged ({error}). Run graftwork distill with --resume: they "
            f"are computed again."
        ) from error
