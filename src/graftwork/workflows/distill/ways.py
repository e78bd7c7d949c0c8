"""The ways in which a student can be taught: an objective each, and what a teacher must give for it. Torch is not imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.workflows.distill.taps import Tap

__all__ = ["AUTO", "WAYS", "Way", "objectives_of", "usable_ways"]

AUTO = "auto"
_ROOM = "graftwork.methods.distillation."


@dataclass(frozen=True, slots=True)
class Way:
    """One way."""

    title: str
    path: str
    """Of the objective."""
    needs: str
    """Key of a teacher's answers that must be there: ``tasks``, ``features``, ``classes``, ``maps``, or ``network`` and ``blocks``
    of one that can run beside the student."""
    needs_words: str
    weight: float
    """Factor with the strength 1."""
    takes: tuple[str, ...] = ()
    """Settings of the user that it takes: ``temperature``, ``tap``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    runs: str = ""
    """Setting that names the teacher, of objectives that run it beside the student; empty where stored answers are enough."""


WAYS: Mapping[str, Way] = {
    "logits": Way(
        "softened outputs for the same tasks (Hinton)",
        f"{_ROOM}logit:LogitDistillation",
        "tasks",
        "answers for a task of the data",
        2.0,
        ("temperature",),
    ),
    "features": Way(
        "features through a learned map (FitNets)", f"{_ROOM}feature:FeatureDistillation", "features", "features", 0.5, ("tap",)
    ),
    "attention": Way(
        "where layers are active; needs --tap (attention transfer)",
        f"{_ROOM}attention:AttentionTransfer",
        "maps",
        "a tapped module with places",
        1000.0,
        ("tap",),
    ),
    "relations": Way(
        "distances and angles between rows (RKD)",
        f"{_ROOM}relational:RelationalDistillation",
        "features",
        "features",
        1.0,
        ("tap",),
    ),
    "classes": Way(
        "the teacher's own classes through an extra head",
        f"{_ROOM}distill_similar:SourceClasses",
        "classes",
        "classes of its own",
        4.0,
    ),
    "scalekd": Way(
        "features through its last stage; pictures, named teachers (ScaleKD)",
        f"{_ROOM}scalekd:ScaleKD",
        "blocks",
        "to be a named network of blocks that reads pictures, as vit-mini",
        1.0,
        runs="teacher",
    ),
    "guidance": Way(
        "layer by layer, how alike rows are; pictures, named teachers",
        f"{_ROOM}guidance:Guidance",
        "network",
        "to be a named network that reads pictures, as conv-mini",
        1.0,
        runs="guide",
    ),
}
"""Ways by name."""


def usable_ways(asked: Sequence[str], teacher: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ways in which one teacher teaches.

    ``auto`` takes its outputs where it answers a task of the data, else its own classes and its features, whichever it has.

    Args:
        asked: Names of ways, or ``auto``.
        teacher: Result of its :class:`~graftwork.workflows.runs.jobs.teach.TeachJob`.
    """
    if AUTO not in asked:
        return tuple(way for way in asked if teacher.get(WAYS[way].needs))
    if teacher.get("tasks"):
        return ("logits",)
    return tuple(way for way in ("classes", "features") if teacher.get(WAYS[way].needs))


def objectives_of(
    asked: Sequence[str],
    teachers: Sequence[Mapping[str, Any]],
    weights: Sequence[float],
    *,
    temperature: float,
    strength: float,
    taps: Sequence[Tap] = (),
) -> tuple[Component, ...]:
    """Return the objectives of the student's plan: one a way, with the teachers that can teach so; one a pair of tapped modules,
    which share the weight of their way.

    Args:
        asked: Names of ways, or ``auto``.
        teachers: Results of their jobs.
        weights: Weight of each teacher, with the sum 1; a teacher without weight is left out.
        temperature: Of softened outputs.
        strength: Factor on all terms.
        taps: Pairs of tapped modules of student and teachers.

    Raises:
        ConfigError: If no teacher can teach in a way that was asked for, or a pair is compared in none.
    """
    counting = [(teacher, weight) for teacher, weight in zip(teachers, weights, strict=True) if weight > 0]
    found: list[Component] = []
    used: set[Tap] = set()
    for name, way in WAYS.items():
        able = [(teacher, weight) for teacher, weight in counting if name in usable_ways(asked, teacher)]
        if not able:
            if name in asked:
                tapped = "" if name != "attention" or taps else " Name modules of student and teacher: --tap STUDENT=TEACHER."
                given = "; ".join(
                    f"{item['teacher']} gives {_given(item)}{'' if weight > 0 else ', but weighs 0'}"
                    for item, weight in zip(teachers, weights, strict=True)
                )
                if any(name in usable_ways(asked, item) for item in teachers):
                    given += ". Weigh teachers yourself with --weighting 0.5,0.5, or leave this way out"
                raise ConfigError(f"No teacher can teach {name}: that needs {way.needs_words}.{tapped} {given}.")
            continue
        if way.runs:
            # A network each, whose layers are its own.
            found += [
                Component(way.path, {way.runs: str(teacher["network"]), "weight": way.weight * strength * weight})
                for teacher, weight in able
            ]
            continue
        pairs = [(tap, _with_tap(name, tap, able)) for tap in taps if "tap" in way.takes and tap.way in ("", name)]
        used |= {tap for tap, holders in pairs if holders}
        compared: list[tuple[Tap | None, Sequence[tuple[Mapping[str, Any], float]]]] = [pair for pair in pairs if pair[1]]
        if pairs and not compared:
            raise ConfigError(
                f"No tapped module of a teacher can be compared by {name}: that needs {way.needs_words}. The taps are "
                f"{', '.join(str(tap) for tap, _ in pairs)}."
            )
        compared = compared or [(None, able)]
        for tap, holders in compared:
            settings: dict[str, Any] = {
                "answers": [str(teacher["entry"]) for teacher, _ in holders],
                # Each teacher counts by its weight in every way: one of little use must not have a way of its own at full strength.
                "weight": way.weight * strength * sum(weight for _, weight in holders) / len(compared),
                "teacher_weights": [float(weight) for _, weight in holders],
                **way.settings,
            }
            if "temperature" in way.takes:
                settings["temperature"] = temperature
            if tap is not None:
                settings |= {"tap": tap.student, "teacher_tap": tap.teacher}
            found.append(Component(way.path, settings))
    idle = [tap for tap in taps if tap not in used]
    if found and idle:
        tapping = ", ".join(name for name, way in WAYS.items() if "tap" in way.takes)
        raise ConfigError(
            f"--tap {idle[0]} is compared in none of the ways {', '.join(asked)}. Ways that compare modules: {tapping}."
        )
    if not found:
        raise ConfigError("None of the teachers gives anything that can be taught.")
    return tuple(found)


def _with_tap(way: str, tap: Tap, able: Sequence[tuple[Mapping[str, Any], float]]) -> list[tuple[Mapping[str, Any], float]]:
    """Return the teachers whose answers hold what a way compares of a tapped module."""
    key = "maps" if WAYS[way].needs == "maps" else "taps"
    # Answers of older versions do not say what was tapped: all that was asked for.
    return [(teacher, weight) for teacher, weight in able if tap.teacher in teacher.get(key, (tap.teacher,))]


def _given(teacher: Mapping[str, Any]) -> str:
    words = [f"answers for {', '.join(teacher['tasks'])}"] if teacher.get("tasks") else []
    words += [f"{teacher[key]} {key}" for key in ("features", "classes") if teacher.get(key)]
    return ", ".join(words) or "nothing"
