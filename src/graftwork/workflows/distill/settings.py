"""What the user asked of ``distill``: the settings of ``fit`` about data and training, teachers, a student, and how it is
taught."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.workflows.distill.ways import AUTO, WAYS
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["DEFAULT_STEPS", "WEIGHTINGS", "DistillSettings", "numbers_of"]

DEFAULT_STEPS = 1000
"""Steps of each training if neither steps nor a time limit are given."""
WEIGHTINGS = ("relevance", "equal")


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillSettings(FitSettings):
    """Settings of one ``distill``. ``time_limit`` is for everything; ``steps`` are those of each training."""

    teachers: tuple[str, ...] = ()
    """Names, folders or files, at least one."""
    student: str = "scratch"
    """Name of a trunk, or the dotted path of one."""
    ways: tuple[str, ...] = (AUTO,)
    """Names of :data:`graftwork.workflows.distill.ways.WAYS`, or ``auto``."""
    weighting: str = "relevance"
    """How several teachers are weighed: ``relevance``, ``equal``, or one number a teacher, separated by commas."""
    temperature: float = 2.0
    """Of softened outputs, above 0."""
    strength: float = 1.0
    """Factor on all terms of distillation, above 0."""
    taps: tuple[str, ...] = ()
    """At most one pair ``STUDENT=TEACHER`` of module paths."""

    def __post_init__(self) -> None:
        FitSettings.__post_init__(self)
        problems = [
            f"way must be {AUTO} or of {', '.join(WAYS)}; got {way!r}.{did_you_mean(way, (AUTO, *WAYS))}"
            for way in self.ways
            if way != AUTO and way not in WAYS
        ]
        if AUTO in self.ways and len(self.ways) > 1:
            problems.append(f"way {AUTO} chooses by itself; give it alone")
        problems += [
            f"{name} must be a number above 0; got {getattr(self, name)!r}"
            for name in ("temperature", "strength")
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name)))
        ]
        if len(set(self.teachers)) < len(self.teachers):
            problems.append("a teacher is named twice")
        problems += [
            f"tap is a pair of module paths, STUDENT=TEACHER; got {tap!r}"
            for tap in self.taps
            if not all(part.strip() for part in tap.partition("=")[::2])
        ]
        if len(self.taps) > 1:
            problems.append(f"there can be one tap; got {len(self.taps)}")
        if self.overrides.get("augment", "none") != "none":
            problems.append(
                "augment changes pictures while the teachers have answered for the pictures as they are; leave it out of --set"
            )
        if self.weighting not in WEIGHTINGS:
            try:
                given = numbers_of(self.weighting)
            except ConfigError as error:
                problems.append(str(error))
            else:
                if self.teachers and len(given) != len(self.teachers):
                    problems.append(f"weighting must hold one number a teacher ({len(self.teachers)}); got {len(given)}")
        if problems:
            raise ConfigError("Some settings cannot be used.", problems)

    @property
    def tap(self) -> tuple[str, str]:
        """Paths of the tapped modules of student and teacher; empty without one."""
        student, _, teacher = (self.taps[0] if self.taps else "").partition("=")
        return student.strip(), teacher.strip()


def numbers_of(text: str) -> list[float]:
    """Return weights of teachers that a user wrote.

    Raises:
        ConfigError: If they are no numbers of at least 0 with one above it.

    Example:
        >>> numbers_of("0.7, 0.3")
        [0.7, 0.3]
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(item >= 0 and math.isfinite(item) for item in found) or not sum(found) > 0:
        raise ConfigError(f"weighting is {', '.join(WEIGHTINGS)}, or one number a teacher as in 0.7,0.3; got {text!r}.")
    return found
