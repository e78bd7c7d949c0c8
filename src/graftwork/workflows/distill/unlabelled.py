"""Before a distillation of data without labels: what the teachers answer becomes what the student learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.files import cache_folder
from graftwork.core.records import TaskSpec
from graftwork.data.store import is_stored_suite, save_suite
from graftwork.data.suite import Suite
from graftwork.data.teacher_answers import TeacherAnswers, read_answers, store_answers
from graftwork.workflows.distill.bare_data import asks_for_none, open_bare
from graftwork.workflows.distill.plans import teacher_shares
from graftwork.workflows.distill.pseudo_tasks import Given, PseudoTask, missing_target, tasks_of_teachers
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.runs.jobs.teach import answers_key
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.teachers.asking import open_teacher

__all__ = ["pseudo_answers", "store_pseudo_labels"]

Array = NDArray[Any]
_BLOCK = 4096


def store_pseudo_labels(run: RunFolder, settings: DistillSettings, source: Any) -> None:
    """Store a suite whose targets are the teachers' answers, if the data has no labels and the run no suite yet.

    The teachers answer here, once; the jobs that ask them again find their answers in the cache.

    Args:
        run: The run folder, locked.
        settings: What the user asked for.
        source: The data, as the caller gave it; None is what the settings name.

    Raises:
        ConfigError: If there is nothing to learn of the teachers.
        GraftworkError: If data or a teacher cannot be read.
    """
    data = settings.source if source is None else source
    if is_stored_suite(run.suite) or not asks_for_none(data, settings.data):
        return
    bare = open_bare(data, settings.data, seed=settings.seed)
    tasks, notes = tasks_of_teachers(settings.teachers, bare)
    asked = replace(
        bare,
        tasks=tuple(task.spec for task in tasks),
        targets={task.spec.name: missing_target(task.spec, len(bare)) for task in tasks},
    )
    run.emit("phase", phase="teachers", jobs=len(settings.teachers), plans=list(settings.teachers))
    answers = [_answers(name, asked, settings, run) for name in settings.teachers]
    shares = teacher_shares(settings, len(answers))
    targets = {task.spec.name: _pseudo_target(task, answers, shares, asked) for task in tasks}
    kept = [task for task in tasks if _varies(targets[task.spec.name][asked.splits["train"]])]
    left = [task.spec.name for task in tasks if task not in kept]
    if left:
        notes.append(f"The teachers answer the same for all training rows, so it is not learned: {', '.join(left)}.")
    if not kept:
        raise ConfigError("The teachers answer the same for all rows, so there is nothing to learn.", notes)
    names = tuple(task.spec.name for task in kept)
    save_suite(replace(asked.with_targets(targets).with_tasks(names), notes=(*bare.notes, *notes)), run.suite)
    run.save(
        state="suite",
        pseudo={task.spec.name: {str(number): given for number, given in task.teachers.items()} for task in kept},
    )


def _answers(name: str, suite: Suite, settings: DistillSettings, run: RunFolder) -> TeacherAnswers:
    teacher = open_teacher(name, suite, seed=settings.seed, device=str(run.state.get("device", "cpu")))
    cache = Path(cache_folder()) / "teachers"
    return read_answers(store_answers(cache, answers_key(teacher.key, suite), teacher.name, len(suite), teacher.ask))


def pseudo_answers(
    spec: TaskSpec, given: Given, answers: TeacherAnswers, train: NDArray[np.int64]
) -> Callable[[NDArray[np.int64]], Array]:
    """Return what looks up a teacher's answers to a task, as ``Learner.predict`` lays them out, by row numbers ``[n]``.

    Args:
        spec: The task.
        given: What of its answers they are made of.
        answers: Of the teacher.
        train: Training rows: features are standardised by them.
    """
    if given == "classes":
        assert answers.classes is not None, "its width is known"
        classes = answers.classes
        return lambda rows: np.asarray(classes[rows])
    if given == "features":
        assert answers.features is not None, "its width is known"
        features = answers.features
        sample = np.asarray(features[train[np.linspace(0, len(train) - 1, min(len(train), _BLOCK)).astype(np.int64)]], np.float64)
        mean, spread = sample.mean(axis=0), sample.std(axis=0)
        scale = np.where(spread > 1e-6 * max(float(spread.max(initial=0.0)), 1e-30), spread, np.inf)
        return lambda rows: np.asarray((features[rows] - mean) / scale, dtype=np.float32)
    outputs = answers.outputs[spec.name]

    def decoded(rows: NDArray[np.int64]) -> Array:
        import torch

        from graftwork.tasks.decode import decode_output

        return np.asarray(decode_output(spec, torch.from_numpy(np.array(outputs[rows]))).numpy())

    return decoded


def _pseudo_target(task: PseudoTask, answers: Sequence[TeacherAnswers], shares: Sequence[float], suite: Suite) -> Array:
    """Return what the teachers of a task say on average, as labels."""
    spec, train = task.spec, suite.splits["train"]
    asked = {number: pseudo_answers(spec, given, answers[number], train) for number, given in task.teachers.items()}
    weights = _weights(task.teachers, shares)
    target = missing_target(spec, len(suite))
    for start in range(0, len(suite), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(suite)))
        said = np.stack([weights[number] * ask(rows).astype(np.float64) for number, ask in asked.items()])
        target[rows] = _as_labels(spec, said.sum(axis=0))
    return target


def _weights(teachers: Mapping[int, Given], shares: Sequence[float]) -> dict[int, float]:
    total = sum(shares[number] for number in teachers)
    # Teachers of weight 0 alone: somebody has to answer.
    return {number: shares[number] / total if total > 0 else 1.0 / len(teachers) for number in teachers}


def _as_labels(spec: TaskSpec, answers: Array) -> Array:
    if spec.kind == "binary":
        return np.asarray(answers.reshape(len(answers)) >= 0.5, dtype=np.int64)
    if spec.kind in ("multiclass", "ordinal"):
        return np.asarray(answers.argmax(axis=1), dtype=np.int64)
    if spec.kind == "multilabel":
        return np.asarray(answers >= 0.5, dtype=np.float32)
    return np.asarray(answers, dtype=np.float32).reshape(len(answers), -1)


def _varies(target: Array) -> bool:
    return bool((target != target[:1]).any())
