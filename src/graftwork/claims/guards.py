"""The three guards of a reproduction: access, budget, independence. No recipe can cheat by accident.

- **Access**: an arm sees a suite only through :class:`GuardedSuite`. What it did not declare is blanked out in the arrays
  (inputs zero, targets missing) and raises when asked for by name; test labels never leave the guard, predictions are scored
  inside.
- **Budget**: real steps, samples and labels are counted; what the recipe declares equal must be equal, seed by seed.
- **Independence**: for generated worlds the evidence stores how much hidden factors and labels tell about each other
  (:meth:`graftwork.claims.arm_context.ArmContext.independence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import AccessError, ConfigError
from graftwork.core.records import Scores

if TYPE_CHECKING:
    from graftwork.data.suite import Suite
    from graftwork.evaluation.retrieval import Distance, RetrievalScores

__all__ = ["DEFAULT_ROLES", "GuardedArm", "GuardedSplits", "GuardedSuite", "guard_suite"]

Array = NDArray[Any]

DEFAULT_ROLES: Mapping[str, str] = {"train": "source", "val": "source", "target": "target", "test": "test", "transfer": "test"}
"""What each split is to a reproduction, unless the recipe says otherwise."""

_ROLES = ("source", "target", "test")


class GuardedArm(Protocol):
    """What the guard needs of an arm (see :class:`graftwork.claims.arm_context.ArmContext`)."""

    slug: str
    arm: str
    access: frozenset[str]
    used: set[str]
    reports: dict[str, Any]

    def require_access(self, part: str, what: str = "") -> None:
        """Raise an AccessError unless the arm declared ``part``."""

    def hand_out(self, fingerprint: str, num_labels: int) -> None:
        """Charge the arm with a suite's labels, once for each suite."""


class GuardedSplits(dict[str, NDArray[np.int64]]):
    """Splits that an arm may see; asking for another one is an :class:`~graftwork.core.errors.AccessError`."""

    def __init__(self, splits: Mapping[str, NDArray[np.int64]], refusals: Mapping[str, str]) -> None:
        super().__init__(splits)
        # Kept beside the splits, so that a refusal can say why.
        self._refusals = dict(refusals)

    def changed(self, splits: Mapping[str, NDArray[np.int64]]) -> GuardedSplits:
        """Return a copy with some splits replaced."""
        return GuardedSplits({**self, **splits}, self._refusals)

    def __missing__(self, name: str) -> NDArray[np.int64]:
        if name in self._refusals:
            raise AccessError(self._refusals[name])
        raise KeyError(f"There is no split {name!r}; the splits are {', '.join([*self, *self._refusals])}.")


