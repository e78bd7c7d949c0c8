from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("lightgbm")

from graftwork.domains.tabular.boosting import Booster, BoosterData


def booster(objective: str, num_classes: int, *, learns: bool = True) -> Booster:
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.normal(size=(200, 3)), draw.integers(0, 4, (200, 1))], axis=1)
    y = np.digitize(x[:, 0] + x[:, 3], [0.5, 2.0]) if num_classes > 1 else x[:, 0] + (x[:, 3] == 2)
    y = (y if objective != "binary" else x[:, 0] > 0).astype(float) if learns else np.zeros(200)
    data = BoosterData(x[:150], y[:150], x[150:], y[150:], categorical=[3])
    params: dict[str, Any] = {"num_leaves": 7, "learning_rate": 0.1, "num_threads": 1}
    return Booster(data, objective, num_classes, params, patience=5)


@pytest.mark.parametrize(("objective", "num_classes"), [("regression", 1), ("binary", 1), ("multiclass", 3)])
def test_leaves_of_the_best_rounds_are_those_of_the_trees(objective: str, num_classes: int) -> None:
    made = booster(objective, num_classes)
    assert made.num_leaves() == 0
    for _ in range(6):
        made.advance()
    made.best_rounds = 4
    expected = sum(tree["num_leaves"] for tree in made.trees())
    assert len(made.trees()) == 4 * num_classes
    assert made.num_leaves() == expected > 4 * num_classes
    stored = booster(objective, num_classes)
    stored.restore(made.state(), made.to_text())
    assert stored.num_leaves() == expected


def test_a_tree_without_a_split_is_one_leaf() -> None:
    made = booster("regression", 1, learns=False)
    made.advance()
    made.best_rounds = 1
    assert made.num_leaves() == sum(tree["num_leaves"] for tree in made.trees()) == 1
