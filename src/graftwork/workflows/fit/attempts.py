"""What is done with time that is left after the finals: finalists are trained again, longer where they were still improving, and with
other settings; what is better on validation rows takes the place of what was there.

The reference and the joint plans from scratch are always tried together and with equal settings, so that a difference between them
stays one of sharing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from graftwork.core.components import Component
from graftwork.core.records import Plan
from graftwork.core.stages.train import TrainStage
from graftwork.workflows.fit.ranking import mean_change
from graftwork.workflows.fit.replanning import known_costs
from graftwork.workflows.fit.warm_start import warm_start_of
from graftwork.workflows.portfolio import variants_of
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import MEMBERS, decided, is_decided, seconds_left
from graftwork.workflows.runs.horizons import own_horizon
from graftwork.workflows.runs.jobs.train import TrainJob

__all__ = ["MARGIN", "Attempts", "improves", "plan_seconds", "sees_all_rows", "training_seconds", "whole_seconds"]

LONGER = (4.0, 2.0)
"""By how much trainings become longer where plans are still improving: the first that fits into the time."""
LONGER_TRIES = 3
"""Most longer trainings where a preset tries no other settings."""
LEAST_LONGER = 1.25
"""By how much they become longer at least, where neither fits."""
MORE_ROWS = (math.inf, 4.0, 2.0)
"""By how much trainings see more rows where finals did not see all: the first that fits into the time."""
LEAST_GAIN = 0.2
"""Percent that validation must gain for other settings to be taken: less is chance."""
MARGIN = 1.15
"""Trainings may take so many times as long as those before."""
OF_NETWORKS: tuple[Mapping[str, Any], ...] = (
    {"training": {"learning_rate": 5e-3}},
    {"training": {"weight_decay": 0.3}},
    {"training": {"learning_rate": 6e-4}},
    {"training": {"batch_size": 32, "learning_rate": 1e-3}},
    {"training": {"schedule": "wsd"}},
    {"training": {"batch_size": 256, "learning_rate": 4e-3}},
)
"""Settings that are tried for networks, in this order."""
_NEURAL = TrainStage().learner

Finals = dict[str, dict[int, TrainJob]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempt:
    key: str
    """What is tried, for people and so that nothing is tried twice."""
    plans: Mapping[str, Plan]
    horizons: Mapping[str, int]
    rows: Mapping[str, int]
    """Most training rows of each plan; 0: all."""
    longer: bool = False
    """Whether only the steps are more."""


@dataclass(slots=True)
class Attempts:
    """The attempts of one race.

    Args:
        context: The run; :attr:`context` holds the plans and horizons that were taken in the end.
        finals: Finished finals of every plan; trainings that are better take their places.
        reserved: Seconds that are needed for what follows.
    """

    context: RunContext[Any]
    finals: Finals
    reserved: float
    made: list[dict[str, Any]] = field(default_factory=list)
    """What was tried, as ``attempts`` of ``result.json``."""
    _in_vain: set[str] = field(default_factory=set)
    """Plans whose last longer training was no better."""

    def run(self) -> None:
        """Try until the time is used, everything was tried, or somebody stops it."""
        tried: set[str] = set()
        for number in range(1, (self.context.settings.preset_values.tries or LONGER_TRIES) + 1):
            if seconds_left(self.context) is None:
                return
            is_over = self.context.stop() is not None or is_decided(self.context, MEMBERS)
            if is_over and not is_decided(self.context, _name_of(number)):
                return
            found = self._decided(number, tried)
            if found is None:
                return
            tried.add(found.key)
            if not self._try(number, found):
                return

    def _decided(self, number: int, tried: set[str]) -> _Attempt | None:
        def decide() -> dict[str, Any]:
            # What was tried and not taken would be tried again without end.
            new = (one for one in self._candidates() if one.key not in tried)
            chosen = next((one for one in new if self._seconds(one) <= self._free()), None)
            if chosen is None:
                return {}
            plans = {name: plan.to_json() for name, plan in chosen.plans.items()}
            numbers = {"horizons": dict(chosen.horizons), "rows": dict(chosen.rows), "longer": chosen.longer}
            return {"key": chosen.key, "plans": plans, **numbers}

        value = decided(self.context, _name_of(number), decide)
        if not value:
            return None
        plans = {name: Plan.from_json(plan) for name, plan in value["plans"].items()}
        # Runs of older versions chose no rows.
        rows = value.get("rows", self._rows_of(list(plans)))
        longer = bool(value.get("longer", False))
        return _Attempt(key=value["key"], plans=plans, horizons=value["horizons"], rows=rows, longer=longer)

    def _free(self) -> float:
        return (seconds_left(self.context) or 0.0) - self.reserved

    def _seconds(self, attempt: _Attempt) -> float:
        workers = max(1, self.context.settings.num_workers)
        costs = known_costs(self.context)
        each = {}
        for name, horizon in attempt.horizons.items():
            each[name] = plan_seconds(self.context, self.finals[name]) * max(1.0, horizon / self.context.schedule.horizons[name])
            # Boosting rounds and fits in one go cost more on more rows; batches do not.
            if attempt.rows[name] > self._rows(name) and name in costs and costs[name].sees_all_rows:
                each[name] *= attempt.rows[name] / self._rows(name)
        total = sum(seconds * len(self.finals[name]) for name, seconds in each.items())
        return MARGIN * max(total / workers, max(each.values()))

    def _candidates(self) -> Iterator[_Attempt]:
        """Yield what may be tried: more rows and longer trainings first, then settings in turns."""
        groups = self._groups()
        yield from self._with_more_rows(groups)
        for names in groups:
            if not self._improve(names):
                continue
            for factor in LONGER:
                yield self._longer(names, factor)
        settings = [self._settings(names) for names in groups] if self.context.settings.preset_values.tries else []
        for place in range(max(map(len, settings), default=0)):
            for names, changes in zip(groups, settings, strict=True):
                if place >= len(changes):
                    continue
                yield self._changed(names, changes[place])
        # What is left after that is too little for a training of double length, and not enough for other settings.
        for names in groups:
            if self._improve(names) and not self._in_vain.issuperset(names):
                yield from self._as_long_as_fits(names)

    def _as_long_as_fits(self, names: Sequence[str]) -> Iterator[_Attempt]:
        """Yield trainings that are so much longer as the time allows, if that is worth it."""
        same = self._longer(names, 1.0)
        # A little less: the time goes on while this is worked out.
        factor = min(LONGER[-1], 0.98 * self._free() / max(self._seconds(same), 1e-9))
        if factor >= LEAST_LONGER:
            yield self._longer(names, factor)

    def _longer(self, names: Sequence[str], factor: float) -> _Attempt:
        plans, horizons = self.context.plans, self.context.schedule.horizons
        longer = {name: int(factor * horizons[name]) for name in names}
        return _Attempt(
            key=f"{', '.join(names)}: {max(longer.values())} steps",
            plans={name: _with_horizon(plans[name], longer[name]) for name in names},
            horizons=longer,
            rows=self._rows_of(names),
            longer=True,
        )

    def _with_more_rows(self, groups: Sequence[Sequence[str]]) -> Iterator[_Attempt]:
        """Yield the same trainings on more rows, if finals saw a part of them."""
        plans, horizons, all_rows = self.context.plans, self.context.schedule.horizons, len(self.context.suite.splits["train"])
        costs = known_costs(self.context)
        # Trees learn from every row in every step; networks of a few epochs gain less.
        for names in sorted(groups, key=lambda names: not any(name in costs and costs[name].sees_all_rows for name in names)):
            seen = max(self._rows_of(names).values())
            more = {min(all_rows, int(min(factor * seen, all_rows))) for factor in MORE_ROWS} if seen else set()
            for rows in sorted(more - {seen}, reverse=True):
                yield _Attempt(
                    key=f"{', '.join(names)}: {rows:,} rows",
                    plans={name: plans[name] for name in names},
                    horizons={name: horizons[name] for name in names},
                    rows=dict.fromkeys(names, rows),
                )

    def _rows(self, name: str) -> int:
        """Return the most training rows that a plan's trainings saw; 0: all."""
        return next(iter(self.finals[name].values())).rows

    def _rows_of(self, names: Sequence[str]) -> dict[str, int]:
        return {name: self._rows(name) for name in names}

    def _groups(self) -> list[list[str]]:
        """Return the finalists that are tried together: networks from scratch, and every other plan by itself; a baseline has
        nothing to try."""
        plans = self.context.plans
        tried = [name for name in self.finals if plans[name].group != "baseline"]
        apart = {name: plans[name].source != "scratch" or own_horizon(plans[name]) is not None for name in tried}
        together = [name for name in tried if not apart[name]]
        return [*([together] if together else []), *([name] for name in tried if apart[name])]

    def _improve(self, names: Sequence[str]) -> bool:
        return any(improves(self.context, self.finals[name]) for name in names)

    def _settings(self, names: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = variants_of(names[0], self.context.settings.plans)
        if not found:
            networks = all(self.context.plans[name].train.learner.path == _NEURAL.path for name in names)
            found = OF_NETWORKS if networks else ()
        warm = warm_start_of(self.context.run)
        if warm is not None:  # what won in an older run comes first
            first = warm.first(names)
            found = [*first, *(change for change in found if change not in first)]
        asked = set(self.context.settings.overrides)
        return [change for change in found if not asked & set(change.get("training", {}))]

    def _changed(self, names: Sequence[str], change: Mapping[str, Any]) -> _Attempt:
        plans, horizons = {}, {}
        for name in names:
            plan = self.context.plans[name]
            learner = plan.train.learner
            changed = plan.with_train(
                training={**plan.train.training, **change.get("training", {})},
                learner=Component(learner.path, {**learner.settings, **change.get("learner", {})}),
            )
            plans[name] = changed
            # A plan that counts rounds may get more of them together with smaller ones.
            own = own_horizon(changed)
            horizons[name] = self.context.schedule.horizons[name] if own == own_horizon(plan) else int(own or 0)
        what = {**change.get("training", {}), **change.get("learner", {})}
        words = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in what.items())
        return _Attempt(key=f"{', '.join(names)}: {words}", plans=plans, horizons=horizons, rows=self._rows_of(names))

    def _try(self, number: int, attempt: _Attempt) -> bool:
        """Train all finals of an attempt; return whether the race goes on."""
        context, maker = self.context, self.context.maker
        jobs = {
            name: {
                seed: maker.attempt(number, plan, attempt.horizons[name], seed, attempt.rows[name])
                for seed in sorted(self.finals[name])
            }
            for name, plan in attempt.plans.items()
        }
        queue = [job for by_seed in jobs.values() for job in by_seed.values()]
        context.run.emit("phase", phase=f"attempt {number}", jobs=len(queue), plans=list(jobs), what=attempt.key)
        answers = context.run_jobs(queue)
        if context.stop.by_user() is not None:
            return False
        plans, horizons = dict(context.plans), dict(context.schedule.horizons)
        for name, by_seed in jobs.items():
            results = {seed: answers.get(job.id) for seed, job in by_seed.items()}
            gain = self._gain(name, results)
            taken = gain is not None and gain > LEAST_GAIN
            # What was cut, or did not end well, says nothing of longer trainings.
            longer = attempt.longer and gain is not None
            made = {"number": number, "plan": name, "what": attempt.key, "change": gain, "taken": taken, "longer": longer}
            self.made.append(made)
            if longer:
                self._in_vain = self._in_vain - {name} if taken else self._in_vain | {name}
            if taken:
                self.finals[name] = by_seed
                plans[name], horizons[name] = attempt.plans[name], attempt.horizons[name]
            dropped = by_seed.values() if not taken else ()
            for job in dropped:
                context.run.drop_checkpoint(job.id)
        self.context = context.planned(plans.values(), replace(context.schedule, horizons=horizons))
        return True

    def _gain(self, name: str, results: Mapping[int, Mapping[str, Any] | None]) -> float | None:
        """Return the mean change of validation in percent; None if a training is missing or was cut."""
        changes = []
        for seed, result in results.items():
            if result is None or result["status"] != "ok" or result.get("cut"):
                return None
            before = self.context.run.result(self.finals[name][seed].id) or {}
            change = mean_change(
                self.context.suite, result["validation"], before.get("validation", {}), self.context.settings.weights
            )
            if change is not None:
                changes.append(change)
        return mean(changes) if changes else None


