"""A small real learner for tests of the race: linear models by exact gradient steps, NumPy only, no torch."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np

from graftwork.core.errors import CheckpointError, TrainingDivergedError
from graftwork.core.files import write_json
from graftwork.core.records import Ledger
from graftwork.interfaces.learner import Learner


class LinearLearner(Learner):
    """Ridge regression on ``numeric`` for regression tasks, by gradient descent from a seeded start.

    Settings: ``rate``; ``delay`` (seconds a step); ``fail`` (``nan``, ``crash``, ``die``) at step ``fail_at``; ``improving`` (says that
    it still improves); ``setup`` (seconds that building takes); ``hiccup`` (seconds that step 4 takes longer); ``one_shot`` (a second
    step does nothing).
    """

    def __init__(
        self,
        context,
        *,
        rate=0.1,
        delay=0.0,
        fail="",
        fail_at=3,
        handicap=0.0,
        improving=False,
        setup=0.0,
        hiccup=0.0,
        one_shot=False,
    ):
        super().__init__(context)
        if setup:
            time.sleep(setup)
        self.improving, self.hiccup, self.one_shot = improving, hiccup, one_shot
        self.rate, self.delay, self.fail, self.fail_at, self.handicap = rate, delay, fail, fail_at, handicap
        self._step = 0
        suite = context.suite
        self.x = np.asarray(suite.inputs["numeric"], dtype=np.float64)
        generator = np.random.default_rng(context.seed % 2**32)
        self.weights = {task.name: 0.01 * generator.normal(size=(self.x.shape[1] + 1, task.size)) for task in suite.tasks}

    @property
    def step(self):
        return self._step

    @property
    def still_improving(self):
        return self.improving

    def _design(self, x):
        return np.concatenate([x, np.ones((len(x), 1))], axis=1)

    def train(self, until, *, on_progress=None):
        suite = self.context.suite
        rows = suite.splits["train"]
        design = self._design(self.x[rows])
        while self._step < until and not (self.one_shot and self._step):
            for task in suite.tasks:
                target = (np.asarray(suite.targets[task.name][rows], dtype=np.float64) - task.center) / task.scale
                residual = design @ self.weights[task.name] - target
                self.weights[task.name] -= self.rate * design.T @ residual / len(rows)
            self._step += 1
            if self.delay:
                time.sleep(self.delay)
            if self._step == 4:
                time.sleep(self.hiccup)
            if self.fail and self._step >= self.fail_at:
                if self.fail == "nan":
                    raise TrainingDivergedError("The loss became NaN at step 3.")
                if self.fail == "die":
                    os._exit(9)
                raise RuntimeError("boom")
            if on_progress is not None:
                on_progress(self._step)

    def predict(self, rows, tasks=None, *, inputs=None):
        x = self.x[rows] if inputs is None else np.asarray(inputs["numeric"], dtype=np.float64)[rows]
        specs = [task for task in self.context.suite.tasks if tasks is None or task.name in tasks]
        return {
            task.name: ((self._design(x) @ self.weights[task.name]) * task.scale + task.center + self.handicap).astype(np.float32)
            for task in specs
        }

    def save(self, folder):
        state = {"step": self._step, "seed": self.context.seed, "weights": {k: v.tolist() for k, v in self.weights.items()}}
        write_json(Path(folder) / "state.json", state)

    def load(self, folder):
        try:
            state = json.loads((Path(folder) / "state.json").read_text())
        except OSError as error:
            raise CheckpointError(str(error)) from error
        if state["seed"] != self.context.seed:
            raise CheckpointError("of another seed")
        self._step = state["step"]
        self.weights = {name: np.array(value) for name, value in state["weights"].items()}

    def ledger(self):
        count = sum(value.size for value in self.weights.values())
        return Ledger(
            parameters_total=count, parameters_trained=count, parameters_stored=count, steps=self._step, samples=32 * self._step
        )

    def export(self, folder):
        self.save(folder)
        write_json(Path(folder) / "config.json", {"kind": "linear"})
        (Path(folder) / "model.onnx").write_bytes(b"no graph: this learner has none")
