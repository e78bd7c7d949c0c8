"""How graftwork reads each kind of file: the command or the function that meets a damaged one first."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from graftwork.cli.main import main
from graftwork.core.errors import GraftworkError

from .wholes import CACHED, SERVED, TARGETS, run_builder

__all__ = [
    "WouldTrainError",
    "load_adapter",
    "load_graph_folder",
    "look_at_result",
    "merge",
    "no_training",
    "open_pictures",
    "open_shards",
    "open_suite_file",
    "open_table",
    "predict",
    "predict_pictures",
    "predict_served",
    "read_cache",
    "read_cards",
    "read_plans",
    "resume",
    "resume_to_the_end",
    "run_main",
    "train_on",
    "training_goes_on",
    "validate_and_resume",
]


class WouldTrainError(GraftworkError):
    """The run would go on with a training: the files were good enough for that."""


def run_main(*words: str | Path) -> None:
    """Run the command line; its exit code may be anything but that of a bug, which ``--debug`` raises."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        main([str(word) for word in (*words, "--debug")])
    assert len(printed.getvalue()) < 60_000, f"printed {len(printed.getvalue()):,} characters: {printed.getvalue()[:300]}"


@contextlib.contextmanager
def no_training() -> Any:
    """Let unfinished jobs raise :class:`WouldTrainError`."""
    from graftwork.workflows.runs import pool
    from graftwork.workflows.runs.execution import execute
    from graftwork.workflows.runs.run_folder import RunFolder

    def only_finished(job: Any, folder: Any, control: Any) -> Any:
        if RunFolder(folder).result(job.id) is None:
            raise WouldTrainError(job.id)
        return execute(job, folder, control)

    # The report takes most of the time and says nothing about the files.
    with mock.patch.object(pool, "execute", only_finished), mock.patch("graftwork.reporting.report.write_report"):
        yield


def resume(folder: Path) -> None:
    """Go on with a run whose jobs are finished."""
    with no_training():
        run_main("fit", "--resume", folder, "--workers", "0", "--quiet")


def resume_to_the_end(folder: Path) -> None:
    """Resume where only ``result.json`` is missing: all jobs are read again."""
    with contextlib.suppress(IsADirectoryError):
        (folder / "result.json").unlink(missing_ok=True)
    resume(folder)


def validate_and_resume(folder: Path) -> None:
    """Check the folder, then go on."""
    with contextlib.suppress(GraftworkError):
        run_main("validate", folder)
    resume_to_the_end(folder)


def look_at_result(folder: Path) -> None:
    """Show the result in all ways, and predict."""

    from graftwork.workflows.load_run import load_run

    run = load_run(folder)
    for look in (run.summary, run.leaderboard, lambda: run.sentences, lambda: repr(run)):
        look()
    resume(folder)
    predict(folder)


def predict(folder: Path) -> None:
    """Predict rows with the run's model."""
    table = folder / "rows.csv"
    table.write_text("a,b,c,place,day\n0.5,1,-1,north,2024-02-01\n,,,,\n", encoding="utf-8")
    run_main("predict", folder, table, "--out", folder / "predicted.csv")


def open_table(name: str) -> Callable[[Path], None]:
    """Return what reads a table."""

    def read(folder: Path) -> None:
        from graftwork.data.reading.ingest import open_suite

        open_suite(folder / name, targets=TARGETS)

    return read


def open_suite_file(folder: Path) -> None:
    """Check and read ``suite.yaml``."""

    from graftwork.data.reading.ingest import open_suite

    with contextlib.suppress(GraftworkError):
        run_main("validate", folder / "suite.yaml")
    open_suite(folder / "suite.yaml")


def read_plans(folder: Path) -> None:
    """Check and read a file of plans."""

    from graftwork.workflows.portfolio import portfolio

    with contextlib.suppress(GraftworkError):
        run_main("validate", folder / "plans.toml")
    portfolio(("table",), 2, [str(folder / "plans.toml")])


