from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graftwork.export.onnx_graph import fold_batch_free_shapes, keep_outputs, rename_outputs, strip_origins

FLOAT = TensorProto.FLOAT


def _model(nodes: list, inputs: dict, outputs: dict, weights: dict) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)


@pytest.fixture
def two_heads() -> onnx.ModelProto:
    return _model(
        [
            helper.make_node("Mul", ["x", "w"], ["shared"]),
            helper.make_node("Add", ["shared", "a"], ["first"]),
            helper.make_node("Add", ["y", "b"], ["second"]),
        ],
        {"x": (FLOAT, ["n"]), "y": (FLOAT, ["n"])},
        {"first": (FLOAT, ["n"]), "second": (FLOAT, ["n"])},
        {"w": np.float32(2), "a": np.float32(1), "b": np.float32(10)},
    )


def test_only_what_an_output_needs_is_kept(two_heads) -> None:
    keep_outputs(two_heads, ["first"])
    assert [node.op_type for node in two_heads.graph.node] == ["Mul", "Add"]
    assert {weight.name for weight in two_heads.graph.initializer} == {"w", "a"}
    assert [item.name for item in two_heads.graph.input] == ["x"]
    assert _run(two_heads, x=np.array([1, 2], np.float32))[0].tolist() == [3.0, 5.0]


def test_unknown_output_is_an_error(two_heads) -> None:
    with pytest.raises(KeyError, match="third"):
        keep_outputs(two_heads, ["third"])


def test_values_captured_by_a_branch_stay_alive() -> None:
    def branch(name: str, source: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("Identity", [source], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, ["n"])]
        )

    model = _model(
        [
            helper.make_node("Mul", ["x", "w"], ["captured"]),
            helper.make_node("If", ["flag"], ["out"], then_branch=branch("t", "captured"), else_branch=branch("e", "x")),
            helper.make_node("Neg", ["x"], ["unused"]),
        ],
        {"x": (FLOAT, ["n"]), "flag": (TensorProto.BOOL, [])},
        {"out": (FLOAT, ["n"]), "unused": (FLOAT, ["n"])},
        {"w": np.float32(3)},
    )
    keep_outputs(model, ["out"])
    assert [node.op_type for node in model.graph.node] == ["Mul", "If"]
    assert _run(model, x=np.array([2], np.float32), flag=np.array(True))[0].tolist() == [6.0]


def test_outputs_take_names_that_inner_values_had(two_heads) -> None:
    rename_outputs(two_heads, ["shared", "w"])
    assert [item.name for item in two_heads.graph.output] == ["shared", "w"]
    first, second = _run(two_heads, x=np.array([1], np.float32), y=np.array([1], np.float32))
    assert (first.tolist(), second.tolist()) == ([3.0], [11.0])


def test_swapped_names_are_no_clash(two_heads) -> None:
    rename_outputs(two_heads, ["second", "first"])
    assert _run(two_heads, x=np.array([1], np.float32), y=np.array([1], np.float32))[0].tolist() == [3.0]


@pytest.mark.parametrize("names", [["x", "b2"], ["one"], ["same", "same"]])
def test_impossible_names(two_heads, names) -> None:
    with pytest.raises(ValueError, match="2 outputs need as many different names"):
        rename_outputs(two_heads, names)


def test_what_depends_on_the_batch_is_not_folded() -> None:
    model = _model(
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["rows"]),
            helper.make_node("Gather", ["shape", "one"], ["columns"]),
            helper.make_node("Mul", ["columns", "two"], ["twice"]),
            helper.make_node("Concat", ["rows", "twice", "half"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "pair"], ["flat"]),
            helper.make_node("Concat", ["flat", "flat"], ["double"], axis=1),
            helper.make_node("Reshape", ["double", "target"], ["out"]),
        ],
        {"x": (FLOAT, ["n", 6])},
        {"out": (FLOAT, ["n", None, None])},
        {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "half": np.array([1]), "pair": np.array([0, 6])},
    )
    fold_batch_free_shapes(model, [{"x": np.zeros((size, 6), np.float32)} for size in (1, 2, 5)])
    kept = [node.output[0] for node in model.graph.node]
    assert "rows" in kept
    assert "target" in kept
    assert "columns" not in kept
    assert "twice" not in kept
    for size in (1, 3, 8):
        assert _run(model, x=np.ones((size, 6), np.float32))[0].shape == (size, 12, 1)


def test_stack_traces_are_removed(two_heads) -> None:
    two_heads.graph.node[0].doc_string = "/home/someone/model.py:12"
    two_heads.graph.node[1].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/someone/model.py:13")
    strip_origins(two_heads)
    assert b"/home" not in two_heads.SerializeToString()
