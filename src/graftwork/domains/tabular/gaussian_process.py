"""Gaussian processes as a plan: smooth functions of the columns, strong on tables of some hundred rows.

Classes are learned as columns of 0 and 1; probabilities are a logistic function of them whose slope and offsets are fitted to
predictions of each training row from all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.gaussian_kernel import Kernel, Posterior, fit_kernel
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.one_shot import BlockLearner, State
from graftwork.domains.tabular.smooth_design import SmoothDesign
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.interfaces.learner import LearnerContext

__all__ = ["GaussianProcessLearner"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
MOST_ROWS = 1000
"""Of more labelled rows a random sample is used: time grows with their cube."""
_SETTINGS_ROWS = 300
"""Rows on which the settings of the kernel are fitted."""
_FEWEST_ROWS = 3
_MOST_LENGTHS = 25
"""With more numeric columns they share one length; so do all indicators always."""


class GaussianProcessLearner(BlockLearner):
    """A Gaussian process for each target, on at most 1,000 rows.

    Args:
        context: A table suite.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "Gaussian process"
    slug = "gaussian-process"
    has_own_models = True

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        self._design = SmoothDesign.of_suite(context.suite, self.blocks)

    def _designs(self) -> list[Rows]:
        return [self._design.plain, self._design.bent] if len(self._design.numbers) else [self._design.plain]

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Fit a process for each block."""
        state: State = {}
        facts = {}
        for index, block in enumerate(self.blocks):
            generator = Seeds(self.context.seed).numpy(f"rows {index}")
            rows = generator.permutation(block.labelled(self.train_rows))[:MOST_ROWS]
            every = self._design.matrix(self.context.suite.inputs, rows).astype(np.float32).astype(np.float64)
            center, scale = _scaling(block, block.targets(rows))
            y = (block.targets(rows) - center) / scale
            kernel, choice = self._kernel(every, y)
            x = every[:, self._designs()[choice]]
            posterior = Posterior.of(kernel, x, y)
            own = {"x": x.astype(np.float32), "weights": posterior.weights, "settings": kernel.settings, "center": center}
            own |= {"scale": np.array(scale), "groups": kernel.groups, "choice": np.array(choice)}
            if not block.is_number:
                own["calibration"] = _calibrated(block, rows, center + scale * posterior.left_out)
            state |= {f"{index}.{name}": np.asarray(array) for name, array in own.items()}
            facts[str(index)] = {"rows": len(rows), "noise": kernel.noise, "numbers": ("plain", "bent")[choice]}
        return state, {"settings by target": facts}

    def _kernel(self, every: Floats, y: Floats) -> tuple[Kernel, int]:
        """Return the kernel and the columns that explain the rows best."""
        fits = []
        for choice, columns in enumerate(self._designs()):
            x, groups = every[:_SETTINGS_ROWS, columns], self._lengths(columns)
            if len(x) < _FEWEST_ROWS:  # nothing to choose from
                length = 0.5 * np.log(len(columns)) + 0.3
                settings = np.concatenate([[0.0, -2.0, 0.0], np.full(int(groups.max()) + 1, length)])
                return Kernel(settings, groups), 0
            kernel, loss = fit_kernel(x, y[:_SETTINGS_ROWS], groups)
            fits.append((loss, choice, kernel))
        _, choice, kernel = min(fits, key=lambda fit: fit[0])
        return kernel, choice

    def _lengths(self, columns: Rows) -> Rows:
        """Return the group of each column."""
        count = len(self._design.numbers)
        numbers = np.arange(count) if count <= _MOST_LENGTHS else np.zeros(count, dtype=np.int64)
        return np.concatenate([numbers, np.full(len(columns) - count, int(numbers.max(initial=-1)) + 1)])

    def numbers_of_row(self, state: State, inputs: Mapping[str, Array]) -> int:
        """Return the number of stored rows: a row has a covariance with each."""
        return 4 * max(len(array) for name, array in state.items() if name.endswith(".x"))

    def _stored(self, state: State, index: int) -> tuple[Kernel, Rows, Floats]:
        kernel = Kernel(state[f"{index}.settings"], state[f"{index}.groups"])
        columns = self._designs()[int(state[f"{index}.choice"])]
        return kernel, columns, state[f"{index}.x"].astype(np.float64)

    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return means, and probabilities."""
        every, found = self._design.matrix(inputs, rows), []
        for index, block in enumerate(self.blocks):
            kernel, columns, x = self._stored(state, index)
            score = kernel.covariance(every[:, columns], x) @ state[f"{index}.weights"]
            score = state[f"{index}.center"] + state[f"{index}.scale"] * score
            found.append(score if block.is_number else _probabilities(score, state[f"{index}.calibration"]))
        return found

    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add the model to a graph."""
        features, found = self._design.graph(graph), []
        for index, block in enumerate(self.blocks):
            kernel, columns, x = self._stored(state, index)
            seen = graph.add("Gather", features, columns, axis=1)
            score = kernel.graph_product(graph, seen, x, state[f"{index}.scale"] * state[f"{index}.weights"])
            score = graph.add("Add", score, state[f"{index}.center"])
            if not block.is_number:
                slope, offsets = state[f"{index}.calibration"][0], state[f"{index}.calibration"][1:]
                score = graph.add("Add", graph.add("Mul", score, np.array(slope)), offsets)
                score = graph.add("Sigmoid", score) if block.width == 1 else graph.add("Softmax", score, axis=1)
            found.append(score)
        return found


def _scaling(block: LabelBlock, y: Floats) -> tuple[Floats, float]:
    """Return the means of columns and one deviation for all."""
    scale = float(np.sqrt(y.var(axis=0).mean()))
    return y.mean(axis=0), scale if scale > 1e-9 else 1.0


def _probabilities(scores: Floats, calibration: Floats) -> Floats:
    raw = calibration[0] * scores + calibration[1:]
    if raw.shape[1] == 1:
        return 0.5 * (1.0 + np.tanh(0.5 * raw))
    exponents = np.exp(raw - raw.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def _calibrated(block: LabelBlock, rows: Rows, scores: Floats) -> Floats:
    """Return the slope and offsets ``[1 + width]`` with which scores say the classes of their rows best; weak priors hold them
    where there are few rows or one class only."""
    from scipy.optimize import minimize

    classes, width = block.classes(rows), scores.shape[1]
    wanted = classes[:, None].astype(np.float64) if width == 1 else np.eye(width)[classes]
    start = np.concatenate([[np.log(5.0)], np.full(width, -2.5 if width == 1 else 0.0)])

    def objective(values: Floats) -> tuple[float, Floats]:
        slope = np.exp(values[0])
        found = _probabilities(scores, np.concatenate([[slope], values[1:]]))
        likely = np.where(wanted > 0.5, found, 1.0 - found) if width == 1 else found[wanted > 0.5][:, None]
        gap, prior = found - wanted, 0.5 * (values - start)
        gradient = np.concatenate([[slope * float((gap * scores).sum())], gap.sum(axis=0)]) + 0.5 * prior
        return float(-np.log(np.maximum(likely, 1e-300)).sum()) + 0.5 * float(prior @ prior), gradient

    bounds = [(-5.0, 5.0), *[(-60.0, 60.0)] * width]
    found = np.asarray(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).x)
    return np.concatenate([[np.exp(found[0])], found[1:]])
