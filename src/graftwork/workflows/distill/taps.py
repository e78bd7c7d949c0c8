"""Pairs of modules that a user wants compared, one of the student and one of the teachers each. Torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tap", "read_tap"]


@dataclass(frozen=True, slots=True)
class Tap:
    """One pair of paths, as ``named_modules`` writes them."""

    student: str
    teacher: str
    way: str = ""
    """Name of the way that compares them; empty for all ways that compare modules."""

    def __str__(self) -> str:
        return f"{self.way}{':' if self.way else ''}{self.student}={self.teacher}"


def read_tap(text: str) -> Tap | None:
    """Return the pair that a user wrote as ``STUDENT=TEACHER`` or ``WAY:STUDENT=TEACHER``; None if it is none.

    Example:
        >>> read_tap("attention:backbone.stages.1=blocks.2")
        Tap(student='backbone.stages.1', teacher='blocks.2', way='attention')
        >>> read_tap("backbone") is None
        True
    """
    student, _, teacher = text.partition("=")
    # No path of a module holds a colon.
    way, colon, path = student.rpartition(":")
    parts = [part.strip() for part in (path, teacher)]
    if not all(parts) or (colon and not way.strip()):
        return None
    return Tap(parts[0], parts[1], way.strip())
