"""Merging: every task, or group of tasks, is trained on its own from one common start, then all become one model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.stage import Place, Stage, place

__all__ = ["STAGE", "MergeStage"]

_MERGER = Component("graftwork.methods.merging.averaging:AveragingMerger")


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeStage(Stage):
    """Lets the stages before it train each group by itself and merges what the groups would share; every task keeps its own
    head."""

    kind: ClassVar[str] = "merge"

    merger: Component = field(default=_MERGER, metadata=place("merger:Merger", from_settings=True))
    """A :class:`~graftwork.interfaces.merger.Merger`, which goes tensor by tensor."""
    model_merger: Component | None = field(default=None, metadata=place("model_merger:ModelMerger", from_settings=True))
    """A :class:`~graftwork.interfaces.model_merger.ModelMerger`, which gets whole models and rows, in its place."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Names of the tasks that are trained together, every task in one group; empty trains each by itself."""

    @property
    def rule(self) -> tuple[Place, Component]:
        """What merges, and the place in which it stands."""
        places = self.places()
        if self.model_merger is not None:
            return places["model_merger"], self.model_merger
        return places["merger"], self.merger

    def problems(self) -> list[str]:
        """Return what is wrong with values that are fine each by itself."""
        # A merger equal to the default cannot be told from one that was not given, and is let pass.
        if self.model_merger is not None and self.merger != _MERGER:
            return ["merger: leave it out where there is a model_merger; one of them merges"]
        return []

    def partition(self, tasks: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Return the groups of a suite's tasks.

        Raises:
            ConfigError: If a task is in no group or in several, or a name is none of a task.
        """
        if not self.groups:
            return tuple((name,) for name in tasks)
        named = [name for group in self.groups for name in group]
        # Lists, not sets: a task in two groups must fail.
        if sorted(named) != sorted(tasks):
            raise ConfigError(
                f"The groups of the merge stage must hold every task once; they hold {', '.join(named)}, and the tasks are "
                f"{', '.join(tasks)}."
            )
        return self.groups


STAGE = MergeStage
