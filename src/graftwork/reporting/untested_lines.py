"""What a race did not find out: plans that were left out, numbers that were cut, trainings that were not at their end. Every name
and number comes from ``not_tested`` and ``plans`` of the result."""

from __future__ import annotations

from typing import Any

from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView

__all__ = ["improving_sentence", "untested_lead", "untested_line", "untested_table"]

_SHOWN = 3
"""Plans that a folded line names; the report has all."""
_NO_CONTROLS = ("control_seeds", "control_tasks")
"""Cuts that say nothing more where no control was made."""


def untested_line(view: ResultView, *, reasons: str = "report.html has the reasons") -> str:
    """Return in one line what was not tested and which trainings were not at their end; empty if there is nothing to say.

    ``reasons`` says where the reasons are. The line names at most three plans and no reasons; :func:`untested_table` has all of them.
    """
    parts = []
    plans = [str(item.get("name")) for item in _items(view) if item.get("what") == "plan"]
    if plans:
        names = ", ".join(f"`{name}`" for name in plans[:_SHOWN])
        more = f" and {len(plans) - _SHOWN} more" if len(plans) > _SHOWN else ""
        parts.append(f"{len(plans)} plan{'s' if len(plans) > 1 else ''} ({names}{more})")
    for item in _items(view):
        what = item.get("what")
        if what == "sharing":
            parts.append(f"sharing ({item.get('reason')})")
        elif what == "controls":
            parts.append(str(item.get("name")))
        elif what != "plan":
            planned, given = int(item.get("planned") or 0), int(item.get("given") or 0)
            parts.append(f"{planned - given} of {planned} {item.get('name')}")
    line = f"Not tested: {'; '.join(parts)}; {reasons}." if parts else ""
    return " ".join(filter(None, (line, improving_sentence(view))))


def improving_sentence(view: ResultView) -> str:
    """Return whether the reference or the chosen plan would have gone on improving; empty if neither would."""
    who = []
    if _improves(view, view.reference):
        who.append(f"the reference `{view.reference}`")
    if view.choice != view.reference and _improves(view, view.choice):
        who.append(f"the chosen plan `{view.choice}`")
    if not who:
        return ""
    return (
        f"Trainings of {' and of '.join(who)} were still improving at their last step, or were cut: longer ones may change the "
        "comparison."
    )


def untested_lead(view: ResultView) -> str:
    """Return a short paragraph: plans that the verdict says nothing of, with the reasons; cut numbers; trainings that were not at
    their end."""
    items = _items(view)
    by_reason: dict[str, list[str]] = {}
    for item in items:
        if item.get("what") == "plan":
            by_reason.setdefault(str(item.get("reason") or "no reason was stored"), []).append(f"`{item.get('name')}`")
    # Reasons with numbers of their own are many: the table below has them.
    said = list(by_reason.items())[:_SHOWN]
    parts = [f"{', '.join(names[:_SHOWN])}{_more(len(names) - _SHOWN)} ({reason})" for reason, names in said]
    rest = _more(sum(len(names) for names in list(by_reason.values())[_SHOWN:]))
    cuts = [f"{item.get('given')} of {item.get('planned')} {item.get('name')}" for item in items if "planned" in item]
    none = [f"{item.get('name')} ({item.get('reason')})" for item in items if item.get("what") in ("sharing", "controls")]
    sentences = (
        f"The verdict says nothing of {'; '.join(parts)}{rest}." if parts else "",
        f"Nothing was found out with {'; '.join(none)}." if none else "",
        f"The time sufficed for {'; '.join(cuts)}." if cuts else "",
        improving_sentence(view),
    )
    return " ".join(filter(None, sentences))


def untested_table(view: ResultView) -> Table | None:
    """Return everything that was not tested with its reason, and the plans whose trainings were not at their end; None if there is
    nothing."""
    # In a short race most plans are left out for the same reason: one row each reason.
    found: dict[tuple[str, str], list[str]] = {}
    for item in _items(view):
        kind = "plan" if item.get("what") == "plan" else str(item.get("name"))
        found.setdefault((kind, str(item.get("reason") or "")), []).append(str(item.get("name")))
    for name in view.plans:
        if _improves(view, name):
            role = "chosen plan" if name == view.choice else "reference" if name == view.reference else "plan"
            found.setdefault(
                (role, "at least half of the trainings were still improving at their last step, or were cut"), []
            ).append(name)
    rows: list[list[str | Cell]] = []
    for (kind, reason), names in found.items():
        note = "" if kind == names[0] else kind if len(names) == 1 else f"{len(names)} {kind}s"
        rows.append([Cell(", ".join(names), note=note, numeric=False), Cell(reason, numeric=False)])
    return Table("Not tested, or not to the end", ["What", Cell("Why", numeric=False)], rows) if rows else None


def _more(number: int) -> str:
    return f" and {number} more" if number > 0 else ""


def _items(view: ResultView) -> list[dict[str, Any]]:
    """Return what was not tested; a cut of controls is left out where no control was made at all."""
    found = view.rows("not_tested")
    none = any(item.get("what") in ("controls", "sharing") for item in found)
    return [item for item in found if not (none and item.get("what") in _NO_CONTROLS)]


def _improves(view: ResultView, plan: str) -> bool:
    return bool((view.plans.get(plan) or {}).get("still_improving"))
