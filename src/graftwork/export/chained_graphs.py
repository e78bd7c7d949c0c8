"""Two ONNX graphs as one: the second reads, as columns of its table, what the first one answers. Or one graph of a table that reads
the arrays of a suite, whatever they are called there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.data.suite import Suite
from graftwork.export.written_graph import output_names, write_checked

__all__ = ["chain_models"]


def chain_models(
    first: Path | None,
    second: Path,
    columns: Mapping[str, Sequence[str]],
    suite: Suite,
    path: Path,
    expected: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, NDArray[Any]],
) -> tuple[float, dict[str, str]]:
    """Write one graph with an output per task and prove that ONNX Runtime computes the same.

    Args:
        first: A graph that reads arrays of the suite; None if the second reads nothing else.
        second: A graph that reads a table and answers the suite's tasks.
        columns: For each input of the second graph what stands in it side by side: names of the suite's arrays, and of outputs of the
            first graph. Empty for an input that has no columns.
        suite: Its tasks.
        path: File to write; nothing is written if the check fails.
        expected: Predictions for some rows.
        inputs: Arrays of these rows; the graph takes them in this order.

    Returns:
        The largest difference found, and ``{task: output}``.

    Raises:
        GraftworkError: If it is above 1e-4, or the graph is too large for one file.
    """
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    require("onnx.compose", extra="export", purpose="Exporting to ONNX")
    names = output_names(suite.task_names, list(inputs))
    models = [onnx.load(str(file)) for file in (second, first) if file is not None]
    stored = {entry.key: entry.value for entry in models[0].metadata_props}
    versions: dict[str, int] = {}
    for model in models:
        for item in model.opset_import:
            versions[item.domain] = max(versions.get(item.domain, 0), item.version)
    back, *fronts = (_of_version(onnx, model, versions[""]) for model in models)
    back = onnx.compose.add_prefix(back, "back/")
    fronts = [onnx.compose.add_prefix(front, "front/", rename_inputs=False) for front in fronts]
    made = {item.name for front in fronts for item in front.graph.output}
    read = {item.name: item for front in fronts for item in front.graph.input}
    joined = []
    for item in back.graph.input:
        values = [f"front/{name}" if f"front/{name}" in made else name for name in columns[item.name.removeprefix("back/")]]
        read |= {name: _input(onnx, name, inputs[name]) for name in values if name in inputs and name not in read}
        if values:  # nothing reads an input without columns
            joined.append(onnx.helper.make_node("Concat", values, [item.name], axis=1))
    results, last = [], []
    outputs = {item.name: item for item in back.graph.output}
    for task, output in json.loads(stored["graftwork.outputs"]).items():
        last.append(onnx.helper.make_node("Identity", [f"back/{output}"], [names[task]]))
        results.append(onnx.ValueInfoProto())
        results[-1].CopyFrom(outputs[f"back/{output}"])
        results[-1].name = names[task]
    graph = onnx.helper.make_graph(
        [*(node for front in fronts for node in front.graph.node), *joined, *back.graph.node, *last],
        "chain",
        [read[name] for name in inputs if name in read],
        results,
        [*(constant for front in fronts for constant in front.graph.initializer), *back.graph.initializer],
    )
    difference = write_checked(
        graph,
        versions,
        max(model.ir_version for model in (back, *fronts)),
        path,
        tasks=suite.tasks,
        names=names,
        inputs=inputs,
        expected=expected,
        what="joined model",
    )
    return difference, names


def _of_version(onnx: Any, model: Any, version: int) -> Any:
    own = next(item.version for item in model.opset_import if not item.domain)
    return model if own == version else onnx.version_converter.convert_version(model, version)


def _input(onnx: Any, name: str, array: NDArray[Any]) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
    return onnx.helper.make_tensor_value_info(name, kind, ["batch", *array.shape[1:]])
