"""What a recipe says: arms, seeds, claim, equal budgets and access, as frozen records. This is the recipe contract.

A recipe is one module with a constant ``RECIPE``; nothing else of it is looked at:

.. code-block:: python

    def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
        suite = related_tasks(seed=seed)                    # the world: everything, test labels included
        data = context.guard(suite)                         # what this arm may see of it
        stream = BatchStream(data.visible, data.visible.splits["train"], 32, seed)
        trainer = Trainer(..., stream, callbacks=[context.budget_callback()])
        trainer.train(context.choose(full=1500, smoke=20))
        asked = data.questions("test")                      # test inputs, all targets missing
        outputs = trainer.predict(asked, asked.splits["test"], suite.task_names)
        return {"scores": data.score("test", outputs)}      # metric names: "scores.<task>.<metric>"

    RECIPE = Recipe(
        slug="my-method",
        smoke_seeds=(0, 1),
        arms=(
            Arm("equal", "equal weights", access=Access(source_labels=True)),
            Arm("mine", "the method", access=Access(source_labels=True), settings={"strength": 1.0}),
        ), run_arm=run_arm, inequalities=(Inequality("beats equal weights", "mine.score", "equal.score", margin=0.5),),
        equal_budget=(EqualBudget(("steps", "samples", "labels")),), minutes=12,
    )

A recipe may also say what there must be to win (:class:`Headroom`), how its arms are tuned before anything counts
(:class:`Pilot`), and after how many seeds it looks.

The harness (:mod:`graftwork.claims.reproduction`) runs every arm with every seed in one run, in any order and possibly in several
processes, holds the guards, looks at the differences after 3, 5, 8, 13 and 20 seeds until every primary inequality is decided, and
computes intervals and the verdict. A recipe never computes a verdict by itself: it names measurements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from graftwork.claims.arm_context import ArmContext, Measurements
from graftwork.claims.grids import Pilot, Settings
from graftwork.claims.headroom import Headroom
from graftwork.claims.looks import LOOKS, check_looks
from graftwork.claims.sides import arms_of
from graftwork.core.errors import ConfigError

__all__ = [
    "Access",
    "Arm",
    "ArmContext",
    "Demand",
    "EqualBudget",
    "Headroom",
    "Inequality",
    "Measurements",
    "Pilot",
    "Recipe",
    "SeedMeasurements",
]

Demand = Literal["better", "not worse", "at least"]
"""What an :class:`Inequality` asks of the paired differences."""

SeedMeasurements: TypeAlias = Mapping[str, Mapping[str, float]]
"""``{arm: {metric: value}}`` of one seed; nested measurements are joined by dots (``"scores.depth.rmse"``)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What an arm may see. The guard hands out nothing else, and asking for more is an
    :class:`~graftwork.core.errors.AccessError`."""

    source_labels: bool = False
    """Labels of the training data (splits ``train`` and ``val``)."""
    target_inputs: bool = False
    """Unlabelled inputs of the target domain (split ``target``)."""
    target_labels: bool = False
    """Labels of the target domain."""
    test_batches: bool = False
    """Test inputs while it still learns (test-time adaptation, transductive methods). Test labels are never handed out."""

    def parts(self) -> frozenset[str]:
        """Return the names of the declared parts."""
        return frozenset(item.name for item in dataclasses.fields(self) if getattr(self, item.name))


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the things compared: the system, a baseline, an ablation, a bound."""

    name: str
    """Short, without dots; measurements are addressed as ``arm.metric``."""
    title: str
    """One line for people."""
    access: Access = field(default_factory=Access)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Whatever ``run_arm`` needs to tell the arms apart; JSON values only."""

    def __post_init__(self) -> None:
        if not self.name or set("./|") & set(self.name):
            # They would break `arm.metric`, `arm|arm.metric` and the names of folders.
            raise ConfigError(f"The name of an arm is not empty and has no dot, slash or bar; got {self.name!r}.")

    def with_settings(self, settings: Settings) -> Arm:
        """Return the arm with some settings replaced."""
        return dataclasses.replace(self, settings={**self.settings, **settings}) if settings else self


@dataclass(frozen=True, slots=True)
class Inequality:
    """``left * left_factor - right * right_factor``, paired by seed, must be large enough. The claim in machine-readable form.

    For a metric where lower is better swap the sides: the left one is claimed to be the larger.

    - ``better``: shown if the interval of the difference lies above 0 and the mean reaches ``margin``; refuted if the interval lies
      below ``margin``.
    - ``not worse``: shown if the interval lies above ``-margin``, refuted if it lies below.
    - ``at least``: shown if the interval lies above ``margin``, refuted if it lies below. Costs and counts that do not vary over
      seeds have an interval without width.

    For all three the difference must also be above 0 in ``min_sign_seeds`` seeds. Whatever is neither shown nor refuted is open.
    Intervals are those of the look (see :mod:`graftwork.claims.looks`).
    """

    name: str
    """What is claimed, in a few words; verdict texts quote it."""
    left: str
    """``"arm.metric"``; nested measurements are reached by further dots. ``"arm|arm.metric"`` is the lowest value of several
    arms, for costs (see :mod:`graftwork.claims.costs`)."""
    right: str | float
    """``"arm.metric"`` or a constant."""
    margin: float = 0.0
    """In units of the measurement (points, if the recipe measures in points), at least 0."""
    min_sign_seeds: int = 0
    """Of the recipe's full seeds; in proportion, rounded up, after other numbers of seeds."""
    demand: Demand = "better"
    primary: bool = True
    """Primary inequalities make the verdict; the others are reported beside it."""
    left_factor: float = 1.0
    right_factor: float = 1.0
    unit: str = ""
    """Unit of the measurement for tables, such as ``"points"`` or ``"%"``."""

    def __post_init__(self) -> None:
        for side in (self.left, self.right):
            if isinstance(side, str) and "." not in side:
                raise ConfigError(f"Inequality {self.name!r}: a side is 'arm.metric'; got {side!r}.")
        if self.margin < 0:
            raise ConfigError(
                f"Inequality {self.name!r}: margin must be at least 0; got {self.margin}. Swap the sides, or "
                f"use demand 'not worse'."
            )


