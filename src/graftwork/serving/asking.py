"""What a client asks beside its rows: tasks, budget, importance, probabilities, intervals; and reading JSON without surprises. Standard
library only."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.serving.large_json import WINDOW, parse_large
from graftwork.serving.problems import MOST_PROBLEMS, Problem, RequestError, hint

__all__ = ["OPTIONS", "Ask", "is_number", "is_text", "least_shown", "parse_json", "read_options"]

OPTIONS = ("tasks", "budget", "importance", "probabilities", "interval")
"""Keys of a request that are not rows."""
CONTROLS = ("budget", "importance")


@dataclass(frozen=True, slots=True)
class Ask:
    """Which predictions are wanted, and how cheap they must be."""

    tasks: tuple[str, ...]
    """In the order of the model's outputs; all of them if none was named."""
    budget: float | None = None
    """Largest share of the full model's FLOPs; None if it was not said."""
    importance: Mapping[str, float] | None = None
    probabilities: bool = False
    interval: float | None = None
    """Share of new rows that is to lie in its interval; None asks for none."""


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        RequestError: With status 400: no UTF-8, no JSON, NaN or infinity, numbers of thousands of digits, nesting too deep.
    """

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        # With a byte order mark or without; some clients on Windows send one.
        text = content.decode("utf-8-sig")
        if len(text) > WINDOW:
            # Sleeping, even for no time at all, lets the other threads run.
            return parse_large(text, parse_constant=refuse, pause=lambda: time.sleep(0))
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        reason = "it is nested too deep"
    except ValueError as error:
        # Python adds after the semicolon how a programmer could raise its limit, which is no advice for a client.
        reason = str(error).partition(";")[0]
    raise RequestError(400, "The body is not valid JSON.", Problem("", reason, "one JSON object in UTF-8"))


def is_text(value: Any) -> bool:
    """Return whether a value is text that has a UTF-8 form (JSON can escape halves of characters)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number, in a range that arithmetic with it cannot leave."""
    # `true` is an integer to Python.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 <= value <= 1e300


def read_options(
    content: Mapping[str, Any],
    tasks: Sequence[str],
    *,
    rows: Sequence[str],
    smallest_budget: float | None,
    widest_interval: float | None = None,
    problems: list[Problem],
) -> Ask:
    """Read everything but the rows; faults go into ``problems``.

    Args:
        content: The request.
        tasks: Tasks of the model.
        rows: Keys that hold rows.
        smallest_budget: Share of the smallest configuration; None if the model is not controllable.
        widest_interval: Largest share of new rows that an interval can hold; None if the model has no intervals.
        problems: Faults found so far, added to.
    """
    lacking = (*(CONTROLS if smallest_budget is None else ()), *(("interval",) if widest_interval is None else ()))
    known = (*rows, *(option for option in OPTIONS if option not in lacking))
    for key in content:
        # More are not shown, and a body of megabytes may hold a million keys.
        if len(problems) >= MOST_PROBLEMS:
            break
        if key == "interval" and key in lacking:
            problems.append(Problem(key, content[key], "leave it out: this model has no errors on kept-back rows of numbers"))
        elif key in lacking:
            problems.append(
                Problem(key, content[key], "leave it out: this model is not controllable, it has no smaller configurations")
            )
        elif key not in known:
            problems.append(Problem(key, content[key], f"the keys {', '.join(known)}.{hint(key, known, problems)}"))
    reading: dict[str, Callable[[Any], Any]] = {
        "tasks": lambda value: _tasks(value, tasks, problems),
        "budget": lambda value: _budget(value, smallest_budget, problems),
        "importance": lambda value: _importance(value, tasks, problems),
        "probabilities": lambda value: _boolean(value, problems),
        "interval": lambda value: _interval(value, widest_interval or 0.0, problems),
    }
    found = {key: read(content[key]) for key, read in reading.items() if key in content and key in known}
    asked = found.get("tasks") or tuple(tasks)
    return Ask(asked, found.get("budget"), found.get("importance"), bool(found.get("probabilities")), found.get("interval"))


def _tasks(value: Any, tasks: Sequence[str], problems: list[Problem]) -> tuple[str, ...]:
    allowed = f"a list with at least one of {', '.join(tasks)}"
    if not isinstance(value, list) or not value:
        problems.append(Problem("tasks", value, allowed))
        return ()
    for index, name in enumerate(value):
        if name not in tasks:
            nearest = hint(name, tasks, problems) if isinstance(name, str) else ""
            problems.append(Problem(f"tasks[{index}]", name, f"one of {', '.join(tasks)}.{nearest}"))
            # One is enough: the list may hold thousands.
            break
    # In the order of the model: the same tasks in another order share a lane.
    return tuple(task for task in tasks if task in value)


def _budget(value: Any, smallest: float | None, problems: list[Problem]) -> float | None:
    least = smallest or 0.0
    # Shares are shown rounded; a client that sends back what it saw must be understood.
    if is_number(value) and least * (1 - 1e-6) <= value <= 1:
        return float(value)
    problems.append(Problem("budget", value, f"a share of the full model's cost from {least_shown(least):g} to 1"))
    return None


def least_shown(share: float) -> float:
    """Return the smallest budget as people read it: three digits, never below the true one."""
    # Rounded up, but not past an exact value because of its last bit.
    return math.ceil(share * 1000 - 1e-9) / 1000


def _importance(value: Any, tasks: Sequence[str], problems: list[Problem]) -> dict[str, float] | None:
    if not isinstance(value, dict):
        problems.append(Problem("importance", value, "an object: a weight of at least 0 by task"))
        return None
    weights: dict[str, float] = {}
    for name, weight in value.items():
        if len(problems) >= MOST_PROBLEMS:
            break
        if name not in tasks:
            problems.append(Problem(f"importance.{name}", weight, f"the tasks {', '.join(tasks)}.{hint(name, tasks, problems)}"))
        elif not is_number(weight) or weight < 0:
            problems.append(Problem(f"importance.{name}", weight, "a number from 0 to 1e300"))
        else:
            weights[name] = float(weight)
    return weights


def _boolean(value: Any, problems: list[Problem]) -> bool:
    if not isinstance(value, bool):
        problems.append(Problem("probabilities", value, "true or false"))
    return value is True


def _interval(value: Any, most: float, problems: list[Problem]) -> float | None:
    if is_number(value) and 0 < value <= most:
        return float(value)
    shown = math.floor(most * 1000) / 1000
    problems.append(Problem("interval", value, f"a share of new rows above 0, such as 0.5, and at most {shown:g}"))
    return None
