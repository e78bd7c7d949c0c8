"""What ``fit`` and ``compare`` do before anything trains: open the data, choose plans and backbone."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_kinds import join_kinds
from graftwork.core.machine import available_cores
from graftwork.core.nearest import did_you_mean
from graftwork.core.records import Plan
from graftwork.core.version import __version__
from graftwork.data.suite import Suite
from graftwork.workflows.plan_asks import given_of, left_out_line
from graftwork.workflows.portfolio import check_stored, portfolio, unmet_asks
from graftwork.workflows.runs.horizons import kept_groups, shared_plans
from graftwork.workflows.runs.job import folder_name
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.same_run import written_since
from graftwork.workflows.runs.settings import FitSettings

__all__ = [
    "check_backbone_kind",
    "check_backbone_names",
    "check_one_for_each",
    "check_weights",
    "choose_backbone",
    "choose_plans",
    "machine_facts",
    "needed_plans",
    "number_of_folds",
    "open_run_suite",
    "rows_of_race",
]

RACE_ROWS = 30_000
"""Training rows that tell plans apart in the rungs of large suites."""
FEW_ROWS = 2000
"""Below so many rows, plans are compared by cross-validation: the test rows of one split would decide little."""


def open_run_suite(run: RunFolder, settings: FitSettings, data: Any = None) -> Suite:
    """Return the run's stored suite; at the first call, open the data and store it.

    Args:
        run: The run folder, locked.
        settings: What the user asked for.
        data: What the caller handed in; None reads ``settings.source``.

    Raises:
        DataError: If the data cannot be used, or was handed in and is gone.
        ConfigError: If a task names a metric that cannot judge it.
    """
    from graftwork.data.store import is_stored_suite, load_suite, save_suite

    if is_stored_suite(run.suite):
        suite = load_suite(run.suite)
        # Not read to find out whether it is another: here the run alone says where the data was, and the run has kept it.
        written = written_since(run, settings.source, settings.data) if data is None else []
        if written:
            run.emit("data_changed", files=written)
    else:
        from graftwork.data.reading.ingest import open_data
        from graftwork.data.reading.large_tables import is_large
        from graftwork.evaluation.metrics import check_metrics

        if data is None and settings.source == "<data>":
            raise DataError(f"The run in {run.path} was stopped before its data was stored. Call it with the data again.")
        suite = open_data(data if data is not None else settings.source, settings.data, seed=settings.seed)
        check_metrics(suite.tasks)
        save_suite(suite, run.suite)
        if is_large(len(suite)):
            # What lies in the folder is mapped, by this process and by all that train; a copy of it need not stay in memory.
            suite = load_suite(run.suite)
        # After the suite: a kill before this line reads the data again, one after it never does.
        run.save(state="suite")
    run.emit(
        "suite",
        name=suite.name,
        modality=join_kinds(suite.kinds),
        rows=len(suite),
        splits={name: len(rows) for name, rows in suite.splits.items()},
        tasks=[task.to_json() for task in suite.tasks],
        notes=list(suite.notes),
    )
    return suite


def choose_plans(run: RunFolder, settings: FitSettings, suite: Suite) -> list[Plan]:
    """Return the plans that the settings name and those that the caller handed in, separate models first.

    Raises:
        ConfigError: If a name is unknown or taken, two names are those of one folder, or a plan does not fit the suite.
    """
    names = _named_plans(settings)
    given = given_of(suite, choose_backbone(settings, suite.kinds)[0])
    plans = portfolio(suite.kinds, len(suite.tasks), names, given)
    if "all" in (names or ()):
        chosen = {plan.name for plan in plans}
        found = unmet_asks(suite.kinds, len(suite.tasks), given).items()
        unmet = {ask: kept for ask, out in found if (kept := [name for name in out if name not in chosen])}
        run.emit("plans_out", plans=unmet, line=left_out_line(unmet))
    if settings.plans is None and settings.preset_values.only_needed:
        plans = needed_plans(plans)
    extra = [Plan.from_json(value) for value in run.state.get("extra_plans", ())]
    check_stored([*plans, *extra], f"The run in {run.path}")
    if any(plan.role == "reference" for plan in extra):  # the user's own reference takes the place of ours
        plans = [plan for plan in plans if plan.role != "reference"]
    known = {plan.name for plan in plans}
    clash = [plan.name for plan in extra if plan.name in known]
    if clash:
        raise ConfigError(f"There is already a plan called {clash[0]!r}. Give your plan another name.")
    _check_folders([*plans, *extra])
    # A stable sort: the reference first, all others in their order.
    return sorted([*plans, *extra], key=lambda plan: plan.role != "reference")


def _check_folders(plans: Sequence[Plan]) -> None:
    """Refuse plans whose trainings would have one folder: the second one would take the results of the first for its own.

    Raises:
        ConfigError: Naming two of them.
    """
    found: dict[str, str] = {}
    for plan in plans:
        # Some file systems know no capitals.
        other = found.setdefault(folder_name(plan.name).casefold(), plan.name)
        if other != plan.name:
            raise ConfigError(
                f"The plans {other!r} and {plan.name!r} would write to one folder: of names, letters, digits and any of -_.+ tell plans "
                "apart, capitals do not. Rename one."
            )


def _named_plans(settings: FitSettings) -> Sequence[str] | None:
    """Return the names that the settings ask for; the preset may ask for all where they ask for none."""
    return ("all",) if settings.plans is None and settings.preset_values.optional_plans else settings.plans


def needed_plans(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans of a first look: the reference, the first plan that shares, quick plans, and the first of each other kind
    that does not share (fixed features, trees)."""
    shared = shared_plans(plans)[:1]
    independent = [group[0] for group in kept_groups(plans)]
    return [plan for plan in plans if plan.quick or plan in shared or plan in independent]


