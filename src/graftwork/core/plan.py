"""A plan: how the tasks are to be learned, as typed plain data that files hold and that is checked before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.input_kinds import input_kind_names
from graftwork.core.nearest import did_you_mean
from graftwork.core.stage import Place, Stage
from graftwork.core.stages import stage_class
from graftwork.core.stages.train import TrainStage

__all__ = ["Modality", "Plan", "Role"]

Modality = str
"""Name of a kind of :mod:`graftwork.core.input_kinds`."""
Role = Literal["reference", "joint", "independent"]
_ROLES_OF_FAMILIES: dict[str, Role] = {
    "separate": "reference",
    "sharing": "joint",
    "balancing": "joint",
    "tuning": "joint",
    "trees": "independent",
    "frozen": "independent",
}
"""What the key ``family`` of older plan files and runs says about the role."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How the tasks are to be learned, as plain data: from which source, in which stages.

    Files may write a plan of one training stage in short: the keys of :class:`~graftwork.core.stages.train.TrainStage`
    (``sharing``, ``tuning``, ``optimization`` ...) stand beside ``name`` and ``role`` then. The key ``family`` is still read in
    place of ``role`` and ``group``.
    """

    name: str
    """Short stable name, for example ``"shared-trunk"``."""
    title: str
    """One line for people."""
    role: Role
    """``reference``: every task has a model of its own, and everything is measured against it. ``joint``: what is trained serves
    several
    tasks, so that they can help or hurt each other. ``independent``: tasks do not influence each other either, but it is not the
    reference (trees, heads on fixed features)."""
    modalities: tuple[Modality, ...]
    """Kinds of input that it can learn from; ``any`` stands for all of them, and ``table + text`` for suites that have exactly
    these together. See :meth:`fits`."""
    stages: tuple[Stage, ...] = (TrainStage(),)
    """What is done, in this order."""
    group: str = ""
    """Free text by which reports group plans, for example ``"balancing"``; empty takes the role."""
    source: Literal["scratch", "pretrained"] = "scratch"
    """``pretrained`` starts from the backbone chosen for the run."""
    min_tasks: int = 1
    """The race leaves the plan out of suites with fewer tasks."""
    shuffled_control: bool = True
    """Whether it can be trained with its companions' labels shuffled. A plan that builds on how labels of its tasks depend on
    each other (no purchase without a click) cannot."""
    quick: bool = False
    """Whether it is trained within seconds where others take long. The race never leaves it out, and every run makes a first model
    with it."""
    system: str = ""
    """Slug of the published system that this plan comes from, if any."""

    def fits(self, kinds: Collection[str], allowed: Collection[str] | None = None) -> bool:
        """Return whether the plan can learn from a suite whose inputs are of these kinds.

        A plan from scratch must read all of them. A plan that starts from pretrained backbones must have one for some of them;
        trunks of the others are new.

        Args:
            kinds: Kinds of the inputs.
            allowed: Kinds in place of :attr:`modalities`.
        """
        known = self.modalities if allowed is None else allowed
        if "any" in known or any(set(_parts(entry)) == set(kinds) for entry in known):
            return True
        return any(kind in known for kind in kinds) if self.source == "pretrained" else set(kinds) <= set(known)

    @property
    def train(self) -> TrainStage:
        """The stage that trains.

        Raises:
            ConfigError: If the plan has none.
        """
        for stage in self.stages:
            if isinstance(stage, TrainStage):
                return stage
        raise ConfigError(f"Plan {self.name!r} has no training stage; its stages are {[stage.kind for stage in self.stages]}.")

    @property
    def fitted_at_once(self) -> bool:
        """Whether the model is fitted in one go (closed forms, forests): no training that could stop on validation rows."""
        return self.train.training.get("max_steps") == 1

    def with_train(self, **changes: Any) -> Self:
        """Return the plan with some fields of its training stage replaced."""
        changed = dataclasses.replace(self.train, **changes)
        return dataclasses.replace(self, stages=tuple(changed if stage is self.train else stage for stage in self.stages))

    def components(self) -> Iterator[tuple[str, Place, Component]]:
        """Yield every component with the name of its place (``"sharing"``; ``"stage 2 (merge), merger"``) and what must stand
        there."""
        for number, stage in enumerate(self.stages, 1):
            prefix = f"stage {number} ({stage.kind}), " if len(self.stages) > 1 else ""
            for name, place, component in stage.components():
                yield f"{prefix}{name}", place, component

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "modalities": list(self.modalities), "stages": [stage.to_json() for stage in self.stages]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a plan from JSON or TOML data. Components are not resolved.

        Raises:
            ConfigError: With all problems at once: unknown keys, missing ones, values that are not allowed.
        """
        plan, problems = cls.read(value)
        if problems:
            raise ConfigError(f"Plan {plan.name!r} cannot be read.", problems)
        return plan

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """Read a plan as far as it can be read.

        Returns:
            The plan, with defaults where a value cannot be read, so that its components can be looked at; and all problems.
        """
        if not isinstance(value, Mapping):
            return cls(name="?", title="", role="joint", modalities=()), [
                f"a plan is an object of names and values; got {value!r:.200}"
            ]
        in_short = TrainStage.keys()
        own = {item.name for item in dataclasses.fields(cls)} | {"family"}
        known = (*sorted(own), *sorted(in_short))
        problems = [
            f"unknown key {key!r}.{did_you_mean(str(key), known)} Known keys: {', '.join(known)}"
            for key in value
            if key not in known
        ]
        fields: dict[str, Any] = {"name": "?", "title": "", "role": "joint", "modalities": ()}
        for key, wanted, allowed in _PLAN_VALUES:
            if key in value:
                if allowed(value[key]):
                    fields[key] = value[key]
                else:
                    problems.append(f"{key} must be {wanted}; got {value[key]!r:.200}")
        problems += [f"missing key {key!r}" for key in ("name", "title", "modalities") if key not in value]
        fields |= _read_role(value, problems)
        fields |= _read_modalities(value, problems)
        short = {key: value[key] for key in in_short if key in value}
        if "stages" in value and short:
            problems.append(f"{', '.join(short)}: with `stages`, components belong into a stage")
        # A plan in short is a plan of one training stage, whose problems need no stage number.
        fields["stages"] = _read_stages(value.get("stages", [{"kind": TrainStage.kind, **short}]), "stages" in value, problems)
        if fields.get("source") == "pretrained" and any(getattr(stage, "backbone", None) for stage in fields["stages"]):
            problems.append('backbone names an untrained trunk, so source must be scratch; got "pretrained"')
        return cls(**fields), problems


