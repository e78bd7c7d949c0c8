"""``graftwork predict``: a finished run on new rows, with ONNX Runtime and without torch."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError, FileFormatError, GraftworkError
from graftwork.core.files import read_json
from graftwork.core.input_kinds import input_kind
from graftwork.core.input_spec import InputSpecs, read_input_specs
from graftwork.core.optional import require
from graftwork.core.plain_text import plain_text
from graftwork.core.records import TaskSpec
from graftwork.data.encoders import Encoder
from graftwork.data.encoders.joint import encoder_of_inputs
from graftwork.data.names import did_you_mean, short_list
from graftwork.data.output_columns import output_name, row_name
from graftwork.data.reading.cells import missing_notes
from graftwork.data.reading.table import as_table
from graftwork.evaluation.conformal import check_level, has_errors, read_errors, widths
from graftwork.serving.columns import interval_columns, prediction_columns
from graftwork.serving.kept_plans import folder_of_plan, plan_name
from graftwork.serving.session import OnnxModel
from graftwork.serving.sources import open_source
from graftwork.tasks.thresholds import with_thresholds
from graftwork.tasks.values import with_origin

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Predictor"]

Array = NDArray[Any]


class Predictor:
    """Predicts with the model that a run of ``graftwork fit`` chose, or with that of another finalist.

    Args:
        run_folder: Folder that ``graftwork fit`` wrote (with ``model.onnx`` and ``model/config.json``).
        plan: Name of a finalist whose model the run kept; None is the chosen plan.
        threads: Threads of ONNX Runtime; None takes all cores.
        batch_size: Rows per batch; None takes 4096 for tables, 256 for texts and 64 for pictures.

    Raises:
        FileFormatError: If the folder is no finished run, or a file in it is damaged.
        ConfigError: If the run has no model of this plan; the message names those that there are.

    Example:
        >>> Predictor("runs/emoji").predict("new_pictures/", tasks=["category"])  # doctest: +SKIP
        >>> Predictor("runs/emoji", plan="separate").predict("new_pictures/")  # doctest: +SKIP
    """

    def __init__(
        self,
        run_folder: str | Path,
        *,
        plan: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"`batch_size` must be at least 1; got {batch_size}.")
        self.folder = Path(run_folder)
        config_path, onnx_path = _find_files(folder_of_plan(self.folder, plan))
        config = read_json(config_path)
        try:
            self.plan = plan or plan_name(config)
            """Name of the plan whose model this is; empty if the model does not say."""
            thresholds = config.get("thresholds") or {}
            self.tasks: tuple[TaskSpec, ...] = tuple(
                with_thresholds(TaskSpec.from_json(task), thresholds.get(task["name"])) for task in config["tasks"]
            )
            self._names = tuple(task.name for task in self.tasks)
            if len(set(self._names)) < len(self._names):
                raise ConfigError(f"two of its tasks have one name: {short_list(self._names)}.")
            self.inputs: InputSpecs = read_input_specs(config)
            self._errors = {task.name: read_errors(config, task) for task in self.tasks if has_errors(task)}
        except KeyError as error:
            raise FileFormatError(
                f"{config_path} lacks {error}. It was not written by graftwork fit; restore it from a copy."
            ) from error
        except (ConfigError, TypeError, AttributeError, OverflowError) as error:
            raise FileFormatError(
                f"{config_path} is damaged, or was not written by graftwork fit: {error!s:.500} Restore it from a copy."
            ) from error
        self._encoder: Encoder | None = None
        self.model = OnnxModel(onnx_path, threads=threads)
        missing = [task.name for task in self.tasks if task.name not in self.model.outputs]
        if missing:
            raise FileFormatError(
                f"{onnx_path} has no outputs for the tasks {missing} of {config_path}; it has {list(self.model.outputs)}. "
                "The two files are of different runs: restore both from one copy."
            )
        kinds = [input_kind(spec.kind) for spec in self.inputs.values()]
        # With several inputs the largest rows decide.
        self.batch_size = batch_size or min((kind.predicted_rows for kind in kinds), default=256)

    @property
    def kind(self) -> str:
        """What the run predicts from: the kind of its only input, or ``joint`` for a table with inputs of several kinds."""
        return next(iter(self.inputs.values())).kind if len(self.inputs) == 1 else "joint"

    @property
    def encoder(self) -> Encoder:
        """The run's encoder, built on first use.

        Raises:
            DataError: If the run was trained on arrays and has none; :meth:`run_arrays` still works.
        """
        if self._encoder is None:
            if not self.inputs or not all(spec.encoder for spec in self.inputs.values()):
                raise DataError(
                    f"The run in {self.folder} was trained on ready arrays, so it has no encoder for raw rows. "
                    "Use Predictor.run_arrays with the same named inputs."
                )
            self._encoder = encoder_of_inputs(self.inputs)
        return self._encoder

    def predict(
        self,
        source: Any,
        tasks: Sequence[str] | None = None,
        *,
        probabilities: bool = False,
        interval: float | None = None,
    ) -> pd.DataFrame:
        """Return predictions as a table, one row per row, picture or text of ``source``.

        Args:
            source: A table (path or DataFrame), a folder or list of pictures, or a list of texts or series.
            tasks: Names of the tasks to compute, all by default; what is not asked is not computed.
            probabilities: Whether to add a column ``task[class]`` for every class.
            interval: Share of new rows, in (0, 1), that is to lie between two further columns of each number, ``price_low`` and
                ``price_high`` (see :mod:`graftwork.evaluation.conformal`); None adds none.

        Returns:
            Columns as :func:`~graftwork.serving.columns.prediction_columns` says, with a number behind a name that is another
            task's; the index names the row or file. ``attrs["notes"]`` lists the columns of the source with cells that are not
            empty but count as missing.

        Raises:
            DataError: If rows cannot be read, or columns are missing (all are named).
            ConfigError: If a task is unknown, or there are too few kept-back rows for the interval.
        """
        pandas = require("pandas", extra="predict", purpose="Predicting")
        specs = self.specs(tasks)
        around = {} if interval is None else self.interval_widths(interval, tasks)
        rows = open_source(source, self.encoder)
        parts: dict[str, list[Array]] = {}
        unread: dict[str, Counter[str]] = {}
        for values in self._batches(rows.batches(self.batch_size), specs, unread):
            for spec in specs:
                columns = prediction_columns(spec, values[spec.name], probabilities=probabilities)
                columns |= interval_columns(columns, around.get(spec.name, ()))
                for name, column in columns.items():
                    # A task may be called like another task's column of probabilities.
                    parts.setdefault(output_name(name, spec.name, self._names), []).append(column)
        frame: pd.DataFrame = pandas.DataFrame(
            {name: np.concatenate(columns) for name, columns in parts.items()},
            index=rows.index.rename(row_name(rows.index.name, self._names)),
        )
        frame.attrs["notes"] = missing_notes(unread)
        return frame

    def interval_widths(self, level: float, tasks: Sequence[str] | None = None) -> dict[str, NDArray[np.float64]]:
        """Return how far the ends of intervals are from predictions, ``{task: [size]}``, for tasks made of numbers.

        Args:
            level: Share of new rows that is to lie in its interval, in (0, 1).
            tasks: Names of tasks, all by default.

        Raises:
            ConfigError: If the level is out of range or needs more kept-back rows, a task is unknown, or none is made of numbers.
        """
        check_level(level)
        specs = [spec for spec in self.specs(tasks) if spec.name in self._errors]
        if not specs:
            raise ConfigError("None of the tasks predicts numbers, so there are no intervals. Leave the interval out.")
        return {spec.name: widths(spec, self._errors[spec.name], level) for spec in specs}

    @property
    def tasks_with_intervals(self) -> tuple[str, ...]:
        """Names of the tasks made of numbers."""
        return tuple(self._errors)

    @property
    def widest_interval(self) -> float | None:
        """The largest share of new rows for which all tasks made of numbers have an interval; None without such tasks or rows."""
        rows = min((len(column) for columns in self._errors.values() for column in columns), default=0)
        return rows / (rows + 1) if rows else None

    def predict_arrays(self, source: Any, tasks: Sequence[str] | None = None) -> dict[str, Array]:
        """Return ``{task: array}`` for raw rows, laid out as ``Learner.predict`` says; also for tasks that predict per pixel."""
        specs = self.specs(tasks)
        rows = open_source(source, self.encoder)
        parts = list(self._batches(rows.batches(self.batch_size), specs))
        found = {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in specs}
        # Large numbers are learned without their origin; adding it here needs float64.
        return {
            spec.name: with_origin(spec, found[spec.name]) if spec.details.get("origin") else found[spec.name] for spec in specs
        }

    def run_arrays(self, inputs: Mapping[str, Array], tasks: Sequence[str] | None = None) -> dict[str, Array]:
        """Return ``{task: array}`` for inputs that are encoded already, in batches of :attr:`batch_size` rows.

        Raises:
            DataError: If an input is missing or has the wrong shape.
            ConfigError: If a task is unknown.
        """
        # One row of a small model takes a tenth of a millisecond: every microsecond before the session shows.
        names = self._names if tasks is None else tuple([spec.name for spec in self.specs(tasks)])
        size = len(next(iter(inputs.values())))
        if size <= self.batch_size:
            return self.model.run(inputs, names)
        starts = range(0, size, self.batch_size)
        parts = [
            self.model.run({key: value[start : start + self.batch_size] for key, value in inputs.items()}, names)
            for start in starts
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _batches(
        self, batches: Iterator[Any], specs: Sequence[TaskSpec], unread: dict[str, Counter[str]] | None = None
    ) -> Iterator[dict[str, Array]]:
        """Yield predictions batch by batch; cells that count as missing are counted in ``unread``."""
        names = [spec.name for spec in specs]
        for inputs in self.encoder.transform_batches(self._counted(batches, unread)):
            yield self.model.run(inputs, names)

    def _counted(self, batches: Iterator[Any], unread: dict[str, Counter[str]] | None) -> Iterator[Any]:
        """Yield the batches, tables as columns that are read once; after each, count in ``unread`` what was read as missing."""
        # Counted after the encoder took the table, which reads its cells once.
        for batch in batches:
            if not hasattr(batch, "columns"):  # a list of pictures or texts
                yield batch
                continue
            table = as_table(batch)
            yield table
            if unread is not None:
                for name, words in self.encoder.cells_read_as_missing(table).items():
                    unread.setdefault(name, Counter()).update(words)

    def specs(self, tasks: Sequence[str] | None = None) -> tuple[TaskSpec, ...]:
        """Return the tasks of these names, in the order of the model; all by default.

        Raises:
            ConfigError: If a name is unknown, or none is given.
        """
        if tasks is None:
            return self.tasks
        if isinstance(tasks, str):
            tasks = [tasks]
        known = [task.name for task in self.tasks]
        unknown = [name for name in tasks if name not in known]
        if unknown or not tasks:
            hints = " ".join(f"There is no task {name!r}.{did_you_mean(name, known)}" for name in unknown) or "No task is named."
            raise ConfigError(f"{hints} The tasks of this run are: {', '.join(known)}.")
        # In the order of the model: the session for a set of tasks is found by that order.
        return tuple(task for task in self.tasks if task.name in set(tasks))


def _without_model(folder: Path) -> str:
    """Return why a folder has no model, and what to do."""
    told = {}
    for name in ("run.json", "result.json"):
        with contextlib.suppress(GraftworkError, OSError):
            found = read_json(folder / name)
            told[name] = found if isinstance(found, dict) else {}
    verb = str(told.get("run.json", {}).get("verb", "fit"))
    if "run.json" in told and verb == "compare":
        return "is a comparison of plans, which keeps no model. Train the plan that you want: graftwork fit DATA --plans NAME."
    if "run.json" in told or (folder / "run.json").is_file():
        return (
            f"is a run that has not finished: it has no model yet. Finish it with: graftwork {plain_text(verb)} --resume {folder}"
        )
    if str(told.get("result.json", {}).get("format", "")).startswith("graftwork-rank"):
        return "is a ranking, which trains no model. Give the folder of a graftwork fit, tune or distill."
    return "is not a run folder: it has no model/config.json. Give the folder that graftwork fit wrote."


def _find_files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of ``config.json`` and ``model.onnx``."""
    if not os.path.isdir(folder):
        state = "is a file, not a folder" if os.path.exists(folder) else "does not exist"
        raise FileFormatError(f"{folder} {state}. Give the folder that graftwork fit wrote, the one with report.html in it.")
    # A run folder, or a folder that was exported alone.
    config = next((path for path in (folder / "model" / "config.json", folder / "config.json") if path.is_file()), None)
    model = next((path for path in (folder / "model.onnx", folder / "model" / "model.onnx") if path.is_file()), None)
    if config is None:
        raise FileFormatError(f"{folder} {_without_model(folder)}")
    if model is None:
        raise FileFormatError(
            f"{folder} has no model.onnx, which prediction needs. Run the same graftwork fit command with --resume to export it "
            f"again."
        )
    return config, model
