"""What a run folder says about its run, checked before anything is done with it: the folder may be damaged, or anybody's."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.settings import converted_value
from graftwork.data.options import DataOptions
from graftwork.interfaces.learner import Precision
from graftwork.workflows.runs.plan_costs import Estimate
from graftwork.workflows.runs.schedule import Schedule
from graftwork.workflows.runs.settings import MOST_FOLDS

__all__ = ["check_state", "going_on"]

_MOST = 100_000
"""A number of seeds, controls, finalists or refits beyond which no schedule goes."""
_REQUIRED: Mapping[str, Any] = {"created": str, "command": str, "state": str, "settings": Mapping[str, Any]}
_OPTIONAL: Mapping[str, Any] = {
    "version": str,
    "verb": str,
    "extra_plans": list[Mapping[str, Any]],
    "seconds_used": float,
    "backbone": str,
    "device": Literal["cpu", "cuda", "mps"],
    "precision": Precision,
    "folds": int,
    "race_rows": int,
    "training": Mapping[str, Any],
    "plans": list[Mapping[str, Any]],
    "estimates": Mapping[str, Mapping[str, Any]],
    "schedule": Mapping[str, Any],
    "decisions": Mapping[str, Any],
    "warm_start": Mapping[str, Any],
    "grouping": Mapping[str, Any] | None,
    "machine": Mapping[str, Any],
}
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of values that are other ones than were written."""


def check_state(state: Mapping[str, Any], file: Path, settings: type) -> None:
    """Check that the state of a run holds what the run goes on with; plans are checked where they are read.

    Args:
        state: What ``run.json`` holds.
        file: Its path, for messages.
        settings: Class of the run's settings.

    Raises:
        FileFormatError: If something is missing or of another kind; all problems at once.
    """
    problems = [f"{key} is missing" for key in _REQUIRED if key not in state]
    problems += _problems({**_REQUIRED, **_OPTIONAL}, state, "", closed=False)
    if not problems:
        fields = {**_fields(DataOptions), **_fields(settings)}
        problems += _problems({key: fields[key] for key in fields if key != "data"}, state["settings"], "settings.")
        for name, estimate in state.get("estimates", {}).items():
            # A horizon is stored beside the costs; what other versions wrote besides is not read.
            kinds = {**_fields(Estimate), "horizon": int, "seconds": float}
            problems += _problems(kinds, estimate, f"estimates.{name}.", closed=False)
        # As the settings allow it.
        if not 0 <= state.get("folds", 0) <= MOST_FOLDS:
            problems.append(f"folds is {state['folds']!s:.20}")
        if "schedule" in state:
            problems += _schedule_problems(state["schedule"], state)
    if problems:
        shown = [*problems[:20], *([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])]
        raise FileFormatError(
            "\n".join([f"{file} is damaged, or another version of graftwork wrote it:", *(f"  - {line}" for line in shown)])
            + "\nRestore it from a copy, or begin a new run in another folder with --out."
        )


def _schedule_problems(schedule: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    problems = _problems(_fields(Schedule), schedule, "schedule.")
    problems += [f"schedule.{key} is missing" for key in ("horizons", "seeds", "control_seeds") if key not in schedule]
    if problems:
        return problems
    names = {plan.get("name") for plan in state.get("plans", ()) if isinstance(plan.get("name"), str)}
    problems += [f"schedule.horizons names {name!r:.60}, which is no plan" for name in schedule["horizons"] if name not in names]
    problems += [f"schedule.horizons.{name:.60} is {steps!s:.20}" for name, steps in schedule["horizons"].items() if steps < 0]
    counts = {key: schedule.get(key) or 0 for key in ("control_seeds", "control_tasks", "finalists", "refits")}
    counts |= {f"seeds[{index}]": seed for index, seed in enumerate(schedule["seeds"])}
    return problems + [f"schedule.{key} is {value!s:.20}" for key, value in counts.items() if not 0 <= value <= _MOST]


def _fields(record: type) -> dict[str, Any]:
    hints = typing.get_type_hints(record)
    return {one.name: hints[one.name] for one in dataclasses.fields(record)}


def _problems(kinds: Mapping[str, Any], values: Mapping[str, Any], where: str, *, closed: bool = True) -> list[str]:
    """Return which values are of another kind than they have to be; of ``closed`` records also which are not known."""
    problems = []
    for key, value in values.items():
        if key not in kinds:
            problems += [f"{where}{key:.60} is not known"] if closed else []
            continue
        try:
            converted_value(value, kinds[key])
        except ConfigError as error:
            problems.append(f"{where}{key} {error}")
    return problems


@contextlib.contextmanager
def going_on(folder: Path) -> Iterator[None]:
    """Say of a run that goes on that its files do not fit together, where that shows late.

    The single files are checked as they are read, but a run is made of many, and what one says of another is only seen when
    both are used.

    Raises:
        FileFormatError: In the place of errors that damaged values lead to; the first one stays its cause.
    """
    try:
        yield
    except GraftworkError:
        raise
    except _DAMAGE as error:
        raise FileFormatError(
            f"The run in {folder} cannot go on: its stored files do not fit together ({type(error).__name__}: {error!s:.300}). "
            "Restore the folder from a copy, or begin a new run in another one with --out. If none of its files was changed, "
            "report what --debug shows."
        ) from error
