"""What the user asked of ``distill``: the settings of ``fit`` about data and training, teachers, a student, and how it is
taught."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.workflows.distill.taps import Tap, read_tap
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
    """Pairs ``STUDENT=TEACHER`` of module paths, or ``WAY:STUDENT=TEACHER``."""

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
        problems += self._tap_problems()
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
    def tap_pairs(self) -> tuple[Tap, ...]:
        """The pairs of modules that are compared; empty for the features at the end."""
        return tuple(tap for tap in map(read_tap, self.taps) if tap is not None)

    def _tap_problems(self) -> list[str]:
        """Return what is wrong with the taps, whatever modules there are."""
        problems = [
            f"tap is a pair of module paths, STUDENT=TEACHER or WAY:STUDENT=TEACHER; got {text!r}"
            for text in self.taps
            if read_tap(text) is None
        ]
        tapping = [name for name, way in WAYS.items() if "tap" in way.takes]
        for tap in self.tap_pairs:
            if tap.way and tap.way not in tapping:
                problems.append(
                    f"tap {tap} names the way {tap.way!r}; ways that compare modules are {', '.join(tapping)}."
                    f"{did_you_mean(tap.way, tapping)}"
                )
            elif tap.way and tap.way not in self.ways:
                problems.append(f"tap {tap} is for the way {tap.way}, which is not among the ways {', '.join(self.ways)}")
        if len(set(self.tap_pairs)) < len(self.tap_pairs):
            problems.append("a tap is given twice")
        return problems


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
