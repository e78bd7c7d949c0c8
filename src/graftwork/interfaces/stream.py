"""Stream: experiences that come one after the other. What each of them shows, and what is asked after it.

An *experience* is one step of continual learning (a session, a task in the words of many papers). It is no stage of a plan
(:mod:`graftwork.core.stage`), which is one step of how a model is made, and no task, which is what a model answers.

What learns from a stream is a :class:`~graftwork.interfaces.continual_method.ContinualMethod`; ``training.continual`` runs it.
The stream only hides: an experience's suite has the rows and labels of this experience, everything else is not in its splits or
is missing. The library's streams are in :mod:`graftwork.data.streams`.

How the hardest systems fit:

- Labels of several classes a picture: a picture of this experience shows objects of other experiences too. It stays as it is,
  and the labels of classes outside :attr:`Experience.classes` are missing: neither there nor absent.
- The upper bound that learns everything at once is a stream of one experience with all classes.
- Rehearsal: a method is given experiences, never the stream, and keeps rows of those that it was shown. An experience's arrays
  hold the inputs of all rows, so that row numbers stay as they are; only the rows in its splits may be read.
- New domains in place of new classes: every experience has all classes, and other rows. A stream whose experiences have tasks of
  their own (other data sets) is possible, since each has a suite of its own; no method of the library takes one yet.
- Not there: streams without boundaries (every method is called when an experience begins and ends), and streams that depend on
  what the model answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite

__all__ = ["Experience", "Stream"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Experience:
    """One step of a stream."""

    number: int
    """Place in the stream, 0 is the first."""
    suite: Suite
    """What may be learned from: ``train`` (and ``val``, where the whole suite has it) are the rows of this experience; labels of
    other classes are missing. Tasks have all their classes from the start, so that outputs keep their width."""
    classes: Mapping[str, tuple[int, ...]]
    """Classes that have labels here, in increasing order, by task."""


class Stream(ABC):
    """Experiences in order. Equal streams give equal experiences, as often as they are asked for."""

    tasks: tuple[TaskSpec, ...]
    """Set by the constructor: all tasks with all classes that will ever be asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of experiences, at least 1."""

    @abstractmethod
    def experience(self, number: int) -> Experience:
        """Return an experience.

        Raises:
            IndexError: If there is none.
        """

    def __iter__(self) -> Iterator[Experience]:
        """Yield the experiences in order."""
        return (self.experience(number) for number in range(len(self)))

    @abstractmethod
    def asked(self, number: int) -> Mapping[str, tuple[int, ...]]:
        """Return the classes that are asked for after an experience, by task: usually all that have had labels by then.

        The evaluation asks for them on every row of a split, whichever experience the row is like, and says nothing about where
        it comes from.

        Raises:
            IndexError: If there is no such experience.
        """
