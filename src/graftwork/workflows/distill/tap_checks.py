"""Whether the modules that a user taps are there, asked before any teacher answers and anything trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.records import Plan
from graftwork.nn.module_taps import find_module
from graftwork.training.assembly import assemble
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.distill.taps import Tap
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.teachers.asking import AskedTeacher, open_teacher

__all__ = ["check_student_taps", "taps_of_teachers"]

_PLACES = "attention"
"""The way that needs maps."""


def check_student_taps(context: RunContext[DistillSettings], plan: Plan) -> None:
    """Refuse modules that the student does not have.

    Raises:
        ConfigError: Naming the path and the nearest ones.
    """
    taps = context.settings.tap_pairs
    if not taps:
        return
    suite = context.suite
    model = assemble(plan, suite.tasks, suite.input_specs, backbone=context.run.state["backbone"]).model
    for tap in taps:
        try:
            find_module(model, tap.student)
        except ConfigError as error:
            raise ConfigError(f"--tap {tap}, the student: {error}") from error


def taps_of_teachers(context: RunContext[DistillSettings]) -> dict[str, list[str]]:
    """Return which of the tapped modules each teacher has, by its name; of several teachers one is enough for a path.

    Raises:
        ConfigError: If no teacher has a module, naming the path and the nearest ones; or one that attention is to compare gives one
            vector a row.
    """
    settings = context.settings
    taps = settings.tap_pairs
    opened = [open_teacher(name, context.suite, seed=settings.seed) for name in settings.teachers] if taps else []
    networks = [teacher for teacher in opened if teacher.network is not None]
    if taps and not networks:
        raise ConfigError(f"{opened[0].name} is a file, which has no modules to tap.")
    found = {name: _paths_in(teacher, taps) for name, teacher in zip(settings.teachers, opened, strict=bool(taps))}
    for tap in taps:
        if not any(tap.teacher in paths for paths in found.values()):
            problems = [str(_refusal(teacher, tap)) for teacher in networks]
            raise ConfigError(f"--tap {tap}: no teacher has the module.", problems)
    if any(tap.way == _PLACES for tap in taps):
        _check_places(context, found)
    return found


def _paths_in(teacher: AskedTeacher, taps: Sequence[Tap]) -> list[str]:
    known = set() if teacher.network is None else {name for name, _ in teacher.network.named_modules()}
    return list(dict.fromkeys(tap.teacher for tap in taps if tap.teacher in known))


def _refusal(teacher: AskedTeacher, tap: Tap) -> ConfigError:
    assert teacher.network is not None, "a file is none of the networks"
    try:
        find_module(teacher.network, tap.teacher)
    except ConfigError as error:
        return ConfigError(f"{teacher.name}: {error}")
    raise AssertionError("only asked for modules that are not there")


def _check_places(context: RunContext[DistillSettings], paths: Mapping[str, Sequence[str]]) -> None:
    """Ask for two rows: which modules give maps or tokens is known only once they have run."""
    wanted = {tap.teacher: tap for tap in context.settings.tap_pairs if tap.way == _PLACES}
    for name, own in paths.items():
        asked = [path for path in own if path in wanted]
        if not asked:
            continue
        teacher = open_teacher(name, context.suite, asked, seed=context.settings.seed)
        answers = teacher.ask(np.arange(min(2, len(context.suite))))
        for path in asked:
            if f"maps/{path}" not in answers:
                raise ConfigError(
                    f"--tap {wanted[path]}: the module {path!r} of {name} gives one vector a row, and {_PLACES} compares places. Tap a "
                    "module with maps or tokens."
                )
