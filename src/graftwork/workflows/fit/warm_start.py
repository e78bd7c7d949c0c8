"""What a run takes from a finished one of the same tasks and columns: settings that won there, and what plans cost on this machine.

Rows that judge must have no part in what is judged. On new rows the splits are dealt out anew, so that rows which now judge may have
taught the older run, and rows on which it chose may now be tested on. Therefore:

- Costs (seconds for a step, memory) hold nothing of labels: they are taken over, for the same plan on the same machine.
- Settings that won there are taken over as they are only if the data and all its splits are the same: the older run chose them without
  the rows that judge, as this run would by going on longer. On other rows they are tried before all others, and have to win again on
  validation rows of this run; all of them stand in lists that it would go through anyway, so that only the order is known beforehand.
- Weights are never a start. A finished run keeps models of all rows, those that judge included; what it keeps of single trainings
  (without a refit) was stopped by validation rows, and a plan that begins there would not be compared on equal terms with the others.
- Thresholds, corrections of probabilities, errors for intervals, weights of an average, groups of tasks and the choice itself were made
  on rows that may judge now: all of them are made anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.records import Plan
from graftwork.data.names import short_list
from graftwork.data.options import DataOptions
from graftwork.data.store import is_stored_suite, load_suite
from graftwork.data.suite import Suite
from graftwork.workflows.runs.estimation import broken_limit
from graftwork.workflows.runs.plan_costs import Estimate
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["WarmStart", "read_warm_start", "warm_settings", "warm_start_of"]

_OWN = {"source", "warm_start", "workers", "checkpoint_seconds", "time_limit", "steps"}
"""Settings that are not simply those of the older run where nothing is said."""
_OF_PRESET = {"seeds", "single", "folds"}
_HORIZON = "max_steps"


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmStart:
    """What is taken from the older run; kept in the state of the new one."""

    run: str
    """Its folder, as it was named."""
    same_data: bool
    """Whether data and splits are the same."""
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """``{plan: {"training": {...}, "learner": {...}}}``: what won there against the plan's own settings."""
    costs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``{plan: estimate}``, for as many rows as there are now."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads back."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read :meth:`to_json`'s object."""
        return cls(**value)

    def begun(self, plans: Iterable[Plan]) -> list[Plan]:
        """Return the plans as they begin: with the settings that won if the data is the same, else as they are."""
        return [
            _changed(plan, self.settings[plan.name]) if self.same_data and plan.name in self.settings else plan for plan in plans
        ]

    def first(self, names: Iterable[str]) -> list[Mapping[str, Any]]:
        """Return the settings that plans try before all others, each once; none where they begin with them."""
        found: list[Mapping[str, Any]] = []
        for name in () if self.same_data else names:
            if (change := self.settings.get(name)) is not None and change not in found:
                found.append(change)
        return found

    def known_costs(self, plans: Iterable[Plan], settings: FitSettings) -> dict[str, Estimate]:
        """Return the costs of plans that need not be measured: those that break no limit of the user, with the settings they had."""
        found = {
            plan.name: Estimate.from_json(self.costs[plan.name])
            for plan in plans
            if plan.name in self.costs and not (self.same_data and plan.name in self.settings)
        }
        return {name: estimate for name, estimate in found.items() if not broken_limit(estimate, settings)}

    def facts(self) -> dict[str, Any]:
        """Return what ``result.json`` says."""
        return {**self.to_json(), "costs": sorted(self.costs)}

    @property
    def note(self) -> str:
        """Return what it comes to, for people."""
        costs = f" What {len(self.costs)} plans cost was not measured again." if self.costs else ""
        if not self.settings:
            return f"This run was begun from {self.run}, where no other settings than the plans' own had won.{costs}"
        names = short_list([f"`{name}`" for name in self.settings], 6)
        if self.same_data:
            return (
                f"This run was begun from {self.run} on the same rows and splits: {names} began with the settings that had won there, "
                f"which was decided without the test rows. All models were trained anew.{costs}"
            )
        return (
            f"This run was begun from {self.run}: the settings that had won there for {names} were tried first, and taken where they "
            f"won again on validation rows of this run. All models were trained anew.{costs}"
        )


def warm_start_of(run: RunFolder) -> WarmStart | None:
    """Return what a run has taken from an older one; None if it was begun anew."""
    stored = run.state.get("warm_start")
    return None if stored is None else WarmStart.from_json(stored)