@dataclass(frozen=True, slots=True)
class EqualBudget:
    """Counters that must be equal over arms, seed by seed; a counter that no guard counted is an error as well."""

    counters: tuple[str, ...]
    """Of ``steps``, ``samples``, ``labels``, ``trials`` and ``tuning_runs``."""
    arms: tuple[str, ...] = ()
    """Empty means all arms."""
    tolerance: float = 0.0
    """Largest allowed difference relative to the largest value; 0 asks for equality."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The reproduction of one system.

    Raises:
        ConfigError: If names clash, an inequality or budget names an unknown arm, there are fewer than two seeds, or looks that
            cannot be planned; all problems at once.
    """

    slug: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = ()
    """Seeds of the full run, at least two; ``run_arm`` gets them as they are. By default as many as the last look needs, from 0
    on."""
    looks: tuple[int, ...] = ()
    """Numbers of seeds after which the run looks at its differences, and stops if every primary inequality is decided. A recipe
    that lists its seeds has one look after all of them, unless it says otherwise; all others look after 3, 5, 8, 13 and 20."""
    smoke_seeds: tuple[int, ...]
    """Seeds of ``--smoke``, which proves within seconds that everything runs, not that the claim holds."""
    run_arm: Callable[[Arm, int, ArmContext], Measurements]
    """Train and measure one arm with one seed. Called in any order, possibly in another process; all data comes through the
    context's guard."""
    inequalities: tuple[Inequality, ...]
    equal_budget: tuple[EqualBudget, ...] = ()
    derive: Callable[[SeedMeasurements], Mapping[str, Measurements]] | None = None
    """Optional: further measurements of one seed that need several arms (delta-m against the separate arm, a gap's ratio);
    ``{arm: measurements}``, added to those of the arms. Called once per seed in which all arms are there."""
    headroom: tuple[Headroom, ...] = ()
    """What there must be to win, or the claim stays open. Recipes without one say so."""
    pilot: Pilot | None = None
    """How the arms are tuned before the counting run; None for recipes whose settings were found otherwise, as their docstring
    says."""
    measures_time: bool = False
    """Whether seconds are among the measurements: jobs then run one at a time, so that they do not slow each other."""
    minutes: float = 0.0
    """Expected minutes of the full run on 2 idle cores, for people."""
    notes: tuple[str, ...] = ()
    """Departures from the paper's setting that a reader of the verdict must know."""

    def __post_init__(self) -> None:
        # Filled in here, so that whoever reads a recipe finds both.
        looks = self.looks or ((len(self.seeds),) if self.seeds else LOOKS)
        object.__setattr__(self, "seeds", self.seeds or tuple(range(looks[-1])))
        object.__setattr__(self, "looks", looks)
        names = [arm.name for arm in self.arms]
        problems = [f"arm {name!r} is there twice" for name in sorted({name for name in names if names.count(name) > 1})]
        if len(set(self.seeds)) < 2:
            problems.append(f"seeds: at least two different ones are needed for a paired interval; got {self.seeds}")
        elif looks[-1] != len(self.seeds):
            problems.append(f"looks: the last one is after all {len(self.seeds)} seeds; got {looks}")
        else:
            problems += check_looks(looks)
        if not self.smoke_seeds:
            problems.append("smoke_seeds: at least one is needed")
        if not any(inequality.primary for inequality in self.inequalities):
            problems.append("inequalities: at least one must be primary, or there is no claim")
        for inequality in self.inequalities:
            for side in (inequality.left, inequality.right):
                unknown = [name for name in arms_of(side)[0] if name not in names] if isinstance(side, str) else []
                problems += [
                    f"inequality {inequality.name!r}: no arm {name!r}; the arms are {', '.join(names)}" for name in unknown
                ]
            # More signs than seeds can never hold.
            if inequality.min_sign_seeds > len(self.seeds):
                problems.append(
                    f"inequality {inequality.name!r}: {inequality.min_sign_seeds} signs asked of {len(self.seeds)} seeds"
                )
        if self.pilot is not None:
            problems += self.pilot.problems({arm.name: arm.settings for arm in self.arms}, self.seeds)
        for item in self.headroom:
            problems += item.problems(names, [inequality.name for inequality in self.inequalities])
        for budget in self.equal_budget:
            problems += [
                f"equal_budget: no arm {name!r}; the arms are {', '.join(names)}" for name in budget.arms if name not in names
            ]
            problems += [
                f"equal_budget: no counter {name!r}; the counters are {', '.join(ArmContext.COUNTERS)}"
                for name in sorted(set(budget.counters) - set(ArmContext.COUNTERS))
            ]
        if problems:
            raise ConfigError(f"The recipe {self.slug!r} is not consistent.", problems)

    def arm(self, name: str) -> Arm:
        """Return the arm called ``name``.

        Raises:
            ConfigError: If there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ConfigError(
            f"The recipe {self.slug!r} has no arm {name!r}; its arms are {', '.join(arm.name for arm in self.arms)}."
        )
