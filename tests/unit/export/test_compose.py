"""Graphs of several models joined into one that answers with their weighted average."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.errors import GraftworkError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from graftwork.export.compose import compose_models, merge_equal_nodes, needed_nodes  # noqa: E402

ROWS = 20
TRUNK = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.fixture
def suite() -> Suite:
    draw = np.random.default_rng(1)
    values = draw.normal(size=(ROWS, 2)).astype(np.float32)
    return Suite.of_arrays(
        name="two",
        input_specs=table_input(3),
        tasks=[TaskSpec(name="price", kind="regression", size=1), TaskSpec(name="size", kind="regression", size=1)],
        inputs={"numeric": draw.normal(size=(ROWS, 3)).astype(np.float32), "categorical": np.zeros((ROWS, 0), dtype=np.int64)},
        targets={"price": values[:, :1], "size": values[:, 1:]},
        splits={"train": np.arange(10), "val": np.arange(10, 15), "test": np.arange(15, ROWS)},
    )


def write_model(path: Path, seed: int, opset: int = 17) -> dict[str, np.ndarray[Any, Any]]:
    """Write two heads behind a trunk that all models share; return ``{task: matrix from input to output}``."""
    draw = np.random.default_rng(seed)
    heads = {task: draw.normal(size=(4, 1)).astype(np.float32) for task in ("price", "size")}
    make = onnx.helper.make_node
    nodes = [make("MatMul", ["numeric", "trunk"], ["features"])]
    nodes += [make("MatMul", ["features", f"head {task}"], [task]) for task in heads]
    constants = [onnx.numpy_helper.from_array(TRUNK, "trunk")]
    constants += [onnx.numpy_helper.from_array(head, f"head {task}") for task, head in heads.items()]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "model",
        [value("numeric", onnx.TensorProto.FLOAT, ["rows", 3])],
        [value(task, onnx.TensorProto.FLOAT, ["rows", 1]) for task in heads],
        constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)
    model.metadata_props.add(key="graftwork.outputs", value=json.dumps({task: task for task in heads}))
    path.write_bytes(model.SerializeToString())
    return {task: TRUNK @ head for task, head in heads.items()}


def expected(suite: Suite, models: list[Any], weights: list[dict[str, float]], rows: Any) -> dict[str, Any]:
    x = suite.inputs["numeric"][rows]
    return {
        task: sum(one.get(task, 0.0) * (x @ model[task]) for model, one in zip(models, weights, strict=True))
        for task in suite.task_names
    }


def arrays(suite: Suite, rows: Any) -> dict[str, Any]:
    return {name: array[rows] for name, array in suite.inputs.items()}


def test_the_graph_averages_with_the_weights_of_each_task(suite: Suite, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.onnx" for number in range(2)]
    models = [write_model(file, number, opset=17 + number) for number, file in enumerate(files)]
    weights = [{"price": 0.25, "size": 1.0}, {"price": 0.75}]
    rows = np.arange(15, ROWS)
    difference, names = compose_models(
        list(zip(files, weights)), suite, tmp_path / "model.onnx", expected(suite, models, weights, rows), arrays(suite, rows)
    )
    assert difference < 1e-5
    assert names == {"price": "price", "size": "size"}
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    # the trunk is the same in both, so it is computed and stored once; nobody asks for the second model's size, so that is left out
    assert sum(node.op_type == "MatMul" and "head" in node.input[1] for node in graph.node) == 3
    assert not any(constant.name == "part1/head size" for constant in graph.initializer)
    assert sum(node.op_type == "MatMul" and "trunk" in node.input[1] for node in graph.node) == 1
    assert sum(list(constant.dims) == [3, 4] for constant in graph.initializer) == 1


def test_no_file_is_written_if_the_graph_answers_something_else(suite: Suite, tmp_path: Path) -> None:
    models = [write_model(tmp_path / "a.onnx", 0), write_model(tmp_path / "b.onnx", 1)]
    weights = [{"price": 0.5, "size": 0.5}] * 2
    wrong = expected(suite, models, [{"price": 0.4, "size": 0.5}, weights[1]], np.arange(5))
    with pytest.raises(GraftworkError, match=r"differs from the averaged models by .*no file was written"):
        compose_models(
            [(tmp_path / "a.onnx", weights[0]), (tmp_path / "b.onnx", weights[1])],
            suite,
            tmp_path / "model.onnx",
            wrong,
            arrays(suite, np.arange(5)),
        )
    assert not (tmp_path / "model.onnx").exists()


def test_equal_nodes_are_merged_and_random_ones_are_not() -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Relu", ["x"], ["a"]),
        make("Relu", ["x"], ["b"]),
        make("Add", ["a", "c1"], ["d"]),
        make("Add", ["b", "c2"], ["e"]),
        make("RandomNormalLike", ["x"], ["f"]),
        make("RandomNormalLike", ["x"], ["g"]),
        make("Sum", ["d", "e", "f", "g"], ["y"]),
    ]
    ones = np.ones(1, dtype=np.float32)
    constants = [onnx.numpy_helper.from_array(ones, "c1"), onnx.numpy_helper.from_array(ones, "c2")]
    kept, values = merge_equal_nodes(nodes, constants, ["y"])
    assert [node.op_type for node in kept] == ["Relu", "Add", "RandomNormalLike", "RandomNormalLike", "Sum"]
    assert [value.name for value in values] == ["c1"]
    assert list(kept[-1].input) == ["d", "d", "f", "g"]


def test_an_output_keeps_its_name_beside_an_equal_node() -> None:
    make = onnx.helper.make_node
    kept, _ = merge_equal_nodes([make("Relu", ["x"], ["a"]), make("Relu", ["x"], ["y"])], [], ["y"])
    assert [list(node.output) for node in kept] == [["a"], ["y"]]


def test_what_only_graphs_inside_a_node_read_is_needed() -> None:
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    inner = onnx.helper.make_graph([make("Identity", ["a"], ["r"])], "inner", [], [value("r", onnx.TensorProto.FLOAT, [1])])
    nodes = [
        make("Relu", ["x"], ["a"]),
        make("Neg", ["x"], ["b"]),
        make("If", ["condition"], ["y"], then_branch=inner, else_branch=inner),
    ]
    constants = [onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), name) for name in ("c", "condition")]
    kept, values = needed_nodes(nodes, constants, ["y"])
    assert [node.op_type for node in kept] == ["Relu", "If"]
    assert [item.name for item in values] == ["condition"]


def test_an_answer_of_another_shape_is_no_answer(suite: Suite, tmp_path: Path) -> None:
    """Shapes that could be broadcast must not pass for equal."""
    models = [write_model(tmp_path / "a.onnx", 0)]
    flat = {name: values[:1, :1] for name, values in expected(suite, models, [{"price": 1.0, "size": 1.0}], np.arange(1)).items()}
    flat = {name: values.reshape(1) for name, values in flat.items()}
    with pytest.raises(GraftworkError, match="differs from the averaged models by inf"):
        compose_models(
            [(tmp_path / "a.onnx", {"price": 1.0, "size": 1.0})], suite, tmp_path / "m.onnx", flat, arrays(suite, np.arange(1))
        )
