"""What all exported graphs have in common: names of outputs; and of those that are put together node by node the last steps:
metadata, the check against the learner, the file."""

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
from graftwork.core.records import TaskSpec

__all__ = ["MOST_BYTES", "TOLERANCE", "output_names", "write_checked"]

Array = NDArray[Any]
TOLERANCE = 1e-4
"""Largest difference to the learner: of probabilities, and of values in standard deviations of the target."""
MOST_BYTES = 2_000_000_000
"""An ONNX file without external data cannot hold more."""


def output_names(tasks: Sequence[str], inputs: Sequence[str]) -> dict[str, str]:
    """Return ``{task: output}``: the task's own name, with ``_output`` behind it if an input is called so.

    Example:
        >>> output_names(["price", "numeric"], ["numeric", "categorical"])
        {'price': 'price', 'numeric': 'numeric_output'}
    """
    names: dict[str, str] = {}
    for task in tasks:
        name = task
        while name in inputs or name in names.values() or (name != task and name in tasks):
            name += "_output"
        names[task] = name
    return names


def write_checked(
    graph: Any,
    versions: Mapping[str, int],
    ir_version: int,
    path: Path,
    *,
    tasks: Sequence[TaskSpec],
    names: Mapping[str, str],
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    what: str,
) -> float:
    """Write a graph and prove that ONNX Runtime computes what the learner does.

    Args:
        graph: An ``onnx.GraphProto``.
        versions: Version of the operators of each domain; ``""`` is ONNX itself.
        ir_version: Version of the file format.
        path: File to write; nothing is written if the check fails.
        tasks: The tasks.
        names: ``{task: output}``; the file's metadata hold it.
        inputs: Arrays of some rows; those that the graph does not read are left out.
        expected: The learner's predictions for these rows.
        what: What the graph stands for, as in "trees", for the error.

    Returns:
        The largest difference found: of probabilities, and of values in standard deviations of the target.

    Raises:
        GraftworkError: If it is above 1e-4, or the graph is too large for one file.
    """
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version, producer_name="graftwork")
    for key, text in (("graftwork.format", "graftwork-onnx-1"), ("graftwork.outputs", json.dumps(names, ensure_ascii=False))):
        model.metadata_props.add(key=key, value=text)
    if model.ByteSize() > MOST_BYTES:
        raise GraftworkError(
            f"The graph of the {what} has {model.ByteSize() / 1e9:.1f} GB, and one ONNX file holds 2 GB. Ask for one plan with "
            "--single, or for smaller ones with --max-params."
        )
    onnx.checker.check_model(model)
    content = bytes(model.SerializeToString())
    difference = _difference(content, tasks, names, inputs, expected)
    if not difference <= TOLERANCE:
        raise GraftworkError(
            f"The ONNX form of the {what} differs from the {what} by {difference:.2g}, more than {TOLERANCE:g}; no file was written. "
            "The trained model is kept in the run; choose another plan with --plans, and report this one."
        )
    write_bytes(path, content)
    return difference


def _difference(
    content: bytes,
    tasks: Sequence[TaskSpec],
    names: Mapping[str, str],
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
) -> float:
    runtime: Any = require("onnxruntime", extra="export", purpose="Exporting to ONNX")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    used = {item.name for item in session.get_inputs()}
    feed = {name: np.asarray(array) for name, array in inputs.items() if name in used}
    worst = 0.0
    # All in one run: tasks may share a large network.
    answers = session.run([names[task.name] for task in tasks], feed)
    for task, found in zip(tasks, answers, strict=True):
        wanted = expected[task.name]
        if found.shape != wanted.shape:
            return float("inf")
        gap = np.abs(found.astype(np.float64) - wanted)
        if task.scale:
            scale = np.asarray(task.scale).reshape(-1, *[1] * (gap.ndim - 2)) if gap.ndim > 1 else np.asarray(task.scale[0])
            # Values far from zero cannot agree better than float32 can say them.
            gap = np.maximum(gap - 8 * np.finfo(np.float32).eps * np.abs(wanted), 0.0) / scale
        worst = max(worst, float(np.max(gap, initial=0.0))) if np.isfinite(gap).all() else float("inf")
    return worst
