"""Which models a run folder holds: that of the chosen plan, and those of other finalists in ``plans/``. No torch.

``plans/NAME`` is laid out as the run folder is: ``model.onnx``, and ``model/`` with ``config.json`` and ``lineage.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.nearest import did_you_mean

__all__ = ["PLANS_FOLDER", "chosen_plan", "folder_of_plan", "kept_plans", "model_date", "plan_name"]

PLANS_FOLDER = "plans"
"""Name of the folder in a run that holds the models of other finalists."""


def chosen_plan(run_folder: Path) -> str:
    """Return the name of the plan whose model a run hands over; empty if the folder does not say."""
    # A run folder, or a folder that was exported alone.
    return _plan_of(run_folder / "model" / "config.json") or _plan_of(run_folder / "config.json")


def kept_plans(run_folder: Path) -> dict[str, Path]:
    """Return ``{name: folder}`` of the other finalists whose models a run kept, sorted by name."""
    found: dict[str, Path] = {}
    for config in sorted((run_folder / PLANS_FOLDER).glob("*/model/config.json")):
        name, folder = _plan_of(config), config.parent.parent
        if name and (folder / "model.onnx").is_file():
            found[name] = folder
    return dict(sorted(found.items()))


def folder_of_plan(run_folder: str | Path, plan: str | None) -> Path:
    """Return the folder from which the model of a plan is read.

    Args:
        run_folder: Folder that ``graftwork fit`` wrote.
        plan: Name of a finalist; None is the chosen plan.

    Raises:
        ConfigError: If there is no model of this plan; the message names those that there are.
    """
    run_folder = Path(run_folder)
    # Wrong folders are the business of whoever reads the model.
    if plan is None or not run_folder.is_dir():
        return run_folder
    chosen, kept = chosen_plan(run_folder), kept_plans(run_folder)
    if chosen and plan == chosen:
        return run_folder
    if plan in kept:
        return kept[plan]
    known = [*([f"{chosen} (the chosen one)"] if chosen else []), *kept]
    there = f"The models of {run_folder} are: {', '.join(known)}." if known else f"{run_folder} holds no model yet."
    reason = _why_not(run_folder, plan)
    if reason:
        raise ConfigError(f"The model of the plan {plan!r} was not kept: {reason}. {there}")
    hint = did_you_mean(plan, [name for name in (chosen, *kept) if name])
    raise ConfigError(f"There is no model of a plan {plan!r}.{hint} {there}")


def model_date(run_folder: str | Path, plan: str) -> str:
    """Return when the model of a plan was written, ISO 8601 in UTC; empty if the folder does not say.

    Args:
        run_folder: Folder that ``graftwork fit`` wrote, or one that was exported alone.
        plan: Name of the plan; empty is the chosen one.
    """
    run_folder = Path(run_folder)
    folder = kept_plans(run_folder).get(plan, run_folder)
    for lineage in (folder / "model" / "lineage.json", folder / "lineage.json"):
        try:
            created = _section({"lineage": read_json(lineage)}, "lineage").get("created")
        except (FileFormatError, OSError):
            continue
        if isinstance(created, str):
            return created
    return ""


def _why_not(run_folder: Path, plan: str) -> str:
    """Return why a run did not keep a plan; empty if its result does not know the plan."""
    try:
        result = read_json(run_folder / "result.json")
    except (FileFormatError, OSError):
        return ""
    if not isinstance(result, Mapping):
        return ""
    reasons = _section(_section(result, "kept_plans"), "not_kept")
    if plan in reasons:
        return str(reasons[plan])
    if plan in _section(result, "plans"):
        return "the run is of a version that kept the chosen plan only, or its folder was removed"
    raced = {str(row.get("plan")) for row in result.get("race") or () if isinstance(row, Mapping)}
    return "it did not reach the finals" if plan in raced else ""


def _section(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def plan_name(config: Any) -> str:
    """Return the name of the plan that the content of a ``config.json`` gives; empty if it gives none."""
    plan = config.get("plan", "") if isinstance(config, Mapping) else ""
    return str(plan.get("name", "")) if isinstance(plan, Mapping) else str(plan)


def _plan_of(file: Path) -> str:
    try:
        return plan_name(read_json(file))
    except (FileFormatError, OSError):
        return ""
