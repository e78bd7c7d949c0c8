"""Boosted trees as one ONNX graph: the suite's inputs in, predictions in the user's units out, checked against the trees.

Written with the operator ``TreeEnsemble`` (ai.onnx.ml 5), which knows category sets. Thresholds are rounded down to float32: for
float32 inputs ``x <= t`` then decides exactly as LightGBM's float64 threshold does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.domains.tabular.suite_graph import (
    answer_shape,
    arrange_columns,
    output_names,
    require_onnx,
    write_graph,
)

__all__ = [
    "TreeGroup",
    "arrange_columns",
    "ensemble_attributes",
    "export_trees",
    "flatten_trees",
    "output_names",
]

Array = NDArray[Any]
_LESS_OR_EQUAL, _MEMBER = 0, 6
_SUM, _NO_TRANSFORM = 1, 0


class TreeGroup(Protocol):
    """What is exported: the trees behind one output of a task, or all its classes."""

    objective: str
    """``regression``, ``binary`` (the sum is log odds) or ``multiclass``."""
    num_classes: int

    def trees(self) -> list[dict[str, Any]]:
        """Return the trees as LightGBM dumps them; tree ``i`` adds to output ``i % num_classes``."""


def _round_down(threshold: float) -> float:
    rounded = np.float32(threshold)
    # Rounded up, a value between the threshold and its float32 would change sides.
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf)))


def flatten_trees(trees: Sequence[Mapping[str, Any]], num_outputs: int) -> dict[str, list[Any]]:
    """Return the attributes of one ``TreeEnsemble`` for trees as LightGBM dumps them; tree ``i`` adds to output ``i %
    num_outputs``."""
    keys = (
        "features",
        "modes",
        "splits",
        "true_ids",
        "true_leaves",
        "false_ids",
        "false_leaves",
        "targets",
        "weights",
        "members",
        "roots",
    )
    flat: dict[str, list[Any]] = {key: [] for key in keys}

    def leaf(value: float, target: int) -> int:
        flat["targets"].append(target)
        flat["weights"].append(value)
        return len(flat["weights"]) - 1

    def node(feature: int, mode: int, split: float) -> int:
        for key, value in zip(keys[:7], (feature, mode, split, 0, 0, 0, 0), strict=True):
            flat[key].append(value)
        return len(flat["features"]) - 1

    def walk(part: Mapping[str, Any], target: int) -> tuple[int, bool]:
        """Add a sub-tree; return its index and whether it is a leaf."""
        if "split_index" not in part:
            return leaf(float(part["leaf_value"]), target), True
        if part["decision_type"] == "==":
            here = node(int(part["split_feature"]), _MEMBER, 0.0)
            # Sets of all nodes lie in one list; NaN ends each of them.
            flat["members"] += [*(float(code) for code in str(part["threshold"]).split("||")), float("nan")]
        else:
            here = node(int(part["split_feature"]), _LESS_OR_EQUAL, _round_down(float(part["threshold"])))
        # The node's own entry was added before its children's, so that they can be filled in here.
        for side, ids, leaves in (("left_child", "true_ids", "true_leaves"), ("right_child", "false_ids", "false_leaves")):
            index, is_leaf = walk(part[side], target)
            flat[ids][here], flat[leaves][here] = index, int(is_leaf)
        return here, False

    for number, tree in enumerate(trees):
        target = number % num_outputs
        structure = tree["tree_structure"]
        if "split_index" in structure:
            flat["roots"].append(walk(structure, target)[0])
            continue
        root = node(0, _LESS_OR_EQUAL, 0.0)  # a tree without a split: both ways lead to the same value
        index = leaf(float(structure["leaf_value"]), target)
        for ids, leaves in (("true_ids", "true_leaves"), ("false_ids", "false_leaves")):
            flat[ids][root], flat[leaves][root] = index, 1
        flat["roots"].append(root)
    return flat


def ensemble_attributes(booster: TreeGroup) -> dict[str, Any]:
    """Return the attributes of the operator TreeEnsemble (ai.onnx.ml 5) that adds up the trees: float ``[N, features]`` in,
    ``[N, num_classes]`` out."""
    onnx = require_onnx()
    # An ensemble without trees is not allowed: one leaf of 0 stands for it.
    flat = flatten_trees(booster.trees() or [{"tree_structure": {"leaf_value": 0.0}}], booster.num_classes)

    def tensor(name: str, values: list[Any], dtype: Any) -> Any:
        return onnx.numpy_helper.from_array(np.array(values, dtype=dtype), name)

    members = {"membership_values": tensor("membership_values", flat["members"], np.float32)} if flat["members"] else {}
    return {
        "n_targets": booster.num_classes,
        "aggregate_function": _SUM,
        "post_transform": _NO_TRANSFORM,
        "tree_roots": flat["roots"],
        "nodes_featureids": flat["features"],
        "nodes_modes": tensor("nodes_modes", flat["modes"], np.uint8),
        "nodes_splits": tensor("nodes_splits", flat["splits"], np.float32),
        "nodes_truenodeids": flat["true_ids"],
        "nodes_trueleafs": flat["true_leaves"],
        "nodes_falsenodeids": flat["false_ids"],
        "nodes_falseleafs": flat["false_leaves"],
        "leaf_targetids": flat["targets"],
        "leaf_weights": tensor("leaf_weights", flat["weights"], np.float32),
        **members,
    }


def _ensemble(onnx: Any, booster: TreeGroup, output: str) -> Any:
    return onnx.helper.make_node("TreeEnsemble", ["features"], [output], domain="ai.onnx.ml", **ensemble_attributes(booster))


def _task_nodes(onnx: Any, task: TaskSpec, index: int, group: Sequence[TreeGroup], output: str) -> list[Any]:
    """Return the nodes from ``features`` to the task's output."""
    make = onnx.helper.make_node
    raws = [f"raw_{index}_{number}" for number in range(len(group))]
    nodes = [_ensemble(onnx, booster, raw) for booster, raw in zip(group, raws, strict=True)]
    raw = raws[0]
    if len(raws) > 1:
        raw = f"raw_{index}"
        nodes.append(make("Concat", raws, [raw], axis=1))
    if group[0].objective == "regression":
        return [*nodes, make("Identity", [raw], [output])]
    if group[0].objective == "multiclass":
        return [*nodes, make("Softmax", [raw], [output], axis=1)]
    shape = answer_shape(task)
    if shape == (len(group),):  # one yes or no for each column of the answer
        return [*nodes, make("Sigmoid", [raw], [output])]
    one = f"probability_{index}"
    nodes.append(make("Sigmoid", [raw], [one]))
    if not shape:
        return [*nodes, make("Squeeze", [one, "axis_1"], [output])]
    # One probability learned, two answered: the first class gets the rest.
    return [*nodes, make("Sub", ["one", one], [f"other_{index}"]), make("Concat", [f"other_{index}", one], [output], axis=1)]