def read_cards(folder: Path) -> None:
    """Check and read cards."""

    from graftwork.core.cards import read_card

    for slug in ("rep-mtl", "ties"):
        with contextlib.suppress(GraftworkError):
            run_main("validate", folder / f"{slug}.toml")
        read_card(folder / f"{slug}.toml")


def merge(folder: Path) -> None:
    """Merge two models."""
    run_main(
        "merge",
        "--base",
        folder / "base.safetensors",
        "--models",
        folder / "a.safetensors",
        folder / "b.safetensors",
        "--out",
        folder / "out.safetensors",
        "--quiet",
    )


def open_shards(folder: Path) -> None:
    """Read a model in several files."""

    from graftwork.core.tensor_files import open_tensors

    source = open_tensors(folder / "shards")
    assert all(np.asarray(source[name]).shape == source.shape(name) for name in source)


def load_adapter(folder: Path) -> None:
    """Read an adapter in PEFT's format."""

    from graftwork.methods.tuning.peft_folder import load_adapter

    load_adapter(folder / "adapter")


def read_cache(folder: Path) -> None:
    """Read an entry of the cache."""

    from graftwork.data.array_cache import cached_arrays

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cached_arrays(folder, "entry", lambda: CACHED)
    # A cache may cost time, never another answer.
    assert set(found) == set(CACHED), f"the arrays {sorted(found)}"
    assert all(np.array_equal(found[name], CACHED[name]) for name in CACHED), "other arrays than were computed"


def load_graph_folder(folder: Path) -> None:
    """Build the network of a run from its folder, with torch."""
    from graftwork.training.model_loading import load_model

    load_model(folder / "model")


_SERVED_ROWS = {
    "table": ("table.csv",),
    "text": ("text.csv",),
    "picture": ("picture.png", "--tasks", "colour"),  # the other task fills no table
    "controllable": ("picture.png", "--tasks", "colour"),
}


def predict_served(folder: Path) -> None:
    """Predict with small runs of all kinds; serve the controllable one."""
    from graftwork.serving.engine import Engine

    for kind in SERVED:
        rows, *more = _SERVED_ROWS[kind]
        run_main("predict", folder / kind, folder / rows, "--out", folder / f"{kind}-predicted.csv", "--threads", "1", *more)
    Engine(folder / "controllable", threads=1).close()


def open_pictures(folder: Path) -> None:
    """Read a folder of pictures, and a table that names them."""
    from graftwork.data.reading.ingest import open_suite

    with contextlib.suppress(GraftworkError):
        open_suite(folder / "labels.csv", targets="light,late", image_column="file")
    open_suite(folder / "pictures", labels=folder / "labels.csv", targets="light,late", image_size=8)


def predict_pictures(folder: Path) -> None:
    """Predict a folder of pictures."""
    run = folder / "run"
    run_builder.write_picture_run(run)
    run_main("predict", run, folder / "pictures", "--out", folder / "predicted.csv", "--threads", "1", "--tasks", "colour")


def train_on(folder: Path, stop_at: int | None = None) -> dict[str, Any]:
    """Go on with the one training of a folder, to step 6 or, if asked, until it is stopped."""
    from graftwork.core.records import Plan
    from graftwork.workflows.runs.control import JobControl
    from graftwork.workflows.runs.job import RunFacts
    from graftwork.workflows.runs.jobs.train import TrainJob
    from graftwork.workflows.runs.run_folder import RunFolder

    class Control(JobControl):
        def progress(self, step: int) -> None:
            self.stop = "keep" if step == stop_at else None
            JobControl.progress(self, step)

    control = Control()
    plan = Plan.from_json(json.loads((folder / "plan.json").read_bytes()))
    facts = RunFacts(cache=str(folder / "cache"))
    return TrainJob(id="final-x", plan=plan, facts=facts, until=6, max_steps=6).run(RunFolder(folder), control)


def training_goes_on(folder: Path) -> None:
    """Go on from a checkpoint; whatever is damaged, the numbers are those of a training that nobody stopped."""
    found, wanted = train_on(folder)["validation"], json.loads((folder / "answer.json").read_bytes())
    assert json.loads(json.dumps(found)) == wanted, f"other numbers than without the damage: {found} in place of {wanted}"
