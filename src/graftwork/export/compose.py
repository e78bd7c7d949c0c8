"""Several ONNX graphs of the same suite as one that answers with weighted averages of their outputs.

Parts that compute the same (a frozen backbone that several models read) become one: equal constants are stored once, and nodes
that do the same with the same values are merged. So an average of models on one backbone costs one pass through it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import GraftworkError
from graftwork.core.files import write_bytes
from graftwork.core.optional import require
from graftwork.data.suite import Suite
from graftwork.export.onnx_model import output_names

__all__ = ["TOLERANCE", "compose_models", "merge_equal_nodes"]

TOLERANCE = 1e-4
"""Largest difference to the averaged predictions: of probabilities, and of values in standard deviations of the target."""
_MOST_BYTES = 2_000_000_000
"""An ONNX file without external data cannot hold more."""

Array = NDArray[Any]


def compose_models(
    parts: Sequence[tuple[Path, Mapping[str, float]]],
    suite: Suite,
    path: Path,
    expected: Mapping[str, Array],
    inputs: Mapping[str, Array],
) -> tuple[float, dict[str, str]]:
    """Write one graph with an output per task and prove that ONNX Runtime computes the averages.

    Args:
        parts: Graphs, each with its weight for every task; weights of one task sum to 1.
        suite: Its tasks.
        path: File to write; nothing is written if the check fails.
        expected: Averaged predictions for some rows.
        inputs: Arrays of these rows, all that any graph reads; the graph takes them in this order.

    Returns:
        The largest difference found, and ``{task: output}``.

    Raises:
        GraftworkError: If it is above 1e-4, or the graph is too large for one file.
    """
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    require("onnx.compose", extra="export", purpose="Exporting to ONNX")
    names = output_names(suite.task_names, list(inputs))
    models = [onnx.load(str(file)) for file, _ in parts]
    opset = max(item.version for model in models for item in model.opset_import if not item.domain)
    nodes: list[Any] = []
    constants: list[Any] = []
    read: dict[str, Any] = {}
    terms: dict[str, list[tuple[str, float]]] = {name: [] for name in suite.task_names}
    shapes: dict[str, Any] = {}
    versions: dict[str, int] = {"": opset}
    for number, (model, (_, weights)) in enumerate(zip(models, parts, strict=True)):
        stored = {entry.key: entry.value for entry in model.metadata_props}
        own_names = json.loads(stored["graftwork.outputs"])
        if next(item.version for item in model.opset_import if not item.domain) != opset:
            model = onnx.version_converter.convert_version(model, opset)
        prefix = f"part{number}/"
        model = onnx.compose.add_prefix(model, prefix, rename_inputs=False)
        for item in model.opset_import:
            versions[item.domain] = max(versions.get(item.domain, 0), item.version)
        nodes += list(model.graph.node)
        constants += list(model.graph.initializer)
        read |= {item.name: item for item in model.graph.input}
        outputs = {item.name: item for item in model.graph.output}
        for task, weight in weights.items():
            if weight > 0:
                terms[task].append((f"{prefix}{own_names[task]}", weight))
                shapes.setdefault(task, outputs[f"{prefix}{own_names[task]}"])
    results = []
    for index, (task, summed) in enumerate(terms.items()):
        more, scalars = _average(onnx, index, summed, names[task])
        nodes += more
        constants += scalars
        results.append(onnx.ValueInfoProto())
        results[-1].CopyFrom(shapes[task])
        results[-1].name = names[task]
    nodes, constants = merge_equal_nodes(nodes, constants, [item.name for item in results])
    ordered = [read[name] for name in inputs if name in read]
    graph = onnx.helper.make_graph(nodes, "average", ordered, results, constants)
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()],
        ir_version=max(model.ir_version for model in models),
        producer_name="graftwork",
    )
    for key, text in (("graftwork.format", "graftwork-onnx-1"), ("graftwork.outputs", json.dumps(names, ensure_ascii=False))):
        model.metadata_props.add(key=key, value=text)
    if model.ByteSize() > _MOST_BYTES:
        raise GraftworkError(
            f"The average of {len(parts)} models has {model.ByteSize() / 1e9:.1f} GB, and one ONNX file holds 2 GB. Ask for one "
            "plan with --single, or for smaller ones with --max-params."
        )
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString())
    difference = _difference(content, suite, names, expected, inputs)
    if not difference <= TOLERANCE:
        raise GraftworkError(
            f"The graph of the averaged models differs from their averaged predictions by {difference:.2g}, more than "
            f"{TOLERANCE:g}; no file was written."
        )
    write_bytes(path, content)
    return difference, names


def _average(onnx: Any, index: int, terms: Sequence[tuple[str, float]], output: str) -> tuple[list[Any], list[Any]]:
    """Return nodes and constants that add up weighted values."""
    make = onnx.helper.make_node
    if len(terms) == 1:
        return [make("Identity", [terms[0][0]], [output])], []
    nodes, scalars, products = [], [], []
    for number, (value, weight) in enumerate(terms):
        scalar, product = f"average/{index}/weight{number}", f"average/{index}/product{number}"
        scalars.append(onnx.numpy_helper.from_array(np.array(weight, dtype=np.float32), scalar))
        nodes.append(make("Mul", [value, scalar], [product]))
        products.append(product)
    return [*nodes, make("Sum", products, [output])], scalars


def merge_equal_nodes(nodes: Sequence[Any], constants: Sequence[Any], outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return nodes and constants without repetitions: what computes the same from the same is kept once.

    Args:
        nodes: In the order of computation; they are changed in place.
        constants: Initializers.
        outputs: Values whose names must stay.
    """
    same: dict[str, str] = {}
    kept_constants: dict[bytes, Any] = {}
    for constant in constants:
        bare = type(constant)()
        bare.CopyFrom(constant)
        bare.name = ""
        key = hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()
        same[constant.name] = kept_constants.setdefault(key, constant).name
    seen: dict[bytes, Any] = {}
    kept = []
    for node in nodes:
        for position, name in enumerate(node.input):
            node.input[position] = same.get(name, name)
        has_graph = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        bare = type(node)()
        bare.CopyFrom(node)
        bare.name = ""
        del bare.output[:]
        key = hashlib.sha256(bare.SerializeToString(deterministic=True) + bytes([len(node.output)])).digest()
        # graphs inside a node read names that are not among its inputs, random nodes differ, and outputs keep their names
        if has_graph or node.op_type.startswith("Random") or any(name in outputs for name in node.output):
            for attribute in node.attribute:
                _rename_inside(attribute, same)
            kept.append(node)
            continue
        first = seen.setdefault(key, node)
        if first is node:
            kept.append(node)
        else:
            same |= dict(zip(node.output, first.output, strict=True))
    return kept, list(kept_constants.values())


def _rename_inside(attribute: Any, same: Mapping[str, str]) -> None:
    """Let graphs inside a node read the values that were kept."""
    for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
        for node in graph.node:
            for position, name in enumerate(node.input):
                node.input[position] = same.get(name, name)
            for inner in node.attribute:
                _rename_inside(inner, same)


def _difference(
    content: bytes, suite: Suite, names: Mapping[str, str], expected: Mapping[str, Array], inputs: Mapping[str, Array]
) -> float:
    runtime: Any = require("onnxruntime", extra="export", purpose="Exporting to ONNX")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    used = {item.name for item in session.get_inputs()}
    feed = {name: np.asarray(array) for name, array in inputs.items() if name in used}
    worst = 0.0
    for task in suite.tasks:
        found = session.run([names[task.name]], feed)[0]
        gap = np.abs(found.astype(np.float64) - expected[task.name])
        if task.scale:
            gap = np.maximum(gap - 8 * np.finfo(np.float32).eps * np.abs(expected[task.name]), 0.0) / np.asarray(task.scale)
        worst = max(worst, float(np.max(gap, initial=0.0))) if np.isfinite(gap).all() else float("inf")
    return worst
