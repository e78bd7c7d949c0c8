"""What an arm of a reproduction is given: guarded data, counters, folders, progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from graftwork.claims.convergence import TRAINING_CURVE, Points, curve_of
from graftwork.claims.filling import fill_folder
from graftwork.claims.guards import GuardedSuite, guard_suite
from graftwork.core.errors import AccessError, ConfigError
from graftwork.core.files import read_json
from graftwork.core.locks import exclusive
from graftwork.core.optional import has
from graftwork.core.seeds import Seeds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from graftwork.claims.budget_callback import BudgetCallback
    from graftwork.claims.watch_callback import WatchCallback
    from graftwork.core.records import Plan
    from graftwork.data.suite import Suite
    from graftwork.interfaces.learner import Learner

__all__ = ["ArmContext", "Measurements"]

Measurements: TypeAlias = Mapping[str, Any]
"""Finite numbers by name; mappings nest (``{"scores": {"depth": {"rmse": 0.3}}}`` is addressed as ``arm.scores.depth.rmse``)."""

Choice = TypeVar("Choice")


class ArmContext:
    """One arm, one seed: built by the harness, handed to ``run_arm``.

    Args:
        slug: The system.
        arm: Name of the arm.
        access: Names of the parts that the arm declared (see :class:`graftwork.claims.experiment.Access`).
        seed: The seed of this job.
        smoke: Whether this is a smoke run: take the smallest sizes that still run every line.
        work: Folder of this job alone; survives a kill, so that long arms may keep checkpoints in it.
        shared: Folder that all arms of this seed share (see :meth:`once`).
        on_progress: Called with a fraction in [0, 1] and a few words.
    """

    COUNTERS: ClassVar[tuple[str, ...]] = ("steps", "samples", "labels", "trials", "tuning_runs")

    def __init__(
        self,
        *,
        slug: str,
        arm: str,
        access: frozenset[str],
        seed: int,
        smoke: bool,
        work: Path,
        shared: Path,
        on_progress: Callable[[float, str], None] | None = None,
    ) -> None:
        self.slug = slug
        self.arm = arm
        self.access = access
        self.seed = seed
        self.seeds = Seeds(seed)
        """Named streams of randomness below this job's seed: equal for all arms, so that they see the same data and initial
        weights."""
        self.smoke = smoke
        self.work = work
        self.shared = shared
        self._counts: dict[str, int] = {}
        self._loss_sum, self._loss_steps = 0.0, 0
        self._handed_out: dict[str, int] = {}
        self.used: set[str] = set()
        self.reports: dict[str, Any] = {}
        self.curves: dict[str, dict[str, Any]] = {}
        """Curves by measure, of the arm's last training that recorded one (see :mod:`graftwork.claims.convergence`)."""
        self._on_progress = on_progress

    def choose(self, *, full: Choice, smoke: Choice) -> Choice:
        """Return ``smoke`` in a smoke run and ``full`` otherwise, for sizes and step numbers."""
        return smoke if self.smoke else full

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how far the arm is; ``fraction`` in [0, 1]."""
        if self._on_progress is not None:
            self._on_progress(fraction, text)

    def count(self, counter: str, amount: int = 1) -> None:
        """Charge the arm with something that no callback sees: ``trials`` of a search, ``tuning_runs`` on validation data.

        Raises:
            ConfigError: If ``counter`` is not one of :attr:`COUNTERS`.
        """
        if counter not in self.COUNTERS:
            raise ConfigError(f"There is no budget counter {counter!r}; the counters are {', '.join(self.COUNTERS)}.")
        self._counts[counter] = self._counts.get(counter, 0) + int(amount)

    @property
    def counts(self) -> dict[str, int]:
        """What the arm spent so far, by counter."""
        labels = sum(self._handed_out.values())
        return {**self._counts, "labels": self._counts.get("labels", 0) + labels}

    def hand_out(self, fingerprint: str, num_labels: int) -> None:
        """Charge the arm with the labels of a suite that the guard handed out; the same suite is charged once."""
        # The same suite may be guarded several times; the most that was seen of it counts.
        self._handed_out[fingerprint] = max(num_labels, self._handed_out.get(fingerprint, 0))

    def budget_callback(self) -> BudgetCallback:
        """Return a callback for :class:`graftwork.training.trainer.Trainer` that counts real steps and samples. Use it in every
        training."""
        from graftwork.claims.budget_callback import BudgetCallback

        return BudgetCallback(
            self.count, self.add_loss, lambda points: self.record_curve(TRAINING_CURVE, points, larger_is_better=False)
        )

    def record_curve(self, measure: str, points: Points, *, larger_is_better: bool) -> None:
        """Keep a curve ``[(step, value), ...]`` of the arm's training for the evidence; a later one of the same measure replaces
        it."""
        self.curves[measure] = curve_of(points, larger_is_better=larger_is_better)

    def watch(
        self,
        score: Callable[[], float],
        steps: int,
        *,
        measure: str = "validation score",
        larger_is_better: bool = True,
        points: int = 8,
    ) -> WatchCallback:
        """Return a callback for :class:`graftwork.training.trainer.Trainer` that records a validation score at evenly spaced steps.

        Args:
            score: Returns the score of the model as it is now, on rows that the arm may see.
            steps: Steps of the whole training.
            measure: Name of the curve in the evidence.
            larger_is_better: Whether the score rises as the model learns.
            points: How many scores there are.
        """
        from graftwork.claims.watch_callback import WatchCallback

        def record(found: Points) -> None:
            self.record_curve(measure, found, larger_is_better=larger_is_better)

        return WatchCallback(score, steps, record, points=points)

    def add_loss(self, total: float, steps: int) -> None:
        """Add the losses of some training steps, each the mean over tasks; :attr:`training_loss` is their mean."""
        self._loss_sum += total
        self._loss_steps += steps

    @property
    def training_loss(self) -> float | None:
        """Mean loss of all training steps that a budget callback saw; None if there were none, or it is not finite."""
        mean = self._loss_sum / self._loss_steps if self._loss_steps else math.nan
        return mean if math.isfinite(mean) else None

    def train(
        self,
        plan: Plan,
        data: GuardedSuite,
        *,
        steps: int,
        seed: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        backbone: str = "",
        start: Mapping[str, Tensor] | None = None,
    ) -> Learner:
        """Train a plan as ``graftwork fit`` does, on what the arm may see; see :func:`graftwork.claims.plan_arms.train_plan`."""
        from graftwork.claims.plan_arms import train_plan

        return train_plan(self, plan, data, steps=steps, seed=seed, overrides=overrides, backbone=backbone, start=start)

    def source(
        self,
        name: str,
        plan: Plan,
        suite: Suite,
        *,
        steps: int,
        roles: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        backbone: str = "",
    ) -> Learner:
        """Return a teacher or source model, trained once for all arms of this seed; see
        :func:`graftwork.claims.plan_arms.trained_source`."""
        from graftwork.claims.plan_arms import trained_source

        return trained_source(self, name, plan, suite, steps=steps, roles=roles, overrides=overrides, backbone=backbone)

    def predict(self, learner: Learner, data: GuardedSuite, split: str = "test") -> dict[str, NDArray[np.generic]]:
        """Return a trained plan's predictions for a split; see :func:`graftwork.claims.plan_arms.predict_split`."""
        from graftwork.claims.plan_arms import predict_split

        return predict_split(learner, data, split)

    def require_access(self, part: str, what: str = "") -> None:
        """Stand before data that is no suite: pass if the arm declared ``part``, fail otherwise.

        Args:
            part: ``source_labels``, ``target_inputs``, ``target_labels`` or ``test_batches``.
            what: What is being handed out, for the message.

        Raises:
            AccessError: If the arm did not declare it.
        """
        if part not in self.access:
            declared = ", ".join(sorted(self.access)) or "nothing"
            raise AccessError(
                f"Arm {self.arm!r} of {self.slug!r} asked for {what or part.replace('_', ' ')} but declares access to "
                f"{declared}. If the method may see it, add {part}=True to the arm's Access; if not, the recipe leaks."
            )
        self.used.add(part)

    def guard(self, suite: Suite, *, roles: Mapping[str, str] | None = None) -> GuardedSuite:
        """Return what this arm may see of ``suite``; labels handed out are counted as ``labels``.

        Args:
            suite: The whole world.
            roles: What each split is: ``source``, ``target`` or ``test``. Default: train and val are source, target is target,
                test and transfer are test.

        Raises:
            ConfigError: If a split has no role.
        """
        return guard_suite(self, suite, roles)

    def independence(
        self, factors: Mapping[str, NDArray[np.generic]], labels: Mapping[str, NDArray[np.generic]] | None = None
    ) -> None:
        """Hand in hidden factors and labels of a generated world ``{name: [N]}``; the evidence stores how much each tells about
        the others.

        See :func:`graftwork.data.independence.independence_report`.
        """
        from graftwork.data.independence import independence_report

        self.reports["independence"] = independence_report(factors, labels)

    def once(self, name: str, build: Callable[[Path], None]) -> Path:
        """Return a folder that ``build`` fills, built once per seed and shared by all arms (tuned experts, a pretrained trunk).

        What the building cost and saw is charged to every arm that asks for it: sharing saves time, not budget.

        Args:
            name: Name of the folder.
            build: Fills the empty folder it is given; if it fails, nothing is kept. It uses this context's guard and callbacks.

        Raises:
            AccessError: If the arm did not declare what the building saw.
        """
        if not name or "/" in name or name.startswith("."):
            raise ConfigError(f"once() names a folder, without slashes or leading dot; got {name!r}.")
        folder = self.shared / name
        note = folder / "guard.json"
        # Several arms of a seed may run at once: one builds, the others wait.
        with exclusive(self.shared / f".{name}.lock"):
            if not note.exists():
                # A stream of its own: whichever arm builds, the result is the same.
                self.seed_globals(f"once/{name}")
                self._build_once(folder, build)
        self.seed_globals(
            f"after/{name}"
        )  # whoever builds draws random numbers: the arm goes on the same whether it built or not
        # Read back by the builder, too: what it did is charged in one place for all.
        record = read_json(note)
        for part in record["used"]:
            self.require_access(part, f"the shared {name!r}, which was made with {part.replace('_', ' ')}")
        for counter, amount in record["counts"].items():
            self.count(counter, amount)
        for fingerprint, num_labels in record["labels"].items():
            self.hand_out(fingerprint, num_labels)
        self.add_loss(*record["losses"])
        return folder

    def seed_globals(self, name: str) -> None:
        """Seed the global generators of Python, NumPy and torch (where installed) with the stream ``name`` of this job's seed."""
        if has("torch"):
            self.seeds.set_global(name)

    def _build_once(self, folder: Path, build: Callable[[Path], None]) -> None:
        def note() -> dict[str, Any]:
            # NaN is no JSON, and a diverged training must not spoil the mean of the others.
            losses = [self._loss_sum, self._loss_steps] if math.isfinite(self._loss_sum) else [0.0, 0]
            return {"counts": self._counts, "labels": self._handed_out, "used": sorted(self.used), "losses": losses}

        # Counted apart from the arm, so that the note holds the building alone.
        before = self._counts, self._handed_out, self.used, self._loss_sum, self._loss_steps, self.curves
        self._counts, self._handed_out, self.used, self._loss_sum, self._loss_steps, self.curves = {}, {}, set(), 0.0, 0, {}
        try:
            fill_folder(folder, build, note)
        finally:
            self._counts, self._handed_out, self.used, self._loss_sum, self._loss_steps, self.curves = before
