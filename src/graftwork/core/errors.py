"""Errors that users see. Every message says what is wrong, which value, what is allowed, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AccessError",
    "BudgetError",
    "CheckpointError",
    "ComponentError",
    "ConfigError",
    "DataError",
    "FileFormatError",
    "GraftworkError",
    "MissingDependencyError",
    "StorageError",
    "TrainingDivergedError",
]


class GraftworkError(Exception):
    """Base of all errors that graftwork raises on purpose; the command line prints them without a traceback."""

    exit_code = 2


class DataError(GraftworkError, ValueError):
    """The user's data cannot be used as it is."""


class FileFormatError(DataError):
    """A file is empty, truncated, in another format than its name says, or not safe to open."""


class ConfigError(GraftworkError, ValueError):
    """One or several settings are wrong; all problems of a file are listed at once.

    Args:
        message: Headline, or the single problem.
        problems: One line each: file, line, key, value, allowed values, nearest match.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *(f"  - {problem}" for problem in self.problems)]))


class ComponentError(ConfigError):
    """A dotted path names nothing that may be imported, or nothing that can stand where it is asked for."""


class CheckpointError(GraftworkError):
    """A checkpoint does not belong to the run that wants to resume from it."""


class StorageError(GraftworkError, OSError):
    """A folder cannot be written to, or the disk is full. What was written before is still whole."""

    exit_code = 3


class TrainingDivergedError(GraftworkError, FloatingPointError):
    """A loss or gradient became NaN or infinite; the arm stops, the race goes on."""


class AccessError(GraftworkError, PermissionError):
    """An arm of a reproduction touched data that it had not declared."""


class BudgetError(GraftworkError):
    """The arms of a reproduction did not spend what the recipe declares equal."""


class MissingDependencyError(GraftworkError, ImportError):
    """An optional package is not installed."""