def _changed(plan: Plan, change: Mapping[str, Mapping[str, Any]]) -> Plan:
    learner = plan.train.learner
    return plan.with_train(
        training={**plan.train.training, **change.get("training", {})},
        learner=Component(learner.path, {**learner.settings, **change.get("learner", {})}),
    )


def _older(folder: str | Path) -> tuple[RunFolder, dict[str, Any]]:
    """Return the state of a finished run.

    Raises:
        FileFormatError: If it is none of ``graftwork fit``.
    """
    from graftwork.workflows.runs.finished_run import read_result

    run = RunFolder(folder)
    if not run.path.is_dir():
        raise FileFormatError(
            f"--warm-start names {folder}, which is no folder. Give the folder of a finished run of graftwork fit."
        )
    result = read_result(run.path, verb="fit", what="run", key="verdict")
    if result.get("format") != "graftwork-fit-1":
        raise FileFormatError(f"--warm-start names {folder}, which holds no run of graftwork fit. Give the folder of one.")
    run.state = run.read_state()
    return run, result


def warm_settings(folder: str | Path, given: FitSettings, asked: Collection[str]) -> tuple[FitSettings, list[Plan]]:
    """Return the settings of a run that begins from another: those that the caller gave, and all others as they were there.

    Args:
        folder: The finished run.
        given: Settings of this call.
        asked: Names of those that the caller gave.

    Returns:
        The settings, and the plans that were handed to the older run as records.

    Raises:
        FileFormatError: If the folder holds no finished run of ``graftwork fit``, or its settings cannot be read.
        ConfigError: If no data is named and the older run was handed its data.
    """
    run, _ = _older(folder)
    try:
        before = FitSettings.from_json(run.state["settings"])
    except (KeyError, TypeError) as error:
        raise FileFormatError(f"The settings in {run.path / 'run.json'} cannot be read: {error}. Give another run.") from error
    mine = {*asked, *_OWN, *(_OF_PRESET if "preset" in asked else ())}
    data = {name: getattr(given.data if name in mine else before.data, name) for name in DataOptions.names()}
    taken: dict[str, Any] = {
        one.name: getattr(before, one.name) for one in fields(FitSettings) if one.name not in mine and one.name != "data"
    }
    if not {"time_limit", "steps"} & set(asked):
        taken |= {"time_limit": before.time_limit, "steps": before.steps}
    if "source" not in asked:
        if before.source == "<data>":
            raise ConfigError(f"The run in {run.path} was handed its data from Python. Name the data of this run as well.")
        taken["source"] = before.source
    settings = replace(given, data=DataOptions(**data), **taken, warm_start=str(folder))
    extra = [] if "plans" in asked else [Plan.from_json(value) for value in run.state.get("extra_plans", ())]
    return settings, extra


def read_warm_start(folder: str | Path, suite: Suite, rows: int, machine: Mapping[str, Any]) -> WarmStart:
    """Return what a run on a suite takes from a finished one.

    Args:
        folder: The finished run.
        suite: Data of the new run.
        rows: Training rows that its plans are measured with.
        machine: What the new run is measured on; costs on another machine say nothing.

    Raises:
        FileFormatError: If the folder holds no finished run of ``graftwork fit`` with its data.
        ConfigError: If tasks or columns differ, naming all that do.
    """
    run, result = _older(folder)
    if not is_stored_suite(run.suite):
        raise FileFormatError(f"{run.path} holds no data any more (its folder suite is gone), so that nothing can begin from it.")
    before = load_suite(run.suite)
    problems = [*_task_problems(before, suite), *_column_problems(before, suite)]
    if problems:
        raise ConfigError(
            f"This run cannot begin from {run.path}: what is learned there is something else. Make tasks and columns agree (--targets, "
            "--task-kind, --categories, --ignore), or leave --warm-start out.",
            problems,
        )
    same_data = before.fingerprint() == suite.fingerprint()
    plans = {plan.name: plan for plan in map(Plan.from_json, run.state.get("plans", ()))}
    won = {}
    for name, entry in result.get("plans", {}).items():
        if name in plans and isinstance(entry.get("plan"), Mapping):
            change = _difference(plans[name], Plan.from_json(entry["plan"]))
            if change:
                won[name] = change
    costs = {}
    if run.state.get("machine") == machine:
        seen = len(before.splits["train"])
        seen = min(seen, int(run.state.get("race_rows", 0)) or seen)
        costs = _costs(run.state.get("estimates", {}), rows / max(seen, 1))
    return WarmStart(run=str(folder), same_data=same_data, settings=won, costs=costs)


