"""The comparison itself, with small real learners: one budget, failures as rows, stops and resumes, corrected significance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.records import Plan
from graftwork.evaluation.paired import holm
from graftwork.reporting.compare_report import compare_sections
from graftwork.reporting.compare_view import CompareView
from graftwork.workflows.compare import CompareRun, compare, load_comparison
from graftwork.workflows.compare.session import CompareSession
from graftwork.workflows.fit import RunStopped, fit

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")


def plans(*more: Plan) -> list[str | Plan]:
    return ["none", linear_plan("alone", "reference", rate=0.03), linear_plan("fast", "joint", rate=0.3), *more]


def run(out: Path, *more: Plan, **settings: Any) -> CompareRun:
    return compare(
        linear_suite(600), plans=plans(*more), out=out, **{"steps": 16, "seeds": 3, "workers": 0, "backbone": "none", **settings}
    )


def numbers(found: CompareRun) -> Any:
    """Everything but dates and times."""
    kept = ("verdict", "leaderboard", "comparisons", "overall", "pareto", "failures", "budget")
    return json.loads(json.dumps({key: found.result[key] for key in kept}))


def test_a_comparison_from_data_to_leaderboard(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    found = run(tmp_path / "run", linear_plan("slow", "joint", rate=0.001), on_event=events.append)
    assert [row["plan"] for row in found.rows] == ["fast", "alone", "slow"]
    assert [row["rank"] for row in found.rows] == [1, 2, 3]
    assert [row["label"] for row in found.rows] == ["better", None, "worse"]
    assert found.rows[1]["delta_m"]["value"] == 0
    assert all(row["seeds"] == [0, 1, 2] and row["steps"] == 16 for row in found.rows)
    assert found.best == "fast"
    assert found.sentences[0].startswith("`fast` leads with +")
    assert "`fast` is better; `slow` is worse (paired by seed and test row, Holm's correction for 2 plans)" in found.sentences[1]
    assert found.result["budget"]["sentence"] == "Budget: 16 steps for each training, 3 seeds of every plan."
    assert load_comparison(tmp_path / "run").result == found.result
    page = found.report.read_text(encoding="utf-8")
    assert "Plans side by side, one budget" in page
    assert {"suite", "budget", "phase", "job-start", "job-end", "done"} <= {event["event"] for event in events}
    assert "fast" in found.summary(80)
    assert max(map(len, found.summary(60).splitlines())) <= 60


def test_p_values_are_corrected_for_plans_and_tasks(tmp_path: Path) -> None:
    others = {rate: linear_plan(f"rate{rate}", "joint", rate=rate) for rate in (0.3, 0.05, 0.031)}
    base = ["none", linear_plan("alone", "reference", rate=0.03)]

    def judged(name: str, *more: Plan) -> CompareRun:
        fields = {"steps": 16, "seeds": 3, "workers": 0, "backbone": "none"}
        return compare(linear_suite(600), plans=[*base, *more], out=tmp_path / name, **fields)

    alone = [judged(f"only{rate}", plan).result for rate, plan in others.items()]
    together = judged("together", *others.values()).result
    raw = [row["p_value"] for result in alone for row in result["overall"]]  # one plan: nothing to correct for
    assert [row["p_value"] for row in together["overall"]] == pytest.approx(holm(raw).tolist())
    assert len(together["comparisons"]) == 6
    before = {(row["plan"], row["task"]): row["p_value"] for result in alone for row in result["comparisons"]}
    after = {(row["plan"], row["task"]): row["p_value"] for row in together["comparisons"]}
    assert all(after[key] >= value for key, value in before.items())
    assert after != before


@pytest.mark.parametrize(("fail", "status"), [("nan", "diverged"), ("crash", "failed")])
def test_a_plan_that_fails_is_a_row_with_the_reason(tmp_path: Path, fail: str, status: str) -> None:
    found = run(tmp_path / "run", linear_plan("bad", "joint", fail=fail, fail_at=7))
    last = found.rows[-1]
    assert (last["plan"], last["rank"], last["status"]) == ("bad", None, status)
    assert ("NaN" if fail == "nan" else "RuntimeError: boom") in last["message"]
    assert found.sentences[-1] == "Without a score: `bad`; the table says why."
    assert last["message"].splitlines()[0] in found.report.read_text(encoding="utf-8")
    assert "boom" in found.summary() or "NaN" in found.summary()


def test_separate_models_that_fail_leave_no_common_scale_but_scores(tmp_path: Path) -> None:
    broken = ["none", linear_plan("alone", "reference", fail="crash", fail_at=1), linear_plan("fast", "joint", rate=0.3)]
    found = compare(linear_suite(), plans=broken, out=tmp_path / "run", steps=8, seeds=2, workers=0, backbone="none")
    assert found.sentences[0].startswith("The separate models did not finish")
    assert found.result["plans"]["fast"]["test"]["first"]
    assert found.rows[0]["delta_m"] is None
    assert found.report.exists()


def test_nothing_that_ends_well_is_an_error_that_says_why(tmp_path: Path) -> None:
    broken = ["none", linear_plan("alone", "reference", fail="crash", fail_at=1)]
    with pytest.raises(GraftworkError, match=r"No training ended well(.|\n)*alone, seed 0: RuntimeError: boom"):
        compare(linear_suite(), plans=broken, out=tmp_path / "run", steps=8, seeds=1, workers=0, backbone="none")


def test_processes_give_the_same_numbers_as_one_process(tmp_path: Path) -> None:
    assert numbers(run(tmp_path / "a")) == numbers(run(tmp_path / "b", workers=2))


def test_a_worker_that_dies_costs_only_its_plan(tmp_path: Path) -> None:
    found = run(tmp_path / "run", linear_plan("deadly", "joint", fail="die", fail_at=7), workers=2, seeds=1)
    assert found.rows[-1]["plan"] == "deadly"
    assert "Its process ended with exit code 9, 2 times" in found.rows[-1]["message"]


@pytest.mark.parametrize("number", [1, 4])
def test_stopping_keeps_finished_work_and_resuming_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sessions: list[CompareSession] = []
    original = CompareSession.go
    ended: list[str] = []

    def go(session: CompareSession) -> Any:
        sessions.append(session)
        return original(session)

    def press(event: dict[str, Any]) -> None:
        if event["event"] == "job-end":
            ended.append(event["job"])
            if len(ended) == number:
                sessions[-1].stop.press()

    with monkeypatch.context() as patch:
        patch.setattr(CompareSession, "go", go)
        with pytest.raises(RunStopped, match="everything finished is kept. Go on with: graftwork compare --resume"):
            run(tmp_path / "run", on_event=press)
    before = {file: file.read_bytes() for file in (tmp_path / "run" / "jobs").glob("*/result.json")}
    assert len(before) == number
    with pytest.raises(FileFormatError, match="Finish it with: graftwork compare --resume"):
        load_comparison(tmp_path / "run")
    with pytest.raises(ConfigError, match="begun by graftwork compare. Go on with: graftwork compare --resume"):
        fit(out=tmp_path / "run", resume=True)
    resumed = compare(out=tmp_path / "run", resume=True)
    assert {file: file.read_bytes() for file in before} == before
    assert numbers(resumed) == numbers(run(tmp_path / "other"))


def test_a_finished_comparison_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path / "run")
    events: list[dict[str, Any]] = []
    again = compare(out=tmp_path / "run", resume=True, on_event=events.append)
    assert again.result == first.result
    assert events == []
    with pytest.raises(ConfigError, match="already holds a run"):
        run(tmp_path / "run")
    with pytest.raises(ConfigError, match="begun with other settings"):
        compare(out=tmp_path / "run", resume=True, steps=99)


def test_the_same_seconds_for_every_training(tmp_path: Path) -> None:
    dear = linear_plan("dear", "joint", rate=0.3, delay=0.1)
    found = run(tmp_path / "run", dear, steps=None, time_limit=2.5, seeds=1)
    # 25 steps of 0.1 s at most; with what a busy machine adds to each, 8 at least.
    steps = {row["plan"]: row["steps"] for row in found.rows}
    assert 8 <= steps["dear"] <= 25
    assert steps["fast"] > 10 * steps["dear"]
    assert "2.5 s for each training" in found.result["budget"]["sentence"]
    hopeless = linear_plan("hopeless", "joint", delay=0.2)
    other = run(tmp_path / "other", hopeless, steps=None, time_limit=0.5, seeds=1)
    last = other.rows[-1]
    assert (last["plan"], last["status"]) == ("hopeless", "left out")
    assert "steps fit into 0.5 s" in last["message"]


def test_wrong_settings_leave_no_folder_behind(tmp_path: Path) -> None:
    for settings, message in (
        ({"steps": 8, "time_limit": "5s"}, "not both"),
        ({"engine": "slurm"}, "engine must be 'local' or 'ray'"),
        ({"max_groups": 0}, "max-groups must be at least 1; got 0"),
        ({"seeds": 0}, "seeds must be between 1 and 100"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(tmp_path / "run", **settings)
        assert not (tmp_path / "run").exists()


def test_the_report_has_its_sections(tmp_path: Path) -> None:
    found = run(tmp_path / "run", linear_plan("bad", "joint", fail="nan"))
    sections = {section.key: section for section in compare_sections(CompareView(found.result))}
    assert list(sections) == ["leaderboard", "gain", "costs", "data"]
    assert sections["leaderboard"].notes == ("`bad`: The loss became NaN at step 3.",)
    assert [part.name for part in sections["costs"].parts if part and hasattr(part, "summary")] == ["pareto-parameters_stored"]
