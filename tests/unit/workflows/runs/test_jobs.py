"""Jobs are typed records: what JSON says comes back equal, what is wrong in it is said, and a new kind is a new module."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError, StorageError
from graftwork.core.records import Plan
from graftwork.workflows.runs import jobs as package
from graftwork.workflows.runs.control import JobControl
from graftwork.workflows.runs.execution import answer, execute, refusal
from graftwork.workflows.runs.job import Job, RunFacts, folder_name
from graftwork.workflows.runs.jobs import job_class, job_kinds, read_job
from graftwork.workflows.runs.jobs.export import ExportJob
from graftwork.workflows.runs.jobs.kept import KeptJob
from graftwork.workflows.runs.jobs.teach import TeachJob
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.jobs.tune_cost import TuneCostJob
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.schedule import Schedule

PLAN = Plan(name="a plan/1", title="", role="joint", modalities=("table",))
FACTS = RunFacts(cache="/cache", backbone="b", root_seed=3, overrides={"learning_rate": 0.1}, checkpoint_seconds=1.5)
MAKER = JobMaker(facts=FACTS, plans={PLAN.name: PLAN}, schedule=Schedule(horizons={PLAN.name: 16}, seeds=(0, 1), control_seeds=1))
ALL = (
    MAKER.estimate(PLAN),
    MAKER.grouping(PLAN, 7),
    MAKER.rung(PLAN.name, 1),
    MAKER.final(PLAN.name, 1),
    MAKER.control(PLAN.name, "size", 2, 0),
    MAKER.affinity(PLAN.name),
    MAKER.export(MAKER.final(PLAN.name, 0), "model.new"),
    MAKER.whole(PLAN.name, 1, 5),
    MAKER.assemble(PLAN, [MAKER.whole(PLAN.name, part, 2) for part in range(2)], "model.new"),
    MAKER.curve(MAKER.final(PLAN.name, 1), 0, 0.125),
    MAKER.importance(PLAN, [(MAKER.final(PLAN.name, 0), {"size": 1.0})], 2.5),
    TuneCostJob(id="cost-a_plan_1", phase="costs", plan=PLAN, facts=FACTS),
    TeachJob(id="teacher-1", phase="teachers", plan=PLAN, facts=FACTS, teacher="minilm", taps=("blocks.1",)),
    KeptJob(id="kept-a_plan_1", phase="kept", plan=PLAN, facts=FACTS, source="final-a_plan_1-s0", answers=("cache/entry",)),
)


@pytest.mark.parametrize("job", ALL, ids=lambda job: job.id)
def test_a_job_comes_back_from_json_as_it_was(job: Job) -> None:
    assert read_job(json.loads(json.dumps(job.to_json()))) == job


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RefusedJob(Job):
    """The system refuses a file."""

    number: int = 0
    where: str = ""

    def run(self, run: Any, control: JobControl) -> dict[str, Any]:
        raise OSError(self.number, os.strerror(self.number), self.where)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk is full while working in"),
        (errno.EIO, r"The system refused a file \(Input/output error\) while working in"),
        (errno.EMFILE, r"The system refused a file \(Too many open files\)"),
        (errno.EACCES, r"The system refused a file \(Permission denied\)"),
    ],
)
def test_what_all_jobs_would_meet_ends_the_run_and_costs_no_plan(tmp_path: Path, number: int, words: str) -> None:
    job = RefusedJob(id="a", plan=PLAN, facts=FACTS, number=number, where=str(tmp_path / "jobs" / "a" / "x"))
    with pytest.raises(StorageError, match=words):
        execute(job, tmp_path)
    assert not (tmp_path / "jobs" / "a" / "result.json").exists(), "a resume tries again"


def test_a_file_elsewhere_that_one_plan_may_not_read_costs_that_plan(tmp_path: Path) -> None:
    found = execute(RefusedJob(id="a", plan=PLAN, facts=FACTS, number=errno.EACCES, where="/elsewhere"), tmp_path)
    assert (found["status"], found["error"]) == ("failed", "PermissionError")


def test_all_kinds_are_made_and_each_module_is_called_like_its_kind() -> None:
    assert {job.kind for job in ALL} == set(job_kinds())
    assert set(job_kinds()) == {
        "affinity",
        "assemble",
        "curve",
        "estimate",
        "export",
        "grouping",
        "importance",
        "kept",
        "teach",
        "train",
        "tune_cost",
    }
    assert all(job_class(kind).kind == kind for kind in job_kinds())


def test_finals_of_large_suites_see_all_rows_and_begin_anew() -> None:
    few = dataclasses.replace(MAKER, facts=dataclasses.replace(FACTS, race_rows=500))
    assert few.rung(PLAN.name, 0).rows == few.affinity(PLAN.name).rows == 500
    assert MAKER.rung(PLAN.name, 0).rows == 0
    final = few.final(PLAN.name, 0)
    assert (final.rows, final.continues) == (0, None)
    assert MAKER.final(PLAN.name, 0).continues == MAKER.rung_id(PLAN.name, 1)
    assert few.whole(PLAN.name, 0, 1).rows == 0
    first = few.fallback(PLAN, steps=60, rows=200, seconds=2.0)
    assert (first.rows, first.until, first.max_steps) == (200, 60, 60)
    exported = few.export(first, "model")
    assert (exported.rows, exported.max_steps) == (200, 60), "an export rebuilds the learner of the training"
    assert few.attempt(3, PLAN, 99, 1).id == "attempt3-a_plan_1-s1"


def test_names_of_jobs_stay_what_they_were_in_older_runs() -> None:
    assert [job.id for job in ALL[:10]] == [
        "estimate-a_plan_1",
        "grouping-a_plan_1",
        "rung2-a_plan_1",
        "final-a_plan_1-s1",
        "control-a_plan_1-t2-s0",
        "affinity-a_plan_1",
        "export-a_plan_1",
        "whole-a_plan_1-2of5",
        "export-a_plan_1",
        "curve0-final-a_plan_1-s1",
    ]
    assert ALL[10].id.startswith("importance-a_plan_1-")
    other = MAKER.importance(PLAN, [(MAKER.final(PLAN.name, 1), {"size": 1.0})], 2.5)
    assert other.id != ALL[10].id, "of other trainings it is another job"
    rung, final, export = ALL[2], ALL[3], ALL[6]
    assert (rung.until, rung.max_steps, rung.reads) == (8, 16, ("jobs/rung2-a_plan_1", "jobs/rung1-a_plan_1"))
    assert final.reads == final.writes == ("jobs/final-a_plan_1-s1",), "only seed 0 goes on from a rung"
    assert export.reads == ("jobs/export-a_plan_1", "jobs/final-a_plan_1-s0")
    assert export.writes == ("jobs/export-a_plan_1", "model.new")


@given(st.text(max_size=30))
def test_what_a_job_is_named_after_becomes_one_folder(text: str) -> None:
    name = folder_name(f"final-{text}-s0")
    assert Path("jobs", name).parts == ("jobs", name)
    assert TrainJob(id=name, plan=PLAN, facts=FACTS).id == name


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kind": "trian"}, ConfigError, r"There is no job of kind 'trian'\. Did you mean 'train'\? Known kinds: affinity"),
        ({"kind": 3}, ConfigError, r"There is no job of kind 3\."),
        ({"untill": 3}, FileFormatError, r"A job of kind 'train' cannot be read: unknown key 'untill'\. Did you mean 'until'\?"),
        ({"until": "3"}, FileFormatError, r"until: must be an integer; got '3'"),
        ({"until": True}, FileFormatError, r"until: must be an integer; got True"),
        ({"predict": "test"}, FileFormatError, r"predict: must be a list of which each is a text; got 'test'"),
        ({"facts": {"cash": "x"}}, FileFormatError, r"unknown key 'cash'\. Did you mean 'cache'\?.*missing key 'cache'"),
        ({"facts": 3}, FileFormatError, r"The facts of a run is an object of names and values; got 3"),
        ({"plan": {"name": "x"}}, FileFormatError, r"plan: Plan 'x' cannot be read"),
        ({"id": "../../home"}, ConfigError, r"id of a job names a folder: .*; got '\.\./\.\./home'"),
        ({"id": ".."}, ConfigError, r"id of a job names a folder"),
        ({"continues": "a/b"}, ConfigError, r"continues of a job names a folder"),
    ],
)
def test_what_is_wrong_in_json_is_said(changes: dict[str, Any], error: type[GraftworkError], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        read_job({**MAKER.final(PLAN.name, 1).to_json(), **changes})


def test_what_is_missing_or_no_object_is_said() -> None:
    with pytest.raises(FileFormatError, match="A job is an object with a kind; got 3"):
        read_job(3)
    with pytest.raises(FileFormatError, match="missing key 'plan'; missing key 'facts'; missing key 'source'"):
        read_job({"kind": "export", "id": "x", "folder": "model"})
    with pytest.raises(ConfigError, match="folder of a job names a folder"):
        ExportJob(id="x", plan=PLAN, facts=FACTS, source="final", folder="../model")


def test_a_refusal_is_a_failed_answer_whatever_came() -> None:
    for value in ({"id": "x", "kind": "dance"}, {}, None, [1]):
        with pytest.raises(GraftworkError) as caught:
            read_job(value)
        found = refusal(value, caught.value)
        assert (found["type"], found["result"]["status"]) == ("done", "failed")
        assert found["result"]["message"] == str(caught.value)


NEW_KIND = """
from dataclasses import dataclass
from typing import ClassVar
from graftwork.workflows.runs.job import Job

