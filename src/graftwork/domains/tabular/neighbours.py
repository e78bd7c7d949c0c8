"""Nearest neighbours as a plan: means over the training rows around a row.

Neighbours are weighted by a kernel that reaches a tenth beyond the k-th of them, measured in squared distances. So answers do not
jump where rows are equally far, and rows with equal distances all count. How many neighbours, and whether numbers are taken as
they are or bent, is chosen on held-out training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.distances import graph_square_distances, square_distances
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.one_shot import BlockLearner, State
from graftwork.domains.tabular.smooth_design import SmoothDesign
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.interfaces.learner import LearnerContext

__all__ = ["NeighboursLearner"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
COUNTS = (3, 5, 10, 20, 40)
MOST_ROWS = 10_000
MOST_CELLS = 4_000_000
"""Of more training rows, or rows with more cells in all, a random sample is kept, in all models together."""
_REACH = 1.1
_LEAST = 1e-6
"""Added to squared distances for each column, so that equal rows have a neighbourhood too."""
_PRIOR = 0.5
"""Weight of the classes' shares among the neighbours."""
_CHOOSING_ROWS = 3000


class NeighboursLearner(BlockLearner):
    """Weighted nearest neighbours, chosen for each target.

    Args:
        context: A table suite.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "nearest neighbours"
    slug = "knn"

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        self._design = SmoothDesign.of_suite(context.suite, self.blocks)

    def _designs(self) -> list[Rows]:
        return [self._design.plain, self._design.bent] if len(self._design.numbers) else [self._design.plain]

    def _groups(self) -> list[list[int]]:
        """Return blocks that have labels on the same rows: they share stored rows."""
        found: dict[bytes, list[int]] = {}
        for index, block in enumerate(self.blocks):
            found.setdefault(block.known[self.train_rows].tobytes(), []).append(index)
        return list(found.values())

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Keep rows, and choose the neighbourhood of each block."""
        state: State = {}
        facts = {}
        groups = self._groups()
        most = max(100, min(MOST_ROWS, MOST_CELLS // self._design.width) // len(groups))
        for number, members in enumerate(groups):
            generator = Seeds(self.context.seed).numpy(f"rows {number}")
            rows = self.blocks[members[0]].labelled(self.train_rows)
            if len(rows) > most:
                rows = np.sort(generator.choice(rows, most, replace=False))
            x = self._design.matrix(self.context.suite.inputs, rows).astype(np.float32)
            state[f"x{number}"] = x
            for index in members:
                y = self.blocks[index].targets(rows)
                count, choice = self._choose(rows, x.astype(np.float64), y, generator)
                state |= {f"y{index}": y, f"k{index}": np.array([count, choice], dtype=np.int64)}
                facts[str(index)] = {"neighbours": count, "numbers": ("plain", "bent")[choice]}
        return state, {"settings by target": facts}

    def _choose(self, rows: Rows, x: Floats, y: Floats, generator: np.random.Generator) -> tuple[int, int]:
        """Return how many neighbours and which columns predict held-out rows best."""
        some = np.arange(len(rows))
        if len(rows) > _CHOOSING_ROWS:
            some = np.sort(generator.choice(len(rows), _CHOOSING_ROWS, replace=False))
        counts = [count for count in COUNTS if count <= max(COUNTS[0], len(some) // 2)]
        errors = np.zeros((len(counts), len(self._designs())))
        for fit, held in inner_folds(self.context.suite, rows[some], generator):
            for choice, columns in enumerate(self._designs()):
                gaps = square_distances(x[some[held]][:, columns], x[some[fit]][:, columns])
                for place, count in enumerate(counts):
                    weights = _weights(gaps, count, len(columns))
                    found = weights @ y[some[fit]] / weights.sum(axis=1, keepdims=True)
                    errors[place, choice] += float(np.square(found - y[some[held]]).sum())
        place, choice = divmod(int(errors.argmin()), errors.shape[1]) if errors.any() else (0, 0)
        return counts[place], choice

    def numbers_of_row(self, state: State, inputs: Mapping[str, Array]) -> int:
        """Return the number of stored rows: a row has a distance to each."""
        return 3 * max(len(array) for name, array in state.items() if name[0] == "x")

    def _priors(self, block: LabelBlock) -> tuple[float, Floats]:
        """Return the weight of the shares of classes beside the neighbours, and the shares."""
        return (0.0, np.zeros(1)) if block.is_number else (_PRIOR, block.shares(self.train_rows))

    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return weighted means over the neighbours."""
        x = self._design.matrix(inputs, rows)
        found: list[Array] = [np.zeros(0)] * len(self.blocks)
        for number, members in enumerate(self._groups()):
            known = state[f"x{number}"].astype(np.float64)
            held: dict[int, Floats] = {}
            for index in members:
                count, choice = state[f"k{index}"].tolist()
                columns = self._designs()[choice]
                if choice not in held:
                    held[choice] = square_distances(x[:, columns], known[:, columns])
                weights = _weights(held[choice], count, len(columns))
                weight, shares = self._priors(self.blocks[index])
                total = weights.sum(axis=1, keepdims=True) + weight
                found[index] = (weights @ state[f"y{index}"] + weight * shares) / total
        return found

    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add the model to a graph."""
        features = self._design.graph(graph)
        found = [""] * len(self.blocks)
        for number, members in enumerate(self._groups()):
            known = state[f"x{number}"].astype(np.float64)
            held: dict[int, str] = {}
            for index in members:
                count, choice = state[f"k{index}"].tolist()
                columns = self._designs()[choice]
                if choice not in held:
                    seen = graph.add("Gather", features, columns, axis=1)
                    held[choice] = graph_square_distances(graph, seen, known[:, columns])
                weights = _graph_weights(graph, held[choice], min(count, len(known)), len(columns))
                weight, shares = self._priors(self.blocks[index])
                total = graph.add("ReduceSum", weights, np.array([1], dtype=np.int64), keepdims=1)
                sums = graph.add("MatMul", weights, state[f"y{index}"])
                if weight:
                    sums, total = graph.add("Add", sums, weight * shares[None]), graph.add("Add", total, np.array(weight))
                found[index] = graph.add("Div", sums, total)
        return found


def _weights(gaps: Floats, count: int, width: int) -> Floats:
    """Return the weights ``[n, m]`` of stored rows at squared distances ``gaps``."""
    place = min(count, gaps.shape[1]) - 1
    reach = _REACH * np.partition(gaps, place, axis=1)[:, [place]] + _LEAST * width
    return np.maximum(1.0 - gaps / reach, 0.0)


def _graph_weights(graph: GraphBuilder, gaps: str, count: int, width: int) -> str:
    nearest = graph.first("TopK", gaps, np.array([count], dtype=np.int64), outputs=2, axis=1, largest=0, sorted=1)
    farthest = graph.add("Gather", nearest, np.array([count - 1], dtype=np.int64), axis=1)
    reach = graph.add("Add", graph.add("Mul", farthest, np.array(_REACH)), np.array(_LEAST * width))
    return graph.add("Relu", graph.add("Sub", np.array(1.0), graph.add("Div", gaps, reach)))
