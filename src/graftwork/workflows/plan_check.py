"""Plans are looked at before anything of them runs: a stored run, a plan file and a plan handed in may all come from somebody else."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from graftwork.core.errors import ComponentError
from graftwork.core.records import Plan

__all__ = ["SEAMS_OF_PLACES", "refuse_foreign_components", "seam_of"]

SEAMS_OF_PLACES: dict[str, tuple[str, str]] = {
    "learner": ("learner", "Learner"),
    "sharing": ("shared_model", "SharedModel"),
    "tuning": ("tuner", "Tuner"),
    "optimization": ("balancer", "Balancer"),
    "objectives": ("objective", "Objective"),
    "transforms": ("transform", "GradientTransform"),
}
"""Which seam a component must implement to stand in a place of a plan: module of :mod:`graftwork.interfaces`, and class."""


def seam_of(place: str) -> type:
    """Return the abstract class that a component in this place implements; imports its module, and with it torch."""
    module, name = SEAMS_OF_PLACES[place]
    seam: type = getattr(importlib.import_module(f"graftwork.interfaces.{module}"), name)
    return seam


def refuse_foreign_components(plans: Iterable[Plan], origin: str) -> None:
    """Refuse plans that name components of packages that are not allowed. Nothing is imported.

    Args:
        plans: Any plans.
        origin: Where they come from, for the message, as in ``"The run in runs/a"``.

    Raises:
        ComponentError: With all such components at once.
    """
    problems = []
    for plan in plans:
        for place, component in plan.components():
            try:
                component.check()
            except ComponentError as error:
                problems.append(f"plan {plan.name!r}, {place}: {error}")
    if problems:
        raise ComponentError(f"{origin} holds plans that may not be used.", problems)
