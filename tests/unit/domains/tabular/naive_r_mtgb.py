"""R-MTGB written out slowly with scikit-learn's trees, from the formulas alone: what the fast one is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeRegressor

Floats = NDArray[np.float64]


@dataclass
class NaiveRMTGB:
    """Targets ``[N, C]``: values, or one column per class with ``classes=True``."""

    blocks: tuple[int, int, int]
    theta: Floats
    rate: float = 0.1
    max_leaf_nodes: int | None = 2
    max_depth: int | None = 3
    min_samples_leaf: int = 1
    classes: bool = False
    history: list[Floats] = field(default_factory=list)
    meta: list[DecisionTreeRegressor] = field(default_factory=list)
    outside: list[DecisionTreeRegressor] = field(default_factory=list)
    inside: list[DecisionTreeRegressor] = field(default_factory=list)
    own: list[list[DecisionTreeRegressor]] = field(default_factory=list)

    def tree(self, x: Floats, target: Floats) -> DecisionTreeRegressor:
        limits = {name: getattr(self, name) for name in ("max_leaf_nodes", "max_depth", "min_samples_leaf")}
        return DecisionTreeRegressor(random_state=0, **limits).fit(x, target)

    def gradient(self, y: Floats, raw: Floats) -> Floats:
        if not self.classes:
            return y - raw
        exponent = np.exp(raw)
        return y - exponent / exponent.sum(axis=1, keepdims=True)

    def fit(self, x: Floats, y: Floats, task: NDArray[np.int64]) -> Floats:
        """Return ``F`` of the training rows ``[N, C]``."""
        meta, out, inner, own = (np.zeros(y.shape) for _ in range(4))

        def whole() -> Floats:
            share = (1 / (1 + np.exp(-self.theta)))[task][:, None]
            return meta + (1 - share) * inner + share * out + own

        for _ in range(self.blocks[0]):
            self.meta.append(self.tree(x, self.gradient(y, whole())))
            meta = meta + self.rate * self.meta[-1].predict(x).reshape(y.shape)
        for _ in range(self.blocks[1]):
            gradient = self.gradient(y, whole())
            share = 1 / (1 + np.exp(-self.theta))
            self.outside.append(self.tree(x, share[task][:, None] * gradient))
            self.inside.append(self.tree(x, (1 - share[task][:, None]) * gradient))
            theta = self.theta.copy()
            for r in range(len(theta)):
                rows = task == r
                slope = -np.sum(gradient[rows] * share[r] * (1 - share[r]) * (out[rows] - inner[rows]))
                theta[r] -= self.rate * slope
            out = out + self.rate * self.outside[-1].predict(x).reshape(y.shape)
            inner = inner + self.rate * self.inside[-1].predict(x).reshape(y.shape)
            self.theta = theta
            self.history.append(theta)
        for _ in range(self.blocks[2]):
            gradient = self.gradient(y, whole())
            self.own.append([])
            for r in range(len(self.theta)):
                rows = task == r
                self.own[-1].append(self.tree(x[rows], gradient[rows]))
                own[rows] += self.rate * self.own[-1][-1].predict(x[rows]).reshape(-1, y.shape[1])
        return whole()

    def predict(self, x: Floats, task: NDArray[np.int64], columns: int) -> Floats:
        """Return ``F`` ``[N, C]``."""
        share = (1 / (1 + np.exp(-self.theta)))[task][:, None]

        def total(trees: list[DecisionTreeRegressor], rows: Floats) -> Floats:
            found = np.zeros((len(rows), columns))
            for tree in trees:
                found += self.rate * tree.predict(rows).reshape(-1, columns)
            return found

        raw = total(self.meta, x) + share * total(self.outside, x) + (1 - share) * total(self.inside, x)
        for r in range(len(self.theta)):
            rows = task == r
            raw[rows] += total([trees[r] for trees in self.own], x[rows])
        return raw
