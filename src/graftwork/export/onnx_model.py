"""Export of a trained model to ONNX: inputs of the suite in, predictions in the user's units out, checked against PyTorch.

The traced exporter of PyTorch comes first and the newer graph capture second: on a small MLP, a small CNN and EfficientNet-Lite0
the first took 0.05, 0.02 and 0.7 s and the second 2.9, 1.4 and 11 s. The traced graph recomputes paddings from shapes, which
costs EfficientNet-Lite0 a quarter more time per picture; after ``fold_batch_free_shapes`` both are equally fast.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.core.errors import GraftworkError
from graftwork.core.files import write_bytes
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.core.scratch import scratch_folder
from graftwork.export.onnx_graph import fold_batch_free_shapes, rename_outputs, strip_origins
from graftwork.export.written_graph import output_names
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.modes import evaluating
from graftwork.tasks.decode import decode_output

__all__ = ["OPSET", "export_onnx"]

OPSET = 18
"""Version of the ONNX operators; ONNX Runtime reads it since 1.14."""

# One row, and a number of rows other than the traced one: a batch size that was baked in shows.
_CHECKED_BATCHES = (1, 7)
# Not 1: a batch of one row can be broadcast, or specialised, without notice.
_TRACED_BATCH = 3


class _Deployed(nn.Module):
    """The model with decoding behind it, from positional inputs to a tuple."""

    def __init__(self, model: SharedModel, tasks: Sequence[TaskSpec], inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.tasks = tuple(tasks)
        self.inputs = tuple(inputs)

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model(dict(zip(self.inputs, arrays)), [task.name for task in self.tasks])
        return tuple(decode_output(task, outputs[task.name]) for task in self.tasks)


def export_onnx(
    model: SharedModel,
    tasks: Sequence[TaskSpec],
    example_inputs: Mapping[str, Tensor | np.ndarray],
    path: str | Path,
    *,
    tolerance: float = 1e-4,
) -> float:
    """Write ``model`` as one ONNX file and prove that ONNX Runtime computes the same.

    Args:
        model: The trained model; its training mode is restored afterwards. It must take the batch size from ``tensor.shape[0]``:
            ``len(tensor)`` is a plain number that tracing fixes at the size of the example.
        tasks: Tasks to export, in the order of the outputs.
        example_inputs: At least one row of real inputs; their rows are what the check runs on.
        path: File to write; an older one stays whole if anything fails.
        tolerance: Largest allowed difference to PyTorch: of probabilities (and unit normals) as such, of regression values in
            standard deviations of the target (``TaskSpec.scale``), with the rounding of float32 itself not counted.

    Returns:
        The largest difference found on batches of 1 and 7 rows, in these units. The first dimension of every input and output is
        free. Inputs are called as in the suite, outputs as the tasks (see :func:`graftwork.export.written_graph.output_names`; the mapping is also in the
        file's metadata).

    Raises:
        GraftworkError: If the model has an operation without ONNX form, predicts NaN, or ONNX Runtime disagrees.
    """
    inputs = {name: torch.as_tensor(value).detach().cpu() for name, value in example_inputs.items()}
    deployed = _Deployed(model, tasks, list(inputs))
    with evaluating(deployed), torch.no_grad(), scratch_folder("export") as folder:
        expected = {size: _expected(deployed, _rows(inputs, size)) for size in _CHECKED_BATCHES}
        content, difference = _first_that_agrees(deployed, inputs, expected, folder, tolerance)
    write_bytes(path, content)
    return difference


def _rows(inputs: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """Return ``size`` rows, beginning anew where the example has fewer."""
    return {name: value[torch.arange(size) % len(value)] for name, value in inputs.items()}


def _expected(deployed: _Deployed, inputs: Mapping[str, Tensor]) -> list[np.ndarray]:
    outputs = [output.numpy() for output in deployed(*inputs.values())]
    for task, output in zip(deployed.tasks, outputs):
        if not np.isfinite(output).all():
            raise GraftworkError(
                f"The model predicts NaN or infinity for task {task.name!r} on the example rows, so it is not exported. "
                "Train with a lower learning rate, or check the inputs of these rows."
            )
    return outputs


def _first_that_agrees(
    deployed: _Deployed, inputs: Mapping[str, Tensor], expected: Mapping[int, list[np.ndarray]], folder: Path, tolerance: float
) -> tuple[bytes, float]:
    problems = []
    for name, exporter in (("traced", _export_traced), ("captured", _export_captured)):
        try:
            exporter(deployed, _rows(inputs, _TRACED_BATCH), folder / f"{name}.onnx")
            content = _finish(folder / f"{name}.onnx", deployed, inputs)
            difference, worst = _difference(content, deployed, inputs, expected)
        except Exception as error:  # exporters raise errors of many kinds, with pages of text
            problems.append(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
            continue
        if difference <= tolerance:
            return content, difference
        problems.append(f"{name}: task {worst!r} differs by {difference:.2g}")
    raise GraftworkError(
        f"The model could not be exported to ONNX within the tolerance {tolerance:g}; no file was written "
        f"({'; '.join(problems)}). Raise the tolerance if the difference is harmless, or use the PyTorch weights in the "
        "model folder."
    )


def _export_traced(deployed: _Deployed, inputs: Mapping[str, Tensor], path: Path) -> None:
    names = [f"output_{index}" for index in range(len(deployed.tasks))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deployed,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *names)},
            opset_version=OPSET,
            dynamo=False,
        )


def _export_captured(deployed: _Deployed, inputs: Mapping[str, Tensor], path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                deployed,
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=[f"output_{index}" for index in range(len(deployed.tasks))],
                dynamic_shapes=(tuple({0: batch} for _ in inputs),),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def _finish(path: Path, deployed: _Deployed, inputs: Mapping[str, Tensor]) -> bytes:
    """Clean, fold and name the graph of an exporter; return the bytes of the file."""
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    model = onnx.load(str(path))
    strip_origins(model)
    # Exporters leave out inputs that nothing reads, and ONNX Runtime refuses to be fed them.
    used = {item.name for item in model.graph.input}
    fold_batch_free_shapes(
        model,
        [
            {name: value.numpy() for name, value in _rows(inputs, size).items() if name in used}
            for size in (2, 5, *_CHECKED_BATCHES)
        ],
    )
    names = output_names([task.name for task in deployed.tasks], list(inputs))
    rename_outputs(model, list(names.values()))
    # Without the exporter's version and notes: equal models give equal files.
    model.producer_name, model.producer_version = "graftwork", ""
    del model.metadata_props[:]
    for key, value in (("graftwork.format", "graftwork-onnx-1"), ("graftwork.outputs", json.dumps(names, ensure_ascii=False))):
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _difference(
    content: bytes, deployed: _Deployed, inputs: Mapping[str, Tensor], expected: Mapping[int, list[np.ndarray]]
) -> tuple[float, str]:
    """Return the largest difference and the task that has it."""
    runtime: Any = require("onnxruntime", extra="export", purpose="Exporting to ONNX")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # failures are raised, not printed
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    used = {item.name for item in session.get_inputs()}
    worst = (0.0, deployed.tasks[0].name if deployed.tasks else "")
    for size, outputs in expected.items():
        feed = {name: value.numpy() for name, value in _rows(inputs, size).items() if name in used}
        for task, wanted, got in zip(deployed.tasks, outputs, session.run(None, feed)):
            if got.shape != wanted.shape:
                raise ValueError(f"task {task.name!r} has shape {got.shape} instead of {wanted.shape} on {size} rows")
            worst = max(worst, (_scaled_difference(task, wanted, got), task.name))
    return worst


def _scaled_difference(task: TaskSpec, wanted: np.ndarray, got: np.ndarray) -> float:
    gap = np.abs(got.astype(np.float64) - wanted)
    if task.scale:
        # Values far from zero (a year, a price) cannot agree better than float32 can say them.
        gap = np.maximum(gap - 4 * np.finfo(np.float32).eps * np.abs(wanted), 0.0)
        # Scales are per output, on axis 1; maps have further axes behind it.
        gap = gap / np.asarray(task.scale).reshape((1, -1) + (1,) * (wanted.ndim - 2))
    # NaN compares false with every tolerance and would pass for agreement.
    gap = np.where(np.isnan(gap), np.inf, gap)
    return float(gap.max(initial=0.0))
