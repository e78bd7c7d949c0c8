"""Several ONNX graphs of the same suite as one that answers with weighted averages of their outputs.

Parts that compute the same (a frozen backbone that several models read) become one: equal constants are stored once, and nodes
that do the same with the same values are merged. So an average of models on one backbone costs one pass through it. What no output
needs (the heads of a model for tasks in which it has no weight) is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.data.suite import Suite
from graftwork.export.written_graph import output_names, write_checked

__all__ = ["compose_models", "merge_equal_nodes", "needed_nodes"]

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
    wanted = [item.name for item in results]
    nodes, constants = needed_nodes(*merge_equal_nodes(nodes, constants, wanted), wanted)
    ordered = [read[name] for name in inputs if name in read]
    graph = onnx.helper.make_graph(nodes, "average", ordered, results, constants)
    difference = write_checked(
        graph,
        versions,
        max(model.ir_version for model in models),
        path,
        tasks=suite.tasks,
        names=names,
        inputs=inputs,
        expected=expected,
        what="averaged models",
    )
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
        has_graph = any(_graphs(attribute) for attribute in node.attribute)
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


def needed_nodes(nodes: Sequence[Any], constants: Sequence[Any], outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return the nodes and constants without which the outputs could not be computed.

    Args:
        nodes: In the order of computation.
        constants: Initializers.
        outputs: Names of values.
    """
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            needed |= _names_read(node)
            kept.append(node)
    return kept[::-1], [constant for constant in constants if constant.name in needed]


def _names_read(node: Any) -> set[str]:
    """Return the names of values that a node reads, in the graphs inside it as well."""
    inner = (graph for attribute in node.attribute for graph in _graphs(attribute))
    return set(node.input).union(*(_names_read(part) for graph in inner for part in graph.node))


def _graphs(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _rename_inside(attribute: Any, same: Mapping[str, str]) -> None:
    """Let graphs inside a node read the values that were kept."""
    for graph in _graphs(attribute):
        for node in graph.node:
            for position, name in enumerate(node.input):
                node.input[position] = same.get(name, name)
            for inner in node.attribute:
                _rename_inside(inner, same)
