"""Train a plan up to a step, judge it on validation rows, and, for finals and controls, predict the test rows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from graftwork.data.suite import Suite
from graftwork.workflows.runs.control import JobControl, PauseTraining
from graftwork.workflows.runs.job import Job, check_folder_name
from graftwork.workflows.runs.job_checkpoints import resumed_learner, save_job_checkpoint
from graftwork.workflows.runs.job_data import control_suite, score_rows, write_predictions
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.warm import keep_warm

if TYPE_CHECKING:
    from graftwork.interfaces.learner import Learner

__all__ = ["JOB", "TrainJob", "train_in_slices"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob(Job):
    """A rung, a final or a control."""

    kind: ClassVar[str] = "train"

    continues: str | None = None
    """Job whose checkpoint is the start; None starts from nothing."""
    keep_task: str | None = None
    """Control: the training targets of all other tasks are shuffled."""
    predict: tuple[str, ...] = ()
    """Splits whose predictions are stored."""
    cut: bool = False
    """Whether it judges a training that the end of the time cut."""
    seconds: float = 0.0
    """Seconds of training after which it is judged as it is; 0: no limit."""

    def __post_init__(self) -> None:
        Job.__post_init__(self)
        if self.continues is not None:
            check_folder_name("continues", self.continues)

    @property
    def kept_task(self) -> str | None:
        """The task whose companions are shuffled; None if this is no control."""
        return self.keep_task

    @property
    def goes_on_from(self) -> str | None:
        """Job whose training it goes on with."""
        return self.continues

    @property
    def reads(self) -> tuple[str, ...]:
        """Its own folder and that of the job before it."""
        return (f"jobs/{self.id}", *((f"jobs/{self.continues}",) if self.continues is not None else ()))

    def suite(self, run: RunFolder) -> Suite:
        """Return the suite, with shuffled companions for a control."""
        suite = Job.suite(self, run)
        return suite if self.keep_task is None else control_suite(suite, self.keep_task, self.facts.root_seed, self.seed)

    def run(self, run: RunFolder, control: JobControl) -> dict[str, Any]:
        """Train, judge, predict; a half-trained job goes on from its checkpoint."""
        folder = run.job(self.id)
        suite = self.suite(run)
        # Its own checkpoint is further than that of the job before.
        before = [run.job(self.continues)] if self.continues is not None else []
        learner = resumed_learner(lambda: self.learner(suite), folder, *before)
        began = learner.step
        control.checkpoint_seconds = self.facts.checkpoint_seconds
        cut = train_in_slices(learner, self.until, folder, control, seconds=self.seconds)
        # Cut by the deadline, it goes on: what was learned is judged.
        if cut and control.stop == "keep":
            save_job_checkpoint(learner, folder)
            return {"status": "stopped", "steps": learner.step}
        # What is fitted in one go is whole, whenever the end of the time came.
        cut = (cut or self.cut) and not (self.plan.fitted_at_once and learner.step > 0)
        # From here on the learner does not change: what is scored, stored and later exported is one state.
        scores, _ = score_rows(learner, suite, suite.splits["val"])
        wanted = [split for split in self.predict if len(suite.splits.get(split, ()))]
        if wanted:
            predictions = {split: learner.predict(suite.splits[split]) for split in wanted}
            write_predictions(folder / "predictions.safetensors", predictions, suite)
        # Before the result, which the caller writes: a result always has its checkpoint.
        save_job_checkpoint(learner, folder)
        keep_warm(learner, folder)
        return {
            "status": "ok",
            "plan": self.plan.name,
            "seed": self.seed,
            "steps": learner.step,
            "began": began,
            "horizon": self.max_steps,
            "most_rows": self.rows,
            "cut": cut,
            "still_improving": cut or learner.still_improving,
            "validation": scores,
            "ledger": learner.ledger().to_json(),
            # Of what is judged: plans that are put together leave out what no task of theirs needs.
            "own_costs": {task: costs.to_json() for task, costs in learner.own_costs().items()} if "val" in self.predict else {},
        }


def train_in_slices(learner: Learner, until: int, folder: Path, control: JobControl, *, seconds: float = 0.0) -> bool:
    """Train with checkpoints in between; return whether it was stopped before the end.

    Args:
        learner: What is trained.
        until: Step to stop at.
        folder: Of the checkpoints.
        control: Says when to stop.
        seconds: Seconds after which it stops as well, and that it is granted if it is asked to finish; 0: no limit.
    """
    done = False  # also with no step left: a stop may have come between the last step and its validation
    end = time.monotonic() + seconds if seconds else math.inf

    def progress(step: int) -> None:
        if time.monotonic() > end:
            raise PauseTraining
        control.progress(step)

    if seconds and control.stop == "finish":
        # A model is wanted all the same: whoever asks waits for so long.
        control.stop = None
    while not done and control.stop is None and time.monotonic() < end:
        control.begin_slice()
        try:
            learner.train(until, on_progress=progress)
            done = True
        except PauseTraining:
            # With a stop the caller decides what to keep; without one a checkpoint was due.
            if control.stop is None and time.monotonic() < end:
                save_job_checkpoint(learner, folder)
    return not done


JOB = TrainJob
