"""An exported model in ONNX Runtime, with a smaller graph for every set of outputs that is asked for. No torch."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.core.optional import has, require

__all__ = ["OnnxModel", "check_threads", "read_model"]

Array = NDArray[Any]


def read_model(path: Path) -> bytes:
    """Return the content of an ONNX file.

    Raises:
        FileFormatError: If it is missing, empty or cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        state = "does not exist"
    except OSError as error:
        state = f"cannot be read: {error.strerror or error}"
    else:
        if content:
            return content
        state = "is empty (zero bytes)"
    raise FileFormatError(f"{path} {state}. Run graftwork fit again with --resume, or restore the file from a copy.")


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that nothing can compute with; ONNX Runtime would take all cores for it.

    Raises:
        ConfigError: If it is below 1; None leaves the choice open.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1; got {threads}. Leave it out to use all cores.")


class OnnxModel:
    """Runs ``model.onnx`` and computes only what is asked.

    ONNX Runtime computes every node of a graph, whatever outputs are fetched (its run option ``only_execute_path_to_fetches``
    changes nothing in version 1.31, where this was measured). So for a subset of the tasks the graph is cut down once and kept
    as a session of its own.

    Args:
        path: The ONNX file. It is read once, here: what becomes of it later changes nothing.
        threads: Threads for one operator; None leaves the choice to ONNX Runtime (all cores).
        profile_prefix: If given, sessions write ONNX Runtime profiles whose file names begin with it.
        content: What is in the file, if it was read before.

    Raises:
        ConfigError: If ``threads`` is below 1.
        FileFormatError: If the file is missing, empty, truncated or no ONNX model.
    """

    def __init__(
        self, path: str | Path, *, threads: int | None = None, profile_prefix: str = "", content: bytes | None = None
    ) -> None:
        check_threads(threads)
        self.path = Path(path)
        self.content = read_model(self.path) if content is None else content
        """The bytes of the file."""
        self._threads = threads
        self._profile_prefix = profile_prefix
        self._sessions: dict[tuple[str, ...], Any] = {}
        self._calls: dict[tuple[str, ...], tuple[Any, tuple[str, ...], list[str]]] = {}
        self._full = self._open(self.content)
        self.outputs: dict[str, str] = self._read_names()
        """``{task: output}``."""

    def _read_names(self) -> dict[str, str]:
        found = [output.name for output in self._full.get_outputs()]
        # Written at the export, since names of tasks may be no valid names of outputs.
        note = self._full.get_modelmeta().custom_metadata_map.get("graftwork.outputs")
        try:
            names = (
                {str(task): str(output) for task, output in json.loads(note).items()} if note else {name: name for name in found}
            )
        except (ValueError, AttributeError, RecursionError) as error:
            raise FileFormatError(
                f"{self.path} has a damaged list of outputs: {note!r:.200}. Restore the file from a copy."
            ) from error
        missing = sorted(set(names.values()) - set(found))
        if missing:
            raise FileFormatError(f"{self.path} has no outputs {missing}; it has {found}. Restore the file from a copy.")
        return names

    def _open(self, model: bytes) -> Any:
        runtime = require("onnxruntime", extra="predict", purpose="Predicting")
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # failures are raised, not printed
        options.inter_op_num_threads = 1
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if self._profile_prefix:
            options.enable_profiling = True
            options.profile_file_prefix = self._profile_prefix
        try:
            return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's error classes have no common base of their own
            raise FileFormatError(
                f"{self.path} is not a whole ONNX model that ONNX Runtime {runtime.__version__} can read: "
                f"{str(error).strip().splitlines()[0][:300]}. Restore the file from a copy, or run graftwork "
                f"fit again with --resume."
            ) from error

    def session(self, tasks: Sequence[str]) -> Any:
        """Return the ONNX Runtime session that computes exactly ``tasks`` (names that exist, in the order of the outputs)."""
        key = tuple(tasks)
        # The whole model, whatever the order: answers are picked by name.
        if set(key) == set(self.outputs):
            return self._full
        if key not in self._sessions:
            if not has("onnx"):  # without the package every head is computed; the answer is the same
                return self._full
            self._sessions[key] = self._cut(key)
        return self._sessions[key]

    def _cut(self, tasks: Sequence[str]) -> Any:
        import onnx

        from graftwork.export.onnx_graph import keep_outputs

        model = onnx.load_model_from_string(self.content)
        keep_outputs(model, [self.outputs[task] for task in tasks])
        return self._open(model.SerializeToString())

    def only(self, tasks: Sequence[str]) -> Self:
        """Return a model of ``tasks`` alone, whose memory is free again when it goes; this one if they are all tasks.

        :meth:`session` keeps the graph of every set of tasks that was ever asked, which a server must not.
        """
        if set(tasks) == set(self.outputs) or not has("onnx"):
            return self
        part = copy.copy(self)
        # The copy shares nothing that changes: no calls, no sessions.
        part._full = self._cut(tasks)
        part._sessions, part._calls = {}, {}
        part.outputs = {task: self.outputs[task] for task in tasks}
        return part

    def run(self, inputs: Mapping[str, Array], tasks: Sequence[str]) -> dict[str, Array]:
        """Return ``{task: predictions}`` for one batch.

        Raises:
            DataError: If an input that the graph needs is missing or has the wrong shape or type.
        """
        key = tuple(tasks)
        call = self._calls.get(key)
        if call is None:  # asking a session for its inputs takes as long as a small model
            session = self.session(key)
            call = (session, tuple(item.name for item in session.get_inputs()), [self.outputs[task] for task in key])
            self._calls[key] = call
        session, needed, outputs = call
        try:
            # A cut graph may need fewer inputs than are given.
            values = session.run(outputs, {name: inputs[name] for name in needed})
        except KeyError as error:
            given = ", ".join(inputs) or "none"
            raise DataError(
                f"The model needs the input {error}; given are {given}. Encode the rows with the run's encoder."
            ) from None
        except Exception as error:  # ONNX Runtime's error classes have no common base of their own
            shapes = {name: f"{np.asarray(inputs[name]).dtype} {list(np.shape(inputs[name]))}" for name in needed}
            wanted = {item.name: f"{item.type} {item.shape}" for item in session.get_inputs()}
            raise DataError(
                f"The model cannot run on these inputs: {shapes}; it takes {wanted}. {str(error).strip().splitlines()[0][:200]} "
                "Encode the rows with the run's encoder."
            ) from error
        return dict(zip(key, values))
