"""Surgery on ONNX graphs, without torch: keep only what some outputs need, fold what does not depend on the batch, rename
outputs.

Models are ``onnx.ModelProto`` objects; every function changes the one it is given, in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require

__all__ = ["fold_batch_free_shapes", "keep_outputs", "live_nodes", "rename_outputs", "strip_origins"]

Array = NDArray[Any]

_FOLD_LIMIT = 4096
"""Largest folded value: shapes and paddings are tiny, and folding must never make a file grow."""


def _graphs_of(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _reads(node: Any) -> Iterator[str]:
    """Yield every name that a node reads, names captured by its sub-graphs (If, Loop) included."""
    yield from node.input
    for graph in _graphs_of(node):
        for inner in graph.node:
            yield from _reads(inner)
        # A sub-graph may pass a value of the outer graph straight through.
        yield from (output.name for output in graph.output)


def live_nodes(graph: Any, names: Iterable[str]) -> list[Any]:
    """Return the nodes that the values ``names`` need, in order."""
    return _live(graph, set(names))


def _live(graph: Any, live: set[str]) -> list[Any]:
    """Return the nodes that the values ``live`` need, and add everything that these nodes read to ``live``."""
    kept = []
    # Nodes are in topological order, so one walk from the end finds all that is needed.
    for node in reversed(graph.node):
        if any(name in live for name in node.output):
            kept.append(node)
            live.update(_reads(node))
    kept.reverse()
    return kept


def _drop_dead(graph: Any) -> None:
    live = {output.name for output in graph.output}
    kept = _live(graph, live)
    weights = [weight for weight in graph.initializer if weight.name in live]
    # Noted types and shapes go too: they may be those of values that are gone or folded.
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)


def keep_outputs(model: Any, names: Sequence[str]) -> None:
    """Keep only the outputs ``names`` and the nodes, weights and inputs that they need.

    Raises:
        KeyError: If the graph has no such output.
    """
    graph = model.graph
    outputs = {output.name: output for output in graph.output}
    chosen = [outputs[name] for name in names]
    del graph.output[:]
    graph.output.extend(chosen)
    _drop_dead(graph)
    read = {name for node in graph.node for name in _reads(node)} | {output.name for output in graph.output}
    inputs = [item for item in graph.input if item.name in read]
    del graph.input[:]
    graph.input.extend(inputs)


def rename_outputs(model: Any, names: Sequence[str]) -> None:
    """Name the outputs ``names``, in order; inner values that happen to have such a name get another one.

    Raises:
        ValueError: If a name belongs to an input, or the number of names is wrong.
    """
    graph = model.graph
    old = [output.name for output in graph.output]
    taken = {item.name for item in graph.input}
    if len(names) != len(old) or len(set(names)) != len(names) or taken & set(names):
        raise ValueError(
            f"{len(old)} outputs need as many different names that are no inputs ({sorted(taken)}); got {list(names)}."
        )
    # Inner values must make room before the outputs take their names.
    used = (
        taken
        | {name for node in graph.node for name in (*_reads(node), *node.output)}
        | {item.name for item in graph.initializer}
    )
    wanted = set(names)
    mapping: dict[str, str] = {}
    for name in sorted(used & wanted - set(old)):
        fresh = f"{name}_inner"
        while fresh in used or fresh in wanted:
            fresh += "_"
        mapping[name] = fresh
        used.add(fresh)
    mapping |= dict(zip(old, names))
    _rename(graph, mapping)


def _rename(graph: Any, mapping: Mapping[str, str]) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [mapping.get(name, name) for name in field]
        for inner in _graphs_of(node):
            _rename(inner, mapping)
    for item in (*graph.output, *graph.initializer, *graph.value_info):
        item.name = mapping.get(item.name, item.name)


def strip_origins(model: Any) -> None:
    """Remove notes that exporters leave on nodes: stack traces with paths of the machine."""
    graph = model.graph
    graph.doc_string = ""
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]


def _shape_only(graph: Any) -> Iterator[Any]:
    """Yield the nodes that are computed from constants and shapes alone, in order."""
    known = {weight.name for weight in graph.initializer}
    for node in graph.node:
        if any(True for _ in _graphs_of(node)) or "Random" in node.op_type or node.op_type in ("Bernoulli", "Multinomial"):
            continue
        if node.op_type == "Shape" or all(name == "" or name in known for name in node.input):
            # Values computed from what is known are known in turn.
            known.update(node.output)
            if node.op_type != "Constant":
                yield node


def fold_batch_free_shapes(model: Any, feeds: Iterable[Mapping[str, Array]]) -> None:
    """Replace values that come from shapes and constants alone, and that no batch size changes, by constants.

    A traced graph computes paddings and reshapes from the input's size again and again although pictures have one size; with
    constant paddings ONNX Runtime can fuse them into the convolutions. What depends on the batch size differs between the
    ``feeds`` and stays.

    Args:
        model: The graph, with all weights inside.
        feeds: Inputs of at least three different batch sizes.
    """
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    runtime = require("onnxruntime", extra="export", purpose="Exporting to ONNX")
    graph = model.graph
    names = [name for node in _shape_only(graph) for name in node.output if name]
    if not names:
        return
    probe = onnx.ModelProto()
    # The values to fold become the outputs of a copy, and ONNX Runtime computes them.
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    _drop_dead(probe.graph)
    options = runtime.SessionOptions()
    # The probe runs a few times only: optimising it would not pay.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # failures are raised, not printed
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = [session.run(names, dict(feed)) for feed in feeds]
    constants = {
        name: values[0]
        for name, values in zip(names, zip(*results))
        if values[0].size <= _FOLD_LIMIT
        # Equal for all batch sizes: the value cannot depend on the batch.
        and all(np.array_equal(value, values[0]) and value.dtype == values[0].dtype for value in values)
    }
    keep = [
        node
        for node in graph.node
        if not all(name == "" or name in constants for name in node.output) or node.op_type == "Constant"
    ]
    outputs = {output.name for output in graph.output}
    if outputs & set(constants):  # an output that ignores the input altogether keeps its node
        return
    del graph.node[:]
    graph.node.extend(keep)
    made = {name for node in keep for name in node.output}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        for name, value in constants.items()
        # Of a node with several outputs some may differ: then the node stays and makes all of them.
        if name not in made
    )
    _drop_dead(graph)
