"""Plans are checked before anything of them runs: components, settings and training keys, every problem at once.

A stored run, a plan file and a plan handed in may all come from somebody else, so a component is looked at before it is imported
(see :mod:`graftwork.core.components`). No model is built: settings are held against the signature of the constructor. Only what
is built from its settings alone (balancers, tuners, objectives, gradient transforms) is built once, which is cheap and checks the
values as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from graftwork.core.components import Component
from graftwork.core.errors import ComponentError, ConfigError, GraftworkError, MissingDependencyError
from graftwork.core.nearest import did_you_mean
from graftwork.core.plan import Plan
from graftwork.core.stage import Place
from graftwork.core.stages.train import TrainStage

__all__ = ["check_plans", "part_problems", "plan_problems", "training_problems"]


def check_plans(plans: Iterable[Plan], origin: str) -> None:
    """Refuse plans that cannot run.

    Args:
        plans: Any plans.
        origin: Where they come from, for the message, as in ``"The run in runs/a"``.

    Raises:
        ComponentError: With all problems at once, if a component may not be imported or does not fit its place.
        ConfigError: With all problems at once, if only settings are wrong.
    """
    problems, foreign = [], False
    for plan in plans:
        problems += [f"plan {plan.name!r}, {problem}" for problem in _value_problems(plan)]
        for problem, is_foreign in _problems(plan):
            problems.append(f"plan {plan.name!r}, {problem}")
            foreign |= is_foreign
    if problems:
        raise (ComponentError if foreign else ConfigError)(f"{origin} holds plans that cannot be used.", problems)


def plan_problems(plan: Plan) -> list[str]:
    """Return everything that is wrong with a plan: its values, its components, their settings, training settings; empty if it
    can run."""
    return [*_value_problems(plan), *part_problems(plan)]


def part_problems(plan: Plan) -> list[str]:
    """Return what is wrong with the components, their settings and the training settings of a plan whose values were checked by
    its reader."""
    return [problem for problem, _ in _problems(plan)]


def _value_problems(plan: Plan) -> list[str]:
    """Hold a record that was made in Python against the rules for files."""
    return Plan.read(plan.to_json())[1]


def _problems(plan: Plan) -> Iterator[tuple[str, bool]]:
    """Yield each problem, and whether a component is refused."""
    for label, place, component in plan.components():
        try:
            factory = component.resolve(place.load_seam())
        except ComponentError as error:
            yield f"{label}: {error}", True
            continue
        except MissingDependencyError:
            continue  # no fault of the plan; where it runs, the race leaves it out and says what to install
        except Exception as error:
            # Foreign code runs at its import and may raise anything.
            yield f"{label}: importing {component.path!r} failed: {type(error).__name__}: {error}", False
            continue
        found = [] if place.from_settings else _binding_problems(component, factory, place)
        # Building would only repeat what the signature has told.
        yield from ((f"{label}: {problem}", False) for problem in found or _building_problems(component, place))
    for number, stage in enumerate(plan.stages):
        if stage.follows is not bool(number):
            where = "must be the first" if number else "works on what other stages made; it cannot be the first"
            yield f"stage {number + 1}: a stage of kind {stage.kind!r} {where}", False
        if isinstance(stage, TrainStage):
            yield from ((f"training: {problem}", False) for problem in training_problems(stage.training))


def training_problems(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with training settings: unknown keys with the nearest known one, values out of range."""
    from graftwork.training.config import TrainConfig

    try:
        TrainConfig.from_settings(settings)
    except ConfigError as error:
        return error.problems or (str(error),)
    return ()


def _binding_problems(component: Component, factory: Callable[..., Any], place: Place) -> list[str]:
    """Return what does not fit the signature: unknown settings with the nearest known one, missing ones, those that are handed
    in."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        # Some classes written in C have no signature; their constructor will say what it thinks.
        return []
    settings = component.settings
    by_position = [item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
    handed = {item.name for item in by_position[: place.positional]} | set(place.keywords)
    by_name = {item.name for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)}
    takes_any = any(item.kind is item.VAR_KEYWORD for item in parameters)
    allowed = sorted(by_name - handed)
    problems = []
    for key in settings:
        if key in handed:
            problems.append(f"{component.path!r} is given {key!r} by graftwork; it is no setting")
        elif key not in allowed and not takes_any:
            known = f"Its settings are: {', '.join(allowed)}." if allowed else "It has no settings."
            problems.append(f"{component.path!r} has no setting {key!r}.{did_you_mean(key, allowed)} {known}")
    problems += [
        f"{component.path!r} needs the setting {item.name!r}"
        for item in parameters
        # No default and not handed in: the plan has to give it.
        if item.default is item.empty
        and item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
        and item.name not in handed
        and item.name not in settings
    ]
    if len(by_position) < place.positional and not any(item.kind is item.VAR_POSITIONAL for item in parameters):
        problems.append(
            f"{component.path!r} takes {len(by_position)} arguments by position, and graftwork hands it {place.positional}"
        )
    problems += [
        f"{component.path!r} does not take the argument {name!r}, which graftwork hands it"
        for name in place.keywords
        if name not in by_name and not takes_any
    ]
    return problems


def _building_problems(component: Component, place: Place) -> list[str]:
    """Build what needs its settings alone; return what it says about the values."""
    if not place.is_plain:
        return []
    try:
        place.build(component)
    except MissingDependencyError:
        return []
    except GraftworkError as error:
        return [str(error)]
    except Exception as error:
        # A constructor from outside may raise anything for a wrong value.
        return [f"{component.path!r} cannot be built: {type(error).__name__}: {error}"]
    return []
