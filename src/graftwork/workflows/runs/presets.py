"""Presets: how thorough a run is where the user says nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean

__all__ = ["DEFAULT_PRESET", "PRESETS", "Preset", "preset_of"]

DEFAULT_PRESET = "good"


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """What a name stands for."""

    words: str
    """What it is for, for people."""
    seeds: int
    """Seeds of every finalist."""
    folds: int
    """Folds where rows are few."""
    finalists: int
    """Best plans that are trained to the end, besides those that answer a question."""
    single: bool
    """Whether one model of one plan is handed over."""
    optional_plans: bool
    """Whether plans enter that do not by default."""
    only_needed: bool
    """Whether only plans enter that answer a question: the reference, sharing, quick learners, fixed features."""
    tries: int
    """Most other settings that are tried for the finalists while time is left."""


PRESETS = {
    "quick": Preset(
        words="a first look: few plans, one model",
        seeds=3,
        folds=3,
        finalists=1,
        single=True,
        optional_plans=False,
        only_needed=True,
        tries=0,
    ),
    "good": Preset(
        words="the default",
        seeds=3,
        folds=5,
        finalists=3,
        single=False,
        optional_plans=False,
        only_needed=False,
        tries=12,
    ),
    "best": Preset(
        words="for long time limits: all plans, more seeds and folds, more settings",
        seeds=5,
        folds=8,
        finalists=5,
        single=False,
        optional_plans=True,
        only_needed=False,
        tries=40,
    ),
}


def preset_of(name: str) -> Preset:
    """Return a preset.

    Raises:
        ConfigError: If there is none of this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}.{did_you_mean(name, PRESETS)} Known presets: {', '.join(PRESETS)}.")
    return PRESETS[name]
