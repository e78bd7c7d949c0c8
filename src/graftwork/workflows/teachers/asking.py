"""A teacher that can be asked: a run of graftwork, a backbone by name or folder, or a file of what one said."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.input_spec import read_input_specs
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.distill_losses import attention_map
from graftwork.nn.module_taps import find_module, tapped_modules
from graftwork.workflows.rank.loading import encoded_rows, load_source, pooled
from graftwork.workflows.rank.sources import RankSource
from graftwork.workflows.teachers.naming import check_teacher
from graftwork.workflows.teachers.tables import read_teacher_file

__all__ = ["AskedTeacher", "open_teacher"]

Array = NDArray[Any]
_VERSION = 1
"""Raised whenever the same teacher and rows would give other answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedTeacher:
    """A teacher, ready to answer for rows of one suite."""

    name: str
    ask: Callable[[NDArray[np.int64]], Mapping[str, Array]]
    """Returns arrays by the names of :meth:`graftwork.data.teacher_answers.TeacherAnswers.arrays`, for row numbers ``[n]``."""
    key: str
    """Hash over all that the answers depend on."""
    network: nn.Module | None = None
    """None of a teacher that is a file."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """What the network reads."""
    notes: tuple[str, ...] = ()
    licence: str = ""
    beside: str = ""
    """Name by which a training can run it beside the student; empty if it cannot."""


def open_teacher(name: str, suite: Suite, taps: Sequence[str] = (), *, seed: int = 0, device: str = "cpu") -> AskedTeacher:
    """Load a teacher and bring the suite's rows into the form that it reads.

    Args:
        name: As :func:`check_teacher` takes it.
        suite: The rows.
        taps: Paths of modules whose outputs are asked for as well.
        seed: Draws untrained trunks.
        device: Where its network answers: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        GraftworkError: If it cannot be loaded, or cannot read these rows.
    """
    source = check_teacher(name, suite.kinds)
    if source is None:
        if taps:
            raise ConfigError(f"{name} is a file, which has no modules to tap.")
        return _of_file(Path(name), suite)
    if source.way == "run":
        return _of_run(source, suite, taps, device)
    loaded = load_source(source, suite, seed=seed)

    def answer(inputs: Mapping[str, Tensor]) -> Mapping[str, Array]:
        features = pooled(loaded.backbone(inputs)).float().cpu().numpy()
        return {"features": features, **({"classes": loaded.probabilities(features)} if loaded.probabilities else {})}

    # Texts and tables come in codes of the student, which a network of its own cannot read.
    beside = source.place if source.way == "catalog" and source.kind == "image" else ""
    return dataclasses.replace(_asked(source, loaded.backbone.eval(), loaded.arrays, answer, taps, device), beside=beside)


def _of_file(path: Path, suite: Suite) -> AskedTeacher:
    arrays = read_teacher_file(path, suite).arrays()
    digest = hashlib.sha256(f"{_VERSION} file".encode())
    for name, array in arrays.items():
        digest.update(f"{name}{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return AskedTeacher(
        name=str(path), ask=lambda rows: {name: array[rows] for name, array in arrays.items()}, key=digest.hexdigest()[:32]
    )


def _of_run(source: RankSource, suite: Suite, taps: Sequence[str], device: str) -> AskedTeacher:
    from graftwork.training.model_loading import load_model

    try:
        model, tasks, config = load_model(source.place)
    except GraftworkError as error:
        raise ConfigError(
            f"The model of {source.name} is no network that can be asked for raw outputs ({str(error)[:200]}). Teach with its "
            f"predictions: graftwork predict {source.name} DATA --probabilities --out teacher.csv, then --teacher teacher.csv."
        ) from error
    except (KeyError, AttributeError, TypeError) as error:
        raise FileFormatError(f"{source.place} is no model that this version reads: {error}.") from error
    arrays = encoded_rows(read_input_specs(config), suite, Path(source.place))
    matched, notes = _matched(source.name, tasks, suite.tasks)

    def answer(inputs: Mapping[str, Tensor]) -> Mapping[str, Array]:
        represented = model.encode(inputs)
        parts = represented if isinstance(represented, tuple) else (represented,)
        found = {"features": torch.cat([pooled(part) for part in parts], dim=1).float().cpu().numpy()}
        outputs = model.decode(represented)
        for own, task in matched:
            found[f"outputs/{task.name}"] = _in_units_of(own, task, outputs[own.name].float().cpu().numpy())
        return found

    return dataclasses.replace(_asked(source, model, arrays, answer, taps, device), notes=tuple(notes))


def _matched(name: str, own: Sequence[TaskSpec], asked: Sequence[TaskSpec]) -> tuple[list[tuple[TaskSpec, TaskSpec]], list[str]]:
    """Return the pairs of a teacher's task and the suite's that ask the same, and why others of the same name do not."""
    known = {task.name: task for task in own}
    pairs, notes = [], []
    for task in asked:
        teacher = known.get(task.name)
        if teacher is None:
            continue
        layout = ("kind", "size", "classes", "positions")
        differs = [key for key in layout if getattr(teacher, key) != getattr(task, key)]
        if differs:
            notes.append(f"{name} has a task {task.name!r} too, with another {', '.join(differs)}: its answers are not taught.")
        else:
            pairs.append((teacher, task))
    return pairs, notes


def _in_units_of(own: TaskSpec, task: TaskSpec, outputs: Array) -> Array:
    """Return standardised values of the teacher as those of the student, whose training rows have another mean and spread."""
    if not task.center or not own.center or (own.center, own.scale) == (task.center, task.scale):
        return outputs
    shape = (1, len(task.center), *([1] * (outputs.ndim - 2)))
    center, scale, own_center, own_scale = (
        np.array(part).reshape(shape) for part in (task.center, task.scale, own.center, own.scale)
    )
    return np.asarray((outputs * own_scale + own_center - center) / scale, dtype=np.float32)


def _asked(
    source: RankSource,
    network: nn.Module,
    arrays: Mapping[str, Array],
    answer: Callable[[Mapping[str, Tensor]], Mapping[str, Array]],
    taps: Sequence[str],
    device: str,
) -> AskedTeacher:
    for path in taps:
        find_module(network, path)

    def ask(rows: NDArray[np.int64]) -> Mapping[str, Array]:
        with torch.inference_mode(), tapped_modules(network, taps) as found:
            # Copies: stores hand out read-only arrays, which torch must not wrap.
            inputs = {name: torch.from_numpy(np.array(array[rows])).to(device) for name, array in arrays.items()}
            answers = dict(answer(inputs))
        for path in taps:
            states = found[path]
            answers[f"vectors/{path}"] = pooled(states).float().cpu().numpy()
            if states.ndim > 2:
                answers[f"maps/{path}"] = attention_map(states.float()).cpu().numpy()
        return answers

    # What an accelerator computes differs by rounding, and a run on the CPU must not depend on an earlier one elsewhere.
    place = "" if device == "cpu" else f" {device}"
    digest = hashlib.sha256(
        f"{_VERSION} {source.way} {state_fingerprint(network.state_dict())} {json.dumps(list(taps))}{place}".encode()
    )
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    # Last: the fingerprint is that of the weights as they were read.
    network.to(device)
    return AskedTeacher(
        name=source.name, ask=ask, key=digest.hexdigest()[:32], network=network, arrays=arrays, licence=source.licence
    )
