"""Corrections inside an exported graph: a bare session gives the corrected probabilities, once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from graftwork.core.errors import GraftworkError  # noqa: E402
from graftwork.evaluation.correction import Correction  # noqa: E402
from graftwork.export import corrected_graph  # noqa: E402
from graftwork.export.corrected_graph import correct_graph  # noqa: E402
from graftwork.serving.session import OnnxModel  # noqa: E402

CORRECTIONS = {
    "late": Correction(exclusive=False, scale=0.5, shifts=(0.7,)),
    "kind": Correction(exclusive=True, scale=2.0, shifts=(0.1, -0.2, 0.3)),
    "tags": Correction(exclusive=False, scale=1.5),
}
WIDTHS = {"late": 1, "kind": 3, "tags": 2, "size": 1}


def write(path: Path) -> Path:
    """A graph that gives parts of its input as the answers of four tasks; one is read again inside of it."""
    helper, kind = onnx.helper, onnx.TensorProto
    nodes, outputs, place = [], [], 0
    for name, width in WIDTHS.items():
        ends = [onnx.numpy_helper.from_array(np.array([value])) for value in (place, place + width, 1)]
        for part, tensor in zip(("from", "to", "axis"), ends, strict=True):
            nodes.append(helper.make_node("Constant", [], [f"{name} {part}"], value=tensor))
        out = f"{name} wide" if name == "late" else name
        nodes.append(helper.make_node("Slice", ["x", f"{name} from", f"{name} to", f"{name} axis"], [out]))
        place += width
    nodes.append(helper.make_node("Squeeze", ["late wide", "late axis"], ["late"]))
    nodes.append(helper.make_node("Identity", ["late"], ["late again"]))
    shapes = {"late": ["batch"], "late again": ["batch"], "kind": ["batch", 3], "tags": ["batch", 2], "size": ["batch", 1]}
    outputs = [helper.make_tensor_value_info(name, kind.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "slices", [helper.make_tensor_value_info("x", kind.FLOAT, ["batch", 7])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    names = {"late": "late", "kind": "kind", "tags": "tags", "size": "size"}
    model.metadata_props.add(key="graftwork.outputs", value=json.dumps(names))
    onnx.save(model, path)
    return path


def rows(number: int) -> np.ndarray:
    found = np.random.default_rng(0).random((number, 7)).astype(np.float32)
    found[:, 1:4] /= found[:, 1:4].sum(axis=1, keepdims=True)
    found[0, :4] = [1, 0, 0, 1]
    return found


def parts(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"late": x[:, 0], "kind": x[:, 1:4], "tags": x[:, 4:6], "size": x[:, 6:]}


def test_a_bare_session_gives_what_the_correction_computes(tmp_path: Path) -> None:
    path, x = write(tmp_path / "model.onnx"), rows(50)
    correct_graph(path, CORRECTIONS, {"late": [0.3]}, parts(x))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for number in (1, 50):
        found = dict(zip([item.name for item in session.get_outputs()], session.run(None, {"x": x[:number]}), strict=True))
        for name, values in parts(x[:number]).items():
            wanted = CORRECTIONS[name].apply(values) if name in CORRECTIONS else values
            np.testing.assert_allclose(found[name], wanted, atol=1e-6)
            assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found["late again"], x[:number, 0])
    stored = session.get_modelmeta().custom_metadata_map
    assert json.loads(stored[corrected_graph.THRESHOLDS]) == {"late": [0.3]}
    said = json.loads(stored[corrected_graph.CORRECTIONS])
    assert {task: Correction.from_json(value) for task, value in said.items()} == CORRECTIONS


def test_asking_for_some_tasks_gives_corrected_ones_too(tmp_path: Path) -> None:
    path, x = write(tmp_path / "model.onnx"), rows(9)
    correct_graph(path, CORRECTIONS, {}, parts(x))
    model = OnnxModel(path, threads=1)
    np.testing.assert_allclose(model.run({"x": x}, ("kind",))["kind"], CORRECTIONS["kind"].apply(x[:, 1:4]), atol=1e-6)


def test_a_second_call_changes_nothing_and_others_are_refused(tmp_path: Path) -> None:
    path, x = write(tmp_path / "model.onnx"), rows(9)
    correct_graph(path, CORRECTIONS, {}, parts(x))
    before = path.read_bytes()
    correct_graph(path, CORRECTIONS, {}, parts(x))
    assert path.read_bytes() == before
    with pytest.raises(GraftworkError, match="other corrections already"):
        correct_graph(path, {"late": CORRECTIONS["late"]}, {}, parts(x))


def test_a_graph_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, x = write(tmp_path / "model.onnx"), rows(9)
    before = path.read_bytes()
    monkeypatch.setattr(corrected_graph, "LEAST_PROBABILITY", 0.2)
    with pytest.raises(GraftworkError, match="was not changed"):
        correct_graph(path, CORRECTIONS, {}, parts(x))
    assert path.read_bytes() == before