def _difference(before: Plan, after: Plan) -> dict[str, dict[str, Any]]:
    """Return the settings in which a plan ended otherwise than it began; a longer training alone is none."""
    if before.train.learner.path != after.train.learner.path:
        return {}
    pairs = {
        "training": (before.train.training, after.train.training),
        "learner": (before.train.learner.settings, after.train.learner.settings),
    }
    found = {key: {name: item for name, item in new.items() if old.get(name) != item} for key, (old, new) in pairs.items()}
    if not any(set(changed) - {_HORIZON} for changed in found.values()):
        return {}
    return {key: changed for key, changed in found.items() if changed}


def _costs(stored: Mapping[str, Mapping[str, Any]], more: float) -> dict[str, dict[str, Any]]:
    """Return measured costs for ``more`` times as many rows."""
    names, found = {item.name for item in fields(Estimate)}, {}
    for plan, value in stored.items():
        one = Estimate.from_json({key: item for key, item in value.items() if key in names})
        if not one.measured or not (one.seconds_per_step or one.setup_seconds):
            continue
        each = more if one.sees_all_rows else 1.0
        found[plan] = replace(
            one,
            seconds_per_step=each * one.seconds_per_step,
            setup_seconds=each * one.setup_seconds,
            eval_seconds=more * one.eval_seconds,
            steps_per_epoch=max(1.0, more * one.steps_per_epoch),
            # Whether there is time for a plan is decided anew.
            kept=True,
            reason="",
        ).to_json()
    return found


def _task_problems(before: Suite, now: Suite) -> list[str]:
    older, newer = ({task.name: task for task in suite.tasks} for suite in (before, now))
    problems = [f"task {name!r} is not learned there" for name in newer if name not in older]
    problems += [f"task {name!r} of that run is not learned here" for name in older if name not in newer]
    for name in older.keys() & newer.keys():
        first, second = older[name], newer[name]
        if (first.kind, first.positions) != (second.kind, second.positions):
            problems.append(f"task {name!r} is {second.kind_words} here and {first.kind_words} there")
        elif set(first.classes) != set(second.classes):
            gone, new = (short_list([repr(one) for one in part if one not in other], 5) for part, other in _pair(first, second))
            parts = [f"the classes {new} are new"] if new else []
            parts += [f"the classes {gone} do not occur"] if gone else []
            problems.append(f"task {name!r}: {' and '.join(parts)}")
        elif first.size != second.size:
            problems.append(f"task {name!r} has the size {second.size} here and {first.size} there")
    return sorted(problems)


def _pair(first: Any, second: Any) -> tuple[tuple[Sequence[str], Sequence[str]], tuple[Sequence[str], Sequence[str]]]:
    return (first.classes, second.classes), (second.classes, first.classes)


def _column_problems(before: Suite, now: Suite) -> list[str]:
    older, newer = _columns(before), _columns(now)
    gone, new = ([name for name in part if name not in other] for part, other in ((older, newer), (newer, older)))
    problems = [f"these inputs are missing here: {short_list(gone, 10)}"] if gone else []
    problems += [f"these inputs are not in that run: {short_list(new, 10)}"] if new else []
    changed = [
        f"{name} ({older[name]} there, {newer[name]} here)" for name in older if name in newer and older[name] != newer[name]
    ]
    return problems + ([f"these inputs are read in another way: {short_list(changed, 10)}"] if changed else [])


def _columns(suite: Suite) -> dict[str, str]:
    """Return how each column is read; without an encoder, the inputs and their widths."""
    found: dict[str, str] = {}
    for name, spec in suite.input_specs.items():
        columns = [one for one in spec.encoder.get("columns", ()) if isinstance(one, Mapping)]
        if columns:
            found |= {str(one["name"]): str(one["type"]) for one in columns}
        elif spec.kind == "table":
            found[name] = f"{spec.sizes.get('num_numeric')} numbers, {len(spec.sizes.get('cardinalities', ()))} categories"
        else:
            found[name] = spec.kind
    return found
