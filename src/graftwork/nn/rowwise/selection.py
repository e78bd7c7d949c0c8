"""Which rows of a batch belong to which delta, known to all layers of a model while a batch runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["RowSelection", "Segment"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows of one delta."""

    name: str | None
    """Of the delta; None is the base alone."""
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class RowSelection:
    """The segments of the batch that runs; without any, a model is the base alone. One batch at a time."""

    def __init__(self) -> None:
        self.segments: tuple[Segment, ...] = ()
        self.size = 0
        """Rows of the batch."""
        self.trace: Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None] | None = None
        """Called by every layer with itself, what it was given and what its base returned; only while places are tried."""

    @contextlib.contextmanager
    def using(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Let the layers compute with these segments, which cover a batch in order."""
        before = self.segments, self.size
        self.segments, self.size = tuple(segments), sum(segment.size for segment in segments)
        try:
            yield
        finally:
            self.segments, self.size = before

    @contextlib.contextmanager
    def narrowed(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Let the layers compute with some neighbouring segments as if their rows were the whole batch."""
        first = segments[0].start
        with self.using([Segment(item.name, item.start - first, item.stop - first) for item in segments]):
            yield
