"""ONNX graphs from the arrays of a suite to the answers of its tasks, written by hand: inputs, names of outputs, layout of
answers, and the check that no file is written whose answers differ from the learner's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.export.written_graph import output_names as free_names
from graftwork.export.written_graph import write_checked
from graftwork.interfaces.task_kind import task_kind

__all__ = ["GraphBuilder", "answer_shape", "arrange_columns", "output_names", "require_onnx", "write_graph"]

Array = NDArray[Any]
_OPSET, _ML_OPSET, _IR = 18, 5, 10
_INNER = "_inner/"


def require_onnx() -> Any:
    """Return the package onnx, with the sub-modules that ``import onnx`` binds.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    onnx.helper, onnx.numpy_helper  # noqa: B018  (sub-modules that `import onnx` binds)
    return onnx


def answer_shape(task: TaskSpec) -> tuple[int, ...]:
    """Return the shape of one row's answer."""
    return task_kind(task).answer_shape(task, (1,))[1:]


def arrange_columns(task: TaskSpec, values: Array) -> Array:
    """Return the outputs of a task's label columns, ``[N, K]``, as ``Learner.predict`` lays them out; of two classes only one is
    learned."""
    shape = answer_shape(task)
    if not shape:
        return values[:, 0]
    return values if shape == values.shape[1:] else np.concatenate([1.0 - values, values], axis=1)


def output_names(suite: Suite) -> dict[str, str]:
    """Return ``{task: output}``: the task's name, with ``_output`` behind it where an input or an inner value is called so."""
    # The last three are names of values in the graph of trees; names of a GraphBuilder begin with _INNER.
    taken = [*suite.inputs, "features", "axis_1", "one"]
    tasks = {f"output {name}" if name.startswith(_INNER) else name: name for name in suite.task_names}
    return {tasks[shown]: output for shown, output in free_names(list(tasks), taken).items()}


def write_graph(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Sequence[Any],
    suite: Suite,
    path: Path,
    expected: Mapping[str, Array],
    rows: NDArray[np.int64],
    *,
    what: str,
) -> float:
    """Write one graph and prove that ONNX Runtime computes what the learner does.

    Args:
        nodes: In an order in which they can run.
        inputs: Arrays of the suite that it reads.
        outputs: One a task, called as :func:`output_names` says.
        constants: Its constants.
        suite: Tasks and inputs.
        path: File to write; nothing is written if the check fails.
        expected: The learner's predictions for ``rows``.
        rows: Rows of the suite.
        what: What the graph stands for, as in "trees"; its name, and a word of the error.

    Returns:
        The largest difference found: of probabilities, and of values in standard deviations of the target.

    Raises:
        GraftworkError: If it is above 1e-4.
    """
    onnx, names = require_onnx(), output_names(suite)
    graph = onnx.helper.make_graph(nodes, what, inputs, outputs, constants)
    arrays = {name: np.asarray(array[rows]) for name, array in suite.inputs.items()}
    versions = {"": _OPSET, "ai.onnx.ml": _ML_OPSET}
    return write_checked(graph, versions, _IR, path, tasks=suite.tasks, names=names, inputs=arrays, expected=expected, what=what)


class GraphBuilder:
    """A graph that grows node by node; of every node one output is used, which gets a name of its own.

    Args:
        suite: Its arrays are the inputs; only the first dimension is free for a table, all are for other inputs.
    """

    def __init__(self, suite: Suite) -> None:
        self._onnx = require_onnx()
        self._suite = suite
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._read: set[str] = set()
        self._stand_ins: dict[str, str] = {}

    def _name(self) -> str:
        return f"{_INNER}{len(self._nodes) + len(self._constants)}"

    def tensor(self, values: Array) -> Any:
        """Return an array as an attribute of an operator."""
        return self._onnx.numpy_helper.from_array(np.ascontiguousarray(values))

    def constant(self, values: Array) -> str:
        """Return the name of a constant."""
        name = self._name()
        self._constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def stand_in(self, name: str, value: str) -> None:
        """Let a value take the place of an input of this name in all that is added from now on."""
        self._stand_ins[name] = value

    def add(self, operator: str, *operands: str | Array, domain: str = "", **attributes: Any) -> str:
        """Return the name of an operator's output; operands are names of inputs and outputs, or constants."""
        inputs = [
            self._stand_ins.get(operand, operand) if isinstance(operand, str) else self.constant(operand) for operand in operands
        ]
        self._read |= {name for name in inputs if name in self._suite.inputs}
        name = self._name()
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def first(self, operator: str, *operands: str | Array, outputs: int, **attributes: Any) -> str:
        """Return the name of the first of several outputs of an operator, as :meth:`add` does; the others are not used."""
        name = self.add(operator, *operands, **attributes)
        self._nodes[-1].output.extend(f"{name}/{place}" for place in range(1, outputs))
        return name

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """Return a value in another type of numbers."""
        return self.add("Cast", value, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def concat(self, values: Sequence[str]) -> str:
        """Return ``[N, a]``, ``[N, b]`` ... side by side."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=1)

    def arrange(self, task: TaskSpec, value: str) -> str:
        """Return what :func:`arrange_columns` does of a value ``[N, K]``."""
        shape = answer_shape(task)
        if not shape:
            return self.add("Squeeze", value, np.array([1], dtype=np.int64))
        if len(task_kind(task).label_columns(task, np.zeros((1, task.size)))) == 1 and shape == (2,):
            return self.concat([self.add("Sub", np.array(1.0), value), value])
        return value

    def write(
        self, outputs: Mapping[str, str], path: Path, expected: Mapping[str, Array], rows: NDArray[np.int64], *, what: str
    ) -> float:
        """Write the graph whose values ``{task: name}`` are the answers; see :func:`write_graph`."""
        onnx, suite, names = self._onnx, self._suite, output_names(self._suite)
        kinds, value = onnx.helper.np_dtype_to_tensor_dtype, onnx.helper.make_tensor_value_info
        for task, name in outputs.items():
            self._nodes.append(onnx.helper.make_node("Cast", [name], [names[task]], to=onnx.TensorProto.FLOAT))
        inputs = []
        for name, array in suite.inputs.items():
            is_table = name in ("numeric", "categorical")
            if name in self._read or is_table:
                inner = [size if is_table else f"{name} {place}" for place, size in enumerate(array.shape[1:], 1)]
                inputs.append(value(name, kinds(array.dtype), ["batch", *inner]))
        declared = [
            value(names[task.name], onnx.TensorProto.FLOAT, ["batch", *expected[task.name].shape[1:]]) for task in suite.tasks
        ]
        return write_graph(self._nodes, inputs, declared, self._constants, suite, path, expected, rows, what=what)
