"""Corrections of probabilities as the last nodes of an exported graph, so that every session on the file gives corrected ones.

The nodes compute in float64, as :meth:`graftwork.evaluation.correction.Correction.apply` does: close to 0 and 1 the logarithm of a
float32 is coarse. They are checked against it before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import GraftworkError
from graftwork.core.files import write_bytes
from graftwork.core.optional import require
from graftwork.evaluation.correction import LEAST_PROBABILITY, Correction

__all__ = ["CORRECTIONS", "THRESHOLDS", "TOLERANCE", "correct_graph"]

CORRECTIONS = "graftwork.corrections"
"""Key of the file's metadata: ``{task: correction}`` that its outputs have been through."""
THRESHOLDS = "graftwork.thresholds"
"""Key of the file's metadata: ``{task: [threshold of each question]}`` where it is not one half."""
TOLERANCE = 1e-5
"""Largest difference of probabilities to what NumPy computes."""
_OUTPUTS = "graftwork.outputs"


def correct_graph(
    path: Path,
    corrections: Mapping[str, Correction],
    thresholds: Mapping[str, Sequence[float]],
    examples: Mapping[str, NDArray[Any]],
) -> None:
    """Add corrections behind the outputs of an exported graph; its file is replaced as a whole. A file that has them already stays.

    Args:
        path: The file.
        corrections: ``{task: correction}``.
        thresholds: ``{task: thresholds}``, for the file's metadata alone: outputs are probabilities.
        examples: Probabilities of each corrected task, on which the nodes are checked.

    Raises:
        GraftworkError: If the file has other corrections, or the nodes compute something else.
    """
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    model = onnx.load(str(path))
    stored = {entry.key: entry.value for entry in model.metadata_props}
    said = json.dumps({task: one.to_json() for task, one in corrections.items()}, ensure_ascii=False)
    if CORRECTIONS in stored or THRESHOLDS in stored:
        # An earlier call was cut after it wrote this file.
        if stored.get(CORRECTIONS, "{}") != said:
            raise GraftworkError(f"{path} has been through other corrections already. Remove the folder and go on with --resume.")
        return
    names = json.loads(stored[_OUTPUTS])
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    for number, (task, correction) in enumerate(corrections.items()):
        nodes, constants = _nodes(onnx, correction, f"correction{number}")
        _check(onnx, nodes, constants, opset, model.ir_version, correction, examples[task], task)
        _rename(model.graph, names[task], f"correction{number}/in")
        nodes[-1].output[0] = names[task]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(constants)
    for key, text in ((CORRECTIONS, said), (THRESHOLDS, json.dumps({task: list(one) for task, one in thresholds.items()}))):
        if text != "{}":
            model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def _nodes(onnx: Any, correction: Correction, prefix: str) -> tuple[list[Any], list[Any]]:
    """Return nodes from ``prefix/in`` to ``prefix/out`` and their constants."""
    nodes: list[Any] = []
    constants: list[Any] = []

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{prefix}/{len(nodes)}"
        nodes.append(onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(value: Any) -> str:
        name = f"{prefix}/constant{len(constants)}"
        constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype=np.float64), name))
        return name

    double = onnx.TensorProto.DOUBLE
    inside = add("Cast", f"{prefix}/in", to=double)
    inside = add("Clip", inside, constant(LEAST_PROBABILITY), constant(1.0 - LEAST_PROBABILITY))
    logits = add("Log", inside)
    if not correction.exclusive:
        logits = add("Sub", logits, add("Log", add("Sub", constant(1.0), inside)))
    scores = add("Mul", logits, constant(correction.scale))
    if correction.shifts:
        # One shift is a plain number: a binary task has one probability a row, without an axis for it.
        scores = add("Add", scores, constant(correction.shifts[0] if len(correction.shifts) == 1 else correction.shifts))
    found = add("Softmax", scores, axis=1) if correction.exclusive else add("Sigmoid", scores)
    add("Cast", found, to=onnx.TensorProto.FLOAT)
    nodes[-1].output[0] = f"{prefix}/out"
    return nodes, constants


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value wherever it is computed and read; as an output of the graph it keeps its name."""
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == old:
                node.output[index] = new
        _rename_reads(node, old, new)


def _rename_reads(node: Any, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new
    for attribute in node.attribute:
        for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for one in inner.node:
                _rename_reads(one, old, new)


def _check(
    onnx: Any,
    nodes: Sequence[Any],
    constants: Sequence[Any],
    opset: int,
    ir_version: int,
    correction: Correction,
    probabilities: NDArray[Any],
    task: str,
) -> None:
    """Run the nodes alone and compare."""
    runtime: Any = require("onnxruntime", extra="export", purpose="Exporting to ONNX")
    given = np.concatenate([np.asarray(probabilities, dtype=np.float32), _edges(probabilities)])
    shape = ["batch", *given.shape[1:]]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in (nodes[0].input[0], nodes[-1].output[0])
    ]
    graph = onnx.helper.make_graph(list(nodes), "correction", ends[:1], ends[1:], list(constants))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=ir_version)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # failures are raised, not printed
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {ends[0].name: given})[0]
    difference = float(np.abs(found - correction.apply(given)).max(initial=0.0)) if found.shape == given.shape else float("inf")
    if not difference <= TOLERANCE:
        raise GraftworkError(
            f"The ONNX form of the correction of task {task!r} differs by {difference:.2g}, more than {TOLERANCE:g}; the file was "
            "not changed. Report this."
        )


def _edges(probabilities: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows with the smallest and the largest probabilities that there are."""
    row = np.zeros((2, *np.shape(probabilities)[1:]), dtype=np.float32)
    if row.ndim == 1:
        row[1] = 1.0
    else:
        row[0, 0] = row[1, -1] = 1.0
    return row