@dataclass(frozen=True, kw_only=True, slots=True)
class CountJob(Job):
    kind: ClassVar[str] = "count_letters"
    text: str

    def run(self, run, control):
        return {"status": "ok", "letters": len(self.text)}

JOB = CountJob
"""


def test_a_new_kind_is_a_module_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "count_letters.py").write_text(NEW_KIND, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "kinds")])
    assert "count_letters" in job_kinds()
    job = read_job({"kind": "count_letters", "id": "c", "plan": PLAN.to_json(), "facts": FACTS.to_json(), "text": "four"})
    assert answer(job, tmp_path, JobControl())["result"]["letters"] == 4
    assert execute(job, tmp_path)["letters"] == 4, "finished jobs answer from their folder"
    assert MAKER.make(job_class("count_letters"), "again", PLAN.name, text="abc").max_steps == 16


def test_finals_of_a_part_of_the_rows_go_on_from_the_rung_if_it_saw_as_many() -> None:
    few = dataclasses.replace(MAKER, facts=dataclasses.replace(FACTS, race_rows=500))
    name = next(iter(MAKER.plans))
    for rows, goes_on in ((500, True), (2000, False), (0, False)):
        maker = dataclasses.replace(few, schedule=dataclasses.replace(MAKER.schedule, final_rows=rows))
        final = maker.final(name, 0)
        assert final.rows == rows
        assert (final.continues is not None) is goes_on
        assert maker.control(name, "a", 0, 0).rows == rows, "compared with finals"
    assert few.attempt(1, MAKER.plans[name], 10, 0, 800).rows == 800