_PLAN_VALUES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("name", "a text that is not empty", lambda item: isinstance(item, str) and bool(item.strip())),
    ("title", "a text", lambda item: isinstance(item, str)),
    ("group", "a text", lambda item: isinstance(item, str)),
    ("source", "scratch or pretrained", lambda item: item in ("scratch", "pretrained")),
    # ``True`` is an integer to isinstance.
    ("min_tasks", "an integer of at least 1", lambda item: isinstance(item, int) and not isinstance(item, bool) and item >= 1),
    ("shuffled_control", "true or false", lambda item: isinstance(item, bool)),
    ("quick", "true or false", lambda item: isinstance(item, bool)),
    ("system", "the slug of a system, a text", lambda item: isinstance(item, str)),
)


def _read_role(value: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    role, family = value.get("role"), value.get("family")
    if role is None and family is None:
        problems.append(f"missing key 'role' ({', '.join(get_args(Role))})")
    elif role is not None and family is not None:
        problems.append("family is an older word for role and group; leave it out beside `role`")
    elif role is not None and role not in get_args(Role):
        problems.append(
            f"role must be one of {', '.join(get_args(Role))}; got {role!r}.{did_you_mean(str(role), get_args(Role))}"
        )
    elif role is not None:
        return {"role": role}
    elif not isinstance(family, str) or family not in _ROLES_OF_FAMILIES:
        near = did_you_mean(str(family), _ROLES_OF_FAMILIES)
        problems.append(
            f"family must be one of {', '.join(_ROLES_OF_FAMILIES)} (better: say role and group); got {family!r}.{near}"
        )
    else:
        # Older files grouped plans by their family, so it stays the group where none is named.
        return {"role": _ROLES_OF_FAMILIES[family], "group": value["group"] if isinstance(value.get("group"), str) else family}
    return {}


def _read_modalities(value: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    found, allowed = value.get("modalities", ()), ("any", *input_kind_names())
    if not isinstance(found, list | tuple):
        problems.append(f"modalities must be a list of {', '.join(allowed)}; got {found!r:.200}")
        return {}
    if "modalities" in value and not found:
        problems.append(f"modalities must name at least one of {', '.join(allowed)}")
    wrong = [item for item in found if item not in allowed and not set(_parts(str(item))) <= set(allowed[1:])]
    for item in wrong:
        problems.append(f"modalities must be of {', '.join(allowed)}; got {item!r}.{did_you_mean(str(item), allowed)}")
    return {"modalities": tuple(item for item in found if item not in wrong)}


def _parts(entry: str) -> list[str]:
    """Return the kinds of an entry of ``modalities``: ``table + text`` has two."""
    return [part.strip() for part in entry.split("+")]


def _read_stages(value: Any, named: bool, problems: list[str]) -> tuple[Stage, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, Mapping) for item in value):
        problems.append(f"stages must be a list of at least one object with a kind; got {value!r:.200}")
        return (TrainStage(),)
    stages = []
    for number, item in enumerate(value, 1):
        prefix = f"stage {number}: " if named else ""
        try:
            stage, found = stage_class(item.get("kind")).read(item)
        except ConfigError as error:
            problems.append(f"{prefix}{error}")
            continue
        problems += [f"{prefix}{problem}" for problem in found]
        stages.append(stage)
    return tuple(stages)
