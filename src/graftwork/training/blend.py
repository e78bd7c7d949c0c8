"""An average of several plans' models as one learner: what ensembles and bags are made of.

Each member is a plan with weights for the tasks, trained on its own; members may be the same plan on other parts of the rows.
Probabilities and values are averaged as they come, and the exported graph holds all members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import CheckpointError, ConfigError, FileFormatError
from graftwork.core.files import read_json, write_json
from graftwork.core.input_spec import InputSpecs, read_input_specs, write_input_specs
from graftwork.core.records import Ledger, Plan
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.several import join_inputs
from graftwork.data.folds import fold_suite, whole_suite
from graftwork.data.suite import Suite
from graftwork.export.compose import compose_models
from graftwork.export.model_folder import EXAMPLE_ROWS, remove_optional
from graftwork.interfaces.learner import Array, Learner, LearnerContext
from graftwork.training.stages import learner_of

__all__ = ["BlendLearner"]

_STATE = "blend.json"


class BlendLearner(Learner):
    """Trains every member and answers with their weighted average.

    Args:
        context: The suite. A step of the horizon is an equal share of every member's own steps.
        members: Objects with ``plan`` (as :meth:`.Plan.to_json` writes it), ``steps`` (its horizon), ``weights`` (``{task:
            weight}``; of one task they sum to 1), and what is not that of the context: ``seed``, and the division of the rows, as
            ``parts`` and ``part`` (:func:`graftwork.data.folds.whole_suite`) or ``folds`` and ``number``
            (:func:`graftwork.data.folds.fold_suite`), or ``rows`` and ``rows_seed``
            (:func:`graftwork.data.samples.sampled_suite`).

    Raises:
        ConfigError: If there is no member, or the weights of a task are negative or do not sum to 1.
    """

    def __init__(self, context: LearnerContext, *, members: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(context)
        self._weights = [{name: float(one["weights"].get(name, 0.0)) for name in context.suite.task_names} for one in members]
        for name in context.suite.task_names:
            given = [weights[name] for weights in self._weights]
            if not given or min(given) < 0 or abs(sum(given) - 1.0) > 1e-6:
                raise ConfigError(
                    f"The weights of task {name!r} in plan {context.plan.name!r} must not be negative and must sum to 1; got "
                    f"{given}."
                )
        self._horizons = [int(one["steps"]) for one in members]
        self.members = tuple(_member(context, one) for one in members)
        self._step = 0

    @property
    def step(self) -> int:
        """Finished steps of the horizon."""
        return self._step

    def adopt_members(self) -> None:
        """Count the members as trained: their checkpoints were loaded one by one."""
        self._step = self.context.max_steps

    @property
    def still_improving(self) -> bool:
        """Whether a member is."""
        return any(member.still_improving for member in self.members)

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Train every member to its share of ``until``, one after the other."""
        started = self._step
        for number, (member, horizon) in enumerate(zip(self.members, self._horizons, strict=True)):
            own = -(-horizon * until // self.context.max_steps)

            def tell(step: int, number: int = number, own: int = own) -> None:
                done = (number + min(step / max(own, 1), 1.0)) / len(self.members)
                self._step = max(self._step, started + int((until - started) * done))
                if on_progress is not None:
                    on_progress(self._step)

            member.train(own, on_progress=tell)
        self._step = max(self._step, until)

    def predict(
        self, rows: NDArray[np.int64], tasks: Sequence[str] | None = None, *, inputs: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Return the weighted averages; see :class:`~graftwork.interfaces.learner.Learner`."""
        asked = [name for name in self.context.suite.task_names if tasks is None or name in tasks]
        total: dict[str, Any] = {}
        for member, weights in zip(self.members, self._weights, strict=True):
            wanted = [name for name in asked if weights[name] > 0]
            if not wanted:
                continue
            for name, values in member.predict(rows, wanted, inputs=inputs).items():
                part = np.float64(weights[name]) * values
                total[name] = total[name] + part if name in total else part
        return {name: total[name].astype(np.float32) for name in asked}

    def save(self, folder: Path) -> None:
        """Write a checkpoint of every member."""
        for number, member in enumerate(self.members):
            member.save(folder / f"member-{number}")
        write_json(folder / _STATE, {"identity": self.context.identity(), "step": self._step})

    def load(self, folder: Path) -> None:
        """Restore a checkpoint.

        Raises:
            CheckpointError: If it is damaged, or belongs to another plan, seed, suite or horizon.
        """
        try:
            state = read_json(folder / _STATE)
            self.context.check_identity(state["identity"], folder)
            for number, member in enumerate(self.members):
                member.load(folder / f"member-{number}")
            self._step = int(state["step"])
        except (OSError, ValueError, KeyError, TypeError, FileFormatError) as error:
            raise CheckpointError(f"There is no whole checkpoint of an average in {folder}: {error}.") from error

    def ledger(self) -> Ledger:
        """Return the costs so far: everything adds up but memory, of which the highest counts."""
        return Ledger.together([member.ledger() for member in self.members])

    def export(self, folder: Path) -> None:
        """Write every member into a folder of its own, and ``config.json`` and ``model.onnx`` of the average."""
        folder, suite = Path(folder), self.context.suite
        remove_optional(folder)
        parts = []
        for number, (member, weights) in enumerate(zip(self.members, self._weights, strict=True)):
            name = f"members/{number}-{member.context.plan.name}"
            member.export(folder / name)
            parts.append((name, weights))
        described = [read_input_specs(read_json(folder / name / "config.json")) for name, _ in parts]
        rows = np.asarray(suite.splits["val"] if len(suite.splits["val"]) else suite.splits["train"], dtype=np.int64)
        rows = rows[:EXAMPLE_ROWS]  # every member was checked on its own before
        difference, outputs = compose_models(
            [(folder / name / "model.onnx", weights) for name, weights in parts],
            suite,
            folder / "model.onnx",
            self.predict(rows),
            _arrays_of(suite, described, rows),
        )
        write_json(
            folder / "config.json",
            {
                "learner": "blend",
                "format": "graftwork-blend-1",
                "plan": self.context.plan.to_json(),
                "tasks": [task.to_json() for task in suite.tasks],
                "outputs": outputs,
                "input_specs": write_input_specs(join_inputs(described)),
                "members": [{"folder": name, "weights": weights} for name, weights in parts],
                "onnx_max_difference": difference,
            },
        )


def _member(context: LearnerContext, value: Mapping[str, Any]) -> Learner:
    """Build the learner of one member."""
    suite, plan = context.suite, Plan.from_json(value["plan"])
    if value.get("rows"):
        from graftwork.data.samples import sampled_suite

        suite = sampled_suite(suite, int(value["rows"]), int(value.get("rows_seed", 0)))
    elif value.get("parts"):
        suite = whole_suite(suite, int(value["parts"]), int(value.get("part", 0)), keep_all=plan.fitted_at_once)
    elif value.get("folds"):
        suite = fold_suite(suite, int(value["folds"]), int(value.get("number", 0)))
    inner = replace(
        context,
        suite=suite,
        plan=plan,
        max_steps=int(value["steps"]),
        seed=int(value.get("seed", context.seed)),
    )
    return learner_of(inner)


def _arrays_of(suite: Suite, described: Sequence[InputSpecs], rows: NDArray[np.int64]) -> dict[str, Array]:
    """Return the arrays of some rows that any member reads.

    A member with a pretrained backbone may have encoded an input anew, from what the suite keeps of the raw rows.
    """
    arrays = {name: np.asarray(array[rows]) for name, array in suite.inputs.items()}
    for specs in described:
        for name, spec in specs.items():
            if spec.encoder == suite.input_specs[name].encoder:
                continue
            raw = suite.raw[spec.kind]
            made = encoder_from_state(spec.encoder).transform([raw[row] for row in rows])
            arrays |= {spec.arrays.get(own, own): array for own, array in made.items()}
    return arrays