class GuardedSuite:
    """A suite as one arm may see it. Build it with :meth:`graftwork.claims.arm_context.ArmContext.guard`."""

    def __init__(self, context: GuardedArm, suite: Suite, roles: Mapping[str, str]) -> None:
        self._context = context
        self._suite = suite
        self._roles = roles
        self.visible: Suite = self._make_visible()
        """For learning: row numbers stay as they are, undeclared inputs are zero, undeclared targets missing."""

    def for_training(self) -> Suite:
        """Return :attr:`visible` with the rows of the target splits that the arm may see among its ``train`` rows, after those
        of the source.

        So they reach a plan as a user's rows without labels do; they have labels only if the arm declared those of the target.
        """
        splits = self.visible.splits
        assert isinstance(splits, GuardedSplits)
        added = [splits[name] for name in splits if name != "train" and self._roles[name] == "target"]
        if not added:
            return self.visible
        return replace(self.visible, splits=splits.changed({"train": np.concatenate([splits["train"], *added])}))

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the row numbers of any split, also of one whose contents are hidden."""
        return self._suite.splits[split]

    def questions(self, split: str = "test") -> Suite:
        """Return a suite for prediction: inputs of one split, no target at all, every other row blank."""
        rows = self.rows(split)
        keep = np.zeros(len(self._suite), dtype=bool)
        keep[rows] = True
        # Inputs of test splits need no declaration: predicting them is what an arm is for.
        if self._roles[split] == "target":
            self._context.require_access("target_inputs", f"the inputs of split {split!r}")
        refusals = {
            name: self._refusal(name, "a suite of questions holds one split only") for name in self._suite.splits if name != split
        }
        nothing = np.zeros(len(self._suite), dtype=bool)
        return _blank(self._suite, keep, nothing, GuardedSplits({split: rows}, refusals))

    def score(self, split: str, predictions: Mapping[str, Array], *, weights: Array | None = None) -> Scores:
        """Score predictions for the rows of a split, in the order of :meth:`rows`, against labels that the arm never sees.

        Args:
            split: Any split.
            predictions: ``{task: array}`` as :meth:`graftwork.interfaces.learner.Learner.predict` returns them; a part of the
                tasks is fine.
            weights: Weight of each of these rows, ``[n]``; None weighs all alike.

        Returns:
            ``{task: {metric: value}}``.

        Raises:
            AccessError: If the split holds training data and the arm did not declare its labels: a score tells about labels, too.
        """
        from graftwork.evaluation.metrics import score_task

        rows = self.rows(split)
        # Whoever scores often enough learns the labels.
        if self._roles[split] == "source":
            self._context.require_access("source_labels", f"scores on split {split!r}")
        scores: Scores = {}
        for name, prediction in predictions.items():
            if len(prediction) != len(rows):
                raise ConfigError(
                    f"Task {name!r}: split {split!r} has {len(rows)} rows, but there are {len(prediction)} predictions."
                )
            scores[name] = score_task(self._suite.task(name), self._suite.targets[name][rows], prediction, weights=weights)
        self._count_scoring(split)
        return scores

    def retrieve(self, split: str, task: str, vectors: Array, *, distance: Distance = "cosine") -> RetrievalScores:
        """Rank the rows of a split for each of them, across cameras, against ids that the arm never sees.

        Args:
            split: Any split.
            task: Its targets are the ids; the suite's domains are the cameras.
            vectors: ``[N, D]``, in the order of :meth:`rows`.
            distance: What near means.

        Raises:
            AccessError: See :meth:`score`.
            ConfigError: If there are other numbers of rows and vectors, or the suite has no domains.
        """
        from graftwork.evaluation.retrieval import Sightings, retrieval_scores

        rows = self.rows(split)
        if self._roles[split] == "source":
            self._context.require_access("source_labels", f"ranks on split {split!r}")
        if self._suite.domain is None:
            raise ConfigError(f"Suite {self._suite.name!r} has no domains; retrieval takes them as cameras.")
        seen = Sightings(vectors, self._suite.targets[task][rows], self._suite.domain[rows])
        self._count_scoring(split)
        return retrieval_scores(seen, distance=distance)

    def _count_scoring(self, split: str) -> None:
        key = f"scored_{split}"
        # Not forbidden, but on record in the evidence: choosing by test scores would show here.
        self._context.reports[key] = self._context.reports.get(key, 0) + 1

    def _make_visible(self) -> Suite:
        size = len(self._suite)
        inputs, labels = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        allowed: dict[str, NDArray[np.int64]] = {}
        refusals: dict[str, str] = {}
        access = self._context.access
        hidden: list[NDArray[np.int64]] = []
        for split, rows in self._suite.splits.items():
            role = self._roles[split]
            sees_inputs = {"source": True, "target": "target_inputs" in access, "test": "test_batches" in access}[role]
            sees_labels = {"source": "source_labels" in access, "target": "target_labels" in access, "test": False}[role]
            if not sees_labels:
                hidden.append(rows)
            if sees_inputs or sees_labels:
                # Labels without declared inputs open the inputs of these rows as well.
                inputs[rows] = True
                labels[rows] |= sees_labels
                allowed[split] = rows
                # What may be learned from counts as used, whether the arm looks at it or not.
                self._context.used.update(_parts(role, sees_labels))
            else:
                # Inputs of source splits are always visible, so a refusal is about one of these two.
                refusals[split] = self._refusal(
                    split, {"target": "target_inputs", "test": "test_batches"}[role] + " is not declared"
                )
        # Last, whatever the order of the splits: a row that is in two of them has labels only if both may show them.
        for rows in hidden:
            labels[rows] = False
        visible = _blank(self._suite, inputs, labels, GuardedSplits(allowed, refusals))
        self._context.hand_out(self._suite.fingerprint(), _num_labels(visible))
        return visible

    def _refusal(self, split: str, why: str) -> str:
        return (
            f"Arm {self._context.arm!r} of {self._context.slug!r} asked for split {split!r} of suite {self._suite.name!r}, "
            f"which it may not see: {why}. Predict on questions({split!r}) and score through the guard, or declare the "
            "access that the method really needs."
        )


def _parts(role: str, sees_labels: bool) -> list[str]:
    if role == "source":
        return ["source_labels"] if sees_labels else []
    if role == "target":
        return ["target_inputs", "target_labels"] if sees_labels else ["target_inputs"]
    return ["test_batches"]


def guard_suite(context: GuardedArm, suite: Suite, roles: Mapping[str, str] | None = None) -> GuardedSuite:
    """Build the guarded view of ``suite`` for an arm.

    Raises:
        ConfigError: If a split has no role, or a role is not ``source``, ``target`` or ``test``.
    """
    known = {**DEFAULT_ROLES, **(roles or {})}
    problems = [f"split {split!r} has no role" for split in suite.splits if split not in known]
    problems += [f"split {split!r} has the role {role!r}" for split, role in known.items() if role not in _ROLES]
    if problems:
        raise ConfigError(
            f"Suite {suite.name!r} cannot be guarded; roles are {', '.join(_ROLES)}, given as guard(suite, roles=...).", problems
        )
    return GuardedSuite(context, suite, known)


def _blank(suite: Suite, inputs: NDArray[np.bool_], labels: NDArray[np.bool_], splits: GuardedSplits) -> Suite:
    def blank(array: Array, keep: NDArray[np.bool_], filler: float | None) -> Array:
        # Zeros, not fewer rows: row numbers mean the same rows in every view.
        copy = np.array(array, copy=True)
        copy[~keep] = filler
        return copy

    raw: dict[str, Any] = {}
    for name, value in suite.raw.items():
        # Only what has an entry for each row can be blanked by row; everything else is left out.
        if isinstance(value, np.ndarray) and len(value) == len(suite):
            raw[name] = blank(value, inputs, None if value.dtype == object else 0)
        elif isinstance(value, list) and len(value) == len(suite):
            raw[name] = [item if kept else type(item)() for item, kept in zip(value, inputs, strict=True)]
    return replace(
        suite,
        inputs={name: blank(array, inputs, 0) for name, array in suite.inputs.items()},
        targets={
            name: blank(array, labels, -1 if np.issubdtype(array.dtype, np.integer) else np.nan)
            for name, array in suite.targets.items()
        },
        splits=splits,
        raw=raw,
    )


def _num_labels(suite: Suite) -> int:
    from graftwork.data.suite import labelled_rows

    return int(sum(int(labelled_rows(target).sum()) for target in suite.targets.values()))