def choose_backbone(settings: FitSettings, kinds: Sequence[str]) -> tuple[str, str]:
    """Return the pretrained backbone (or several, separated by commas; all that are installed for ``all``), or an empty name and the
    reason why there is none.

    Raises:
        ConfigError: If the user names a trunk without weights.
    """
    from graftwork.nn.backbones.catalog import default_backbone, list_backbones

    asked = settings.backbone
    if asked == "none":
        return "", "left out with --backbone none"
    if asked == "all":
        every = [info for kind in kinds for info in list_backbones(kind)]
        # Names with a colon stand for families: which member is meant, only the user knows.
        asked = ",".join(info.name for info in every if info.pretrained and info.available and ":" not in info.name)
    if asked:
        _refuse_untrained(asked)
        return asked, ""
    found = default_backbone(kinds)
    if found:
        return found, ""
    commands = [info.install for kind in kinds for info in list_backbones(kind) if info.pretrained and info.install]
    return (
        "",
        f"no pretrained backbone is installed; try: {commands[0]}" if commands else "there is no pretrained backbone for it",
    )


def check_backbone_names(names: str | None) -> None:
    """Refuse names of backbones that do not exist; nothing is loaded or opened.

    Args:
        names: As a user gives them, separated by commas; ``all`` and ``none`` stand for what is installed and for no backbone.

    Raises:
        ConfigError: Naming the nearest ones.
    """
    from graftwork.nn.backbones.catalog import modality_of, split_names

    if names and names not in ("all", "none"):
        _refuse_untrained(names)
        for name in split_names(names):
            if ":" not in name and (Path(name) / "config.json").is_file():
                raise ConfigError(f"{name!r} is a folder. A backbone that transformers saved is named hf:{name}.")
            if name != "scratch":
                modality_of(name)