def export_trees(
    boosters: Mapping[str, Sequence[TreeGroup]], suite: Suite, path: Path, expected: Mapping[str, Array], rows: NDArray[np.int64]
) -> float:
    """Write one graph with an output per task and prove that ONNX Runtime computes what the learner does.

    Args:
        boosters: ``{task: boosters}``.
        suite: Its tasks and inputs.
        path: File to write; nothing is written if the check fails.
        expected: The learner's predictions for ``rows``.
        rows: Rows of the suite.

    Returns:
        The largest difference found: of probabilities, and of values in standard deviations of the target.

    Raises:
        GraftworkError: If it is above 1e-4.
    """
    onnx = require_onnx()
    kinds = onnx.TensorProto
    value = onnx.helper.make_tensor_value_info
    inputs, parts, nodes = [], [], []
    for name, kind in (("numeric", kinds.FLOAT), ("categorical", kinds.INT64)):
        width = suite.inputs[name].shape[1] if name in suite.inputs else 0
        if name in suite.inputs:
            inputs.append(value(name, kind, ["batch", width]))
        if width:
            parts.append(name if kind == kinds.FLOAT else f"{name}_codes")
            if kind != kinds.FLOAT:
                nodes.append(onnx.helper.make_node("Cast", [name], [parts[-1]], to=kinds.FLOAT))
    nodes.append(onnx.helper.make_node("Concat", parts, ["features"], axis=1))
    names = output_names(suite)
    outputs = []
    for index, task in enumerate(suite.tasks):
        nodes += _task_nodes(onnx, task, index, boosters[task.name], names[task.name])
        outputs.append(value(names[task.name], kinds.FLOAT, ["batch", *answer_shape(task)]))
    constants = [
        onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), "axis_1"),
        onnx.numpy_helper.from_array(np.array(1.0, dtype=np.float32), "one"),
    ]
    return write_graph(nodes, inputs, outputs, constants, suite, path, expected, rows, what="trees")
