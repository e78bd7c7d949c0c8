"""What the tasks of an ONNX model cost: floating-point operations by task, counted on the graph itself. No torch.

Matrix products, convolutions and ``Einsum`` count, a multiplication and an addition as two, as torch's counter does; element-wise
operations do not. Shapes are those that one run on a single row shows, so nothing has to be inferred. Nodes inside of conditions
and loops do not count.

Sparse mixtures of experts (:mod:`graftwork.nn.moe`) need no rule of their own: which expert computes how many tokens depends on
the row, but every token goes to exactly ``k`` of ``E`` experts of one size, so the experts of a layer together cost ``k / E`` of
what all would, on any row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.core.optional import has, require

__all__ = ["GraphCosts", "graph_costs", "zeros_like_input"]

_COUNTED = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum")


@dataclass(frozen=True, slots=True)
class GraphCosts:
    """FLOPs of one row, and which parts of them each task needs."""

    by_node: Mapping[str, float]
    """FLOPs by the name of a node's first output; of a single expert those of the row of zeros, which only add up to the same on
    all rows."""
    needed: Mapping[str, frozenset[str]]
    """``{task: nodes}``."""

    def flops(self, tasks: Iterable[str]) -> float:
        """Return the FLOPs of one row for exactly these tasks."""
        nodes: frozenset[str] = frozenset().union(*(self.needed[task] for task in tasks))
        return sum(self.by_node[name] for name in nodes)

    @property
    def total(self) -> float:
        """FLOPs of one row for all tasks."""
        return self.flops(self.needed)

    def share(self, tasks: Iterable[str]) -> float:
        """Return the FLOPs for these tasks relative to all, from 0 to 1; 1 if nothing counts."""
        # A graph of element-wise operations alone costs nothing by this count.
        total = self.total
        return self.flops(tasks) / total if total else 1.0


def graph_costs(source: str | Path | bytes, outputs: Mapping[str, str]) -> GraphCosts | None:
    """Count the FLOPs of a model.

    Args:
        source: The ONNX file, or its content.
        outputs: ``{task: output}``.

    Returns:
        None where the package ``onnx`` is not installed or the graph cannot be run on a row of zeros.
    """
    if not has("onnx"):
        return None
    import onnx

    from graftwork.export.onnx_graph import live_nodes

    model = onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load(str(source))
    counted = [node for node in model.graph.node if node.op_type in _COUNTED]
    shapes = _shapes(model, counted)
    if shapes is None:
        return None
    by_node = {node.output[0]: _flops(node, shapes) for node in counted}
    needed = {
        task: frozenset(node.output[0] for node in live_nodes(model.graph, [output]) if node.output[0] in by_node)
        for task, output in outputs.items()
    }
    return GraphCosts(by_node, needed)


def _shapes(model: Any, counted: Sequence[Any]) -> dict[str, tuple[int, ...]] | None:
    """Return the shape of everything that the counted nodes read and write, from one run on a row of zeros."""
    onnx = require("onnx", extra="predict", purpose="Counting operations")
    runtime = require("onnxruntime", extra="predict", purpose="Counting operations")
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    given = {item.name for item in model.graph.input}
    wanted = sorted({name for node in counted for name in (*node.input, *node.output) if name} - set(shapes) - given)
    present = {output.name for output in model.graph.output}
    # Only outputs can be fetched, so every tensor whose shape is wanted becomes one.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
    options = runtime.SessionOptions()
    # Optimised graphs fuse nodes away, and their names with them.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feed = {item.name: zeros_like_input(item) for item in session.get_inputs()}
        found = session.run(wanted, feed) if wanted else []
    except Exception:  # ONNX Runtime's error classes have no common base of their own; costs are a courtesy
        return None
    shapes |= {name: value.shape for name, value in feed.items()}
    return shapes | {name: np.shape(value) for name, value in zip(wanted, found)}


def zeros_like_input(item: Any, rows: int = 1) -> Any:
    """Return zeros that fit an input of an ONNX Runtime session; dimensions that are free have ``rows`` entries, or 1 behind the
    first."""
    kinds = {"float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_}
    name = item.type.removeprefix("tensor(").removesuffix(")")
    shape = [size if isinstance(size, int) and place else rows if not place else 1 for place, size in enumerate(item.shape)]
    return np.zeros(shape, dtype=kinds.get(name, name))


def _flops(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> float:
    inputs = [shapes.get(name, ()) for name in node.input]
    result = math.prod(shapes.get(node.output[0], ()))
    if node.op_type == "MatMul":
        # The inner dimension: one multiplication and one addition for each of its entries.
        return 2.0 * result * inputs[0][-1]
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return 2.0 * result * inputs[0][0 if transposed else 1]
    if node.op_type == "Conv":  # the weight is [out, in / groups, *kernel]
        return 2.0 * result * math.prod(inputs[1][1:])
    if node.op_type == "ConvTranspose":  # the weight is [in, out / groups, *kernel]
        # Every entry of the input meets the whole kernel.
        return 2.0 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    equation = next(attribute.s.decode() for attribute in node.attribute if attribute.name == "equation").replace(" ", "")
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.partition("->")[0].split(","), inputs):
        for name, size in zip(_axes(term, len(shape)), shape):
            # Axes that appear in several inputs have one size; those of an ellipsis may be 1 in some, which are repeated.
            sizes[name] = max(size, sizes.get(name, 1))
    return 2.0 * math.prod(sizes.values())


def _axes(term: str, rank: int) -> list[str]:
    """Return the name of each axis of one input of an ``Einsum``; those of an ellipsis count from the last one.

    Example:
        >>> _axes("b...i", 4)
        ['b', '2', '1', 'i']
    """
    front, _, back = term.partition("...")
    hidden = rank - len(front) - len(back)
    return [*front, *map(str, range(hidden, 0, -1)), *back]