def check_backbone_kind(names: str, suite: Suite) -> None:
    """Refuse backbones of which none reads what the suite has.

    Raises:
        ConfigError: Naming those that could be taken.
    """
    from graftwork.nn.backbones.catalog import list_backbones, modality_of, split_names

    kinds = {name: modality_of(name) for name in split_names(names) if name != "scratch"}
    if kinds and not set(kinds.values()) & set(suite.kinds):
        told = ", ".join(f"{name!r} reads {kind}" for name, kind in kinds.items())
        fitting = [info.name for kind in suite.kinds for info in list_backbones(kind) if info.pretrained]
        advice = f"Choose from: {', '.join(fitting)}." if fitting else "There is no pretrained backbone for such data."
        raise ConfigError(f"The backbone {told} data, and the data is {join_kinds(suite.kinds)}. {advice}")


def check_one_for_each(backbone: str, suite: Suite) -> None:
    """Refuse names of which two read the same kind of input: `fit` chooses among them, other verbs take what they are told.

    Raises:
        ConfigError: Naming the two.
    """
    from graftwork.nn.backbones.catalog import backbones_of_inputs, split_names

    if len(split_names(backbone)) > 1:
        backbones_of_inputs(backbone, suite.input_specs)


def _refuse_untrained(names: str) -> None:
    from graftwork.nn.backbones.catalog import split_names
    from graftwork.nn.backbones.untrained import UNTRAINED

    for name in split_names(names):
        if name in UNTRAINED:
            raise ConfigError(
                f"The backbone {name!r} has no weights yet, and --backbone names pretrained ones. Let a plan name it, with "
                f'source = "scratch" and backbone = "{UNTRAINED[name].component.path}".'
            )


def check_weights(settings: FitSettings, suite: Suite) -> None:
    """Check that the tasks with weights are in the suite.

    Raises:
        ConfigError: If one is not.
    """
    for name in settings.weights:
        if name not in suite.task_names:
            raise ConfigError(
                f"There is a weight for {name!r}, which is no task.{did_you_mean(name, suite.task_names)} "
                f"Tasks: {', '.join(suite.task_names)}."
            )


def number_of_folds(settings: FitSettings, suite: Suite) -> int:
    """Return the folds by which plans are compared; 0 for one split, whose test rows everybody shares.

    Raises:
        ConfigError: If the user asks for folds where the splits are given, or for more than the rows allow.
    """
    from graftwork.data.folds import can_fold

    if settings.folds:
        if not can_fold(suite, settings.folds):
            raise ConfigError(
                f"The suite {suite.name!r} cannot be divided into {settings.folds} folds: its splits are given, or there are fewer "
                f"than {2 * settings.folds} labelled rows (or groups). Leave --folds out, or give a smaller number."
            )
        return settings.folds
    # with fewer seeds than three nothing may be asserted, and the user wants a quick look
    is_small = len(suite) < FEW_ROWS and settings.seeds >= 3
    folds = settings.preset_values.folds
    return folds if settings.folds is None and is_small and can_fold(suite, folds) else 0


def rows_of_race(settings: FitSettings, suite: Suite) -> int:
    """Return how many training rows the rungs see; 0 for all. Finals see all rows.

    With fixed steps rungs see all rows as well: the user said how long they are.
    """
    return RACE_ROWS if settings.steps is None and len(suite.splits["train"]) > 2 * RACE_ROWS else 0


def machine_facts(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the numbers of a run with this state were measured on."""
    from importlib import metadata

    versions = {}
    # Only what changes numbers or speed.
    for package in ("torch", "numpy", "lightgbm", "onnxruntime"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": available_cores(),
        "python": platform.python_version(),
        # Not `platform.platform`, which starts a program to ask for the processor.
        "platform": "-".join((platform.system(), platform.release(), platform.machine())),
        "graftwork": __version__,
        **versions,
        # Only where it is no CPU, and no precision but the plans' own: older results say neither.
        **{key: state[key] for key, usual in (("device", "cpu"), ("precision", "plan")) if state.get(key, usual) != usual},
    }