def _name_of(number: int) -> str:
    """Return the name of the decision what an attempt tries."""
    return f"attempt {number}"


def _with_horizon(plan: Plan, steps: int) -> Plan:
    """Return a plan that asks for its own horizon with a longer one."""
    if own_horizon(plan) is None:
        return plan
    return plan.with_train(training={**plan.train.training, "max_steps": steps})


def improves(context: RunContext[Any], jobs: Mapping[int, TrainJob]) -> bool:
    """Return whether at least half of a plan's trainings were still improving at their last step, or were cut."""
    results = [context.run.result(job.id) or {} for job in jobs.values()]
    return bool(results) and mean(bool(result.get("still_improving")) for result in results) >= 0.5


def plan_seconds(context: RunContext[Any], jobs: Mapping[int, TrainJob]) -> float:
    """Return the mean seconds of a plan's trainings from nothing to the end."""
    found = []
    for job in jobs.values():
        result = context.run.result(job.id) or {}
        whole, steps, began = float(result.get("seconds", 0.0)), int(result.get("steps", 0)), int(result.get("began", 0))
        # The first seed went on from a rung: its ledger holds the whole training, if the learner has a clock.
        wall = float(result.get("ledger", {}).get("wall_seconds", 0.0))
        found.append(max(whole, wall or whole * (steps / (steps - began) if 0 < began < steps else 1.0)))
    return mean(found) if found else 0.0


def training_seconds(context: RunContext[Any], job: TrainJob) -> float:
    """Return the seconds of a training from nothing, as the estimate of its plan has them; 0 without one."""
    known = context.run.state.get("estimates", {}).get(job.plan.name, {})
    return float(known.get("setup_seconds", 0.0)) + job.until * float(known.get("seconds_per_step", 0.0))


def sees_all_rows(context: RunContext[Any], plan: str) -> bool:
    """Return whether every step of a plan sees all training rows, as its estimate found."""
    return bool(context.run.state.get("estimates", {}).get(plan, {}).get("sees_all_rows", False))


def whole_seconds(context: RunContext[Any], finals: Mapping[str, Mapping[int, TrainJob]]) -> dict[str, float]:
    """Return the seconds that a training of each plan on all rows of the suite will take, from those of its finals.

    Args:
        context: The run.
        finals: Finished finals of every plan.
    """
    splits = context.suite.splits
    every = sum(map(len, splits.values()))
    found = {}
    for name, jobs in finals.items():
        seen = min((job.rows or len(splits["train"]) for job in jobs.values()), default=every)
        found[name] = plan_seconds(context, jobs) * (max(1.0, every / max(seen, 1)) if sees_all_rows(context, name) else 1.0)
    return found
