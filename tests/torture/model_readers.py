"""How graftwork reads folders of models that a user names, YAML files of mergekit, and files of teachers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.core.errors import GraftworkError

from .model_wholes import TEACHER_TARGETS, TUNED
from .readers import no_training, run_main

__all__ = ["ask_teachers", "ask_timm", "ask_transformers", "merge_yaml", "resume_tuned", "serve_tuned"]


def serve_tuned(folder: Path) -> None:
    """Serve tuned models of one backbone, and let each answer; each is loaded alone, too."""
    from graftwork.serving.delta_engine import DeltaEngine
    from graftwork.serving.delta_folders import find_delta_folders
    from graftwork.training.tuned_model import load_tuned

    for name in TUNED:
        with contextlib.suppress(GraftworkError):
            load_tuned(folder / name / "delta")
    engine = DeltaEngine(find_delta_folders([folder / name for name in TUNED]), threads=1)
    try:
        engine.warm_up()
    finally:
        engine.close()


def resume_tuned(folder: Path) -> None:
    """Check and go on with a tuned run that is finished."""
    run = folder / "one"
    with contextlib.suppress(GraftworkError):
        run_main("validate", run)
    with no_training():
        run_main("tune", "--resume", run, "--workers", "0", "--quiet")


def _each(calls: Iterable[Callable[[], object]]) -> None:
    """Call them all; the first error that was meant is raised in the end."""
    first: GraftworkError | None = None
    for call in calls:
        try:
            call()
        except GraftworkError as error:
            first = first or error
    if first is not None:
        raise first


def _ask(name: Path, suite: Any) -> None:
    from graftwork.workflows.teachers.asking import open_teacher

    answers = open_teacher(str(name), suite).ask(np.arange(4))
    assert all(len(array) == 4 for array in answers.values()), "another number of rows"


def ask_transformers(folder: Path) -> None:
    """Take a folder of transformers as a teacher of texts."""
    from graftwork.data.reading.ingest import open_suite

    _ask(folder / "bert", open_suite(folder / "texts.csv", targets="late", text="body"))


def ask_timm(folder: Path) -> None:
    """Take a folder of timm as a teacher of pictures."""
    from graftwork.data.reading.ingest import open_suite

    suite = open_suite(folder / "pictures", labels=folder / "labels.csv", targets="colour,light", image_size=16)
    _ask(folder / "resnet", suite)


def merge_yaml(folder: Path) -> None:
    """Check and carry out YAML files of mergekit."""
    names = ("merge", "stack", "stages")
    words = (("merge", folder / f"{name}.yml", "--out", folder / f"out-{name}", "--quiet") for name in names)
    _each(partial(run_main, *given) for given in words)


def ask_teachers(folder: Path) -> None:
    """Read what teachers say in files of all forms."""
    from graftwork.data.reading.ingest import open_suite

    suite = open_suite(folder / "table.csv", targets=TEACHER_TARGETS)
    _each(partial(_ask, path, suite) for path in sorted(folder.glob("said.*")))
