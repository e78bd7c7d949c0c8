"""A job: one frozen record a kind, with what the kind needs, and the code that does it. JSON only where it leaves the process.

Jobs are what the pool runs; they know nothing of the race. What all jobs of a run share is one record, :class:`RunFacts`.
"""

from __future__ import annotations

import dataclasses
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.nearest import did_you_mean
from graftwork.core.records import Plan
from graftwork.core.seeds import Seeds
from graftwork.core.settings import converted_value
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import Precision
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.job_data import run_suite
from graftwork.workflows.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["Job", "RunFacts", "check_folder_name", "folder_name", "read_record"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What all jobs of a run share."""

    cache: str
    """Folder for things that runs share (feature stores)."""
    backbone: str = ""
    """Pretrained backbone of the run; empty if it has none."""
    device: str = "cpu"
    """Where networks are trained."""
    precision: Precision = "plan"
    """Of the forward passes of networks while they train."""
    root_seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Training settings of the user, stronger than those of all plans."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Training settings of the workflow, weaker than those of all plans."""
    checkpoint_seconds: float = 20.0
    """Longest time in seconds whose work a kill may undo."""
    race_rows: int = 0
    """Most training rows that rungs see; finals see all. 0: rungs see all as well."""
    folds: int = 0
    """Folds of the cross-validation; 0: one split, whose test rows all trainings share."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read :meth:`to_json`'s object.

        Raises:
            FileFormatError: If a key is unknown or missing, or a value has another type.
        """
        return read_record(cls, value, "The facts of a run")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(ABC):
    """What every kind of job has. A kind adds fields and :meth:`run`, in a module of its own in
    :mod:`graftwork.workflows.runs.jobs`."""

    kind: ClassVar[str] = ""
    """Name of the kind: that of its module."""

    id: str
    """Name of its folder; see :func:`folder_name`."""
    plan: Plan
    facts: RunFacts
    phase: str = ""
    """Part of the run that it belongs to, for people: ``"rung 1"``."""
    seed: int = 0
    """0 is the split of the suite itself; others divide the development rows anew, the test rows stay. With folds, the number of
    the training in the cross-validation; with ``parts``, that of the part."""
    parts: int = 0
    """For a model that is handed over: how many such models are averaged; see :func:`graftwork.data.folds.whole_suite`."""
    rows: int = 0
    """Most training rows that it sees, drawn at random; 0: all. See :func:`graftwork.data.samples.sampled_suite`."""
    until: int = 0
    """Step to train to."""
    max_steps: int = 0
    """Horizon of the learner: the step at which a full training ends."""
    threads: int = 1
    """Threads of arithmetic that its learner may use."""

    def __post_init__(self) -> None:
        check_folder_name("id", self.id)

    @property
    def kept_task(self) -> str | None:
        """The task whose companions are shuffled, in a control; None in all other jobs."""
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        """Folders of the run that the job reads besides the suite."""
        return (f"jobs/{self.id}",)

    @property
    def writes(self) -> tuple[str, ...]:
        """Folders of the run that it writes."""
        return (f"jobs/{self.id}",)

    @abstractmethod
    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Do the work.

        Args:
            run: The run folder.
            control: Takes reports of progress and says when to stop.

        Returns:
            JSON values; ``status`` is ``ok`` or ``stopped``.
        """

    def suite(self, run: RunFolder) -> Suite:
        """Return the suite that the job works on."""
        return run_suite(
            run.suite, self.seed, folds=self.facts.folds, parts=self.parts, rows=self.rows, keep_all=self.plan.fitted_at_once
        )

    @property
    def goes_on_from(self) -> str | None:
        """Job whose training it goes on with; None if there is none."""
        return None

    def learner(self, suite: Suite) -> Learner:
        """Build the learner of the plan."""
        from graftwork.interfaces.learner import LearnerContext
        from graftwork.training.stages import learner_of

        facts = self.facts
        context = LearnerContext(
            suite=suite,
            plan=self.plan,
            seed=Seeds(facts.root_seed).integer(f"seed {self.seed}"),  # the same for all plans: comparisons are paired
            max_steps=self.max_steps,
            cache=Path(facts.cache),
            backbone=facts.backbone,
            overrides=facts.overrides,
            defaults=facts.defaults,
            device=facts.device,
            precision=facts.precision,
            threads=self.threads,
        )
        return learner_of(context)

    def with_cache(self, cache: str) -> Self:
        """Return the job with another cache folder: that of the machine on which it runs."""
        return dataclasses.replace(self, facts=dataclasses.replace(self.facts, cache=cache))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :func:`graftwork.workflows.runs.jobs.read_job` reads back."""
        held = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {"kind": self.kind, **{key: _to_json(item) for key, item in held.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object of this kind.

        Raises:
            FileFormatError: If a key is unknown or missing, or a value has another type.
            ConfigError: If the plan cannot be read, or a name cannot be that of a folder.
        """
        return read_record(cls, {key: item for key, item in value.items() if key != "kind"}, f"A job of kind {cls.kind!r}")


def folder_name(text: str) -> str:
    """Return a text as the name of a folder.

    Example:
        >>> folder_name("final-my plan/2-s0")
        'final-my_plan_2-s0'
    """
    return "".join(letter if letter.isalnum() or letter in "-_.+" else "_" for letter in text)


def check_folder_name(key: str, value: str) -> None:
    """Refuse what leads elsewhere than to a folder of this name.

    Raises:
        ConfigError: If it is no such name.
    """
    # `.` and `..` consist of allowed letters and lead elsewhere.
    if not value.strip(".") or folder_name(value) != value:
        raise ConfigError(f"{key} of a job names a folder: letters, digits and any of -_.+; got {value!r}.")


Record = typing.TypeVar("Record")


def read_record(cls: type[Record], value: Any, what: str) -> Record:
    """Build a dataclass from a JSON object; classes with ``from_json`` read their own part.

    Args:
        cls: The dataclass.
        value: The object.
        what: What it is, for messages.

    Raises:
        FileFormatError: With all problems: unknown keys, missing ones, values of another type.
    """
    if not isinstance(value, Mapping):
        raise FileFormatError(f"{what} is an object of names and values; got {value!r:.200}.")
    # Annotations are texts (postponed), hence the resolved hints.
    fields, hints = {item.name: item for item in dataclasses.fields(cls)}, typing.get_type_hints(cls)  # type: ignore[arg-type]
    problems = [
        f"unknown key {key!r}.{did_you_mean(str(key), fields)} Known keys: {', '.join(fields)}"
        for key in value
        if key not in fields
    ]
    read: dict[str, Any] = {}
    for name, item in fields.items():
        if name in value:
            reader = getattr(hints[name], "from_json", None)
            try:
                read[name] = reader(value[name]) if reader is not None else converted_value(value[name], hints[name])
            except ConfigError as error:
                problems.append(f"{name}: {error}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            problems.append(f"missing key {name!r}")
    if problems:
        raise FileFormatError(f"{what} cannot be read: {'; '.join(problems)}.")
    return cls(**read)


def _to_json(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    # JSON knows no tuples; the reader turns lists back by the field's type.
    return list(value) if isinstance(value, tuple) else value
