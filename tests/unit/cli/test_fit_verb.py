"""``graftwork fit`` and ``validate``: what words become which call, and what is shown."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from graftwork.cli import fit as verb
from graftwork.cli import main as cli
from graftwork.cli.common import VerbParser
from graftwork.cli.run_flags import run_folder_of
from graftwork.core.errors import ConfigError
from graftwork.workflows.fit.fit_run import FitRun
from graftwork.workflows.runs.display import PlainDisplay, QuietDisplay, make_display
from graftwork.workflows.runs.progress import Progress
from graftwork.workflows.runs.settings import FitSettings


def parse(*words: str) -> Any:
    parser = VerbParser(prog="graftwork fit")
    verb.add_arguments(parser)
    return parser.parse_args(list(words))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Record what ``fit`` is called with."""
    found: list[tuple[Any, dict[str, Any]]] = []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    def fake(source: Any, **settings: Any) -> FitRun:
        found.append((source, settings))
        verdict = {"choice": "a", "sentences": ["Use `a`."], "warnings": [], "strength": "tentative"}
        return FitRun(tmp_path, {"verdict": verdict})

    monkeypatch.setattr("graftwork.workflows.fit.fit", fake)
    return found


def test_words_become_settings(calls: list[tuple[Any, dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    words = "fit t.csv --targets a,b --task-kind stars=regression --group user --time-limit 6m --steps 50 --seeds 2 --plans all"
    words += " --backbone none --max-params 5M --max-latency 20ms --max-memory 2GB --workers 3 --set learning_rate=0.01 --out x --quiet"
    assert cli.main(words.split()) == 0
    source, settings = calls[0]
    assert source == "t.csv"
    expected = {
        "targets": "a,b",
        "task_kinds": {"stars": "regression"},
        "group": "user",
        "time_limit": "6m",
        "steps": 50,
        "seeds": 2,
    }
    expected |= {"plans": "all", "backbone": "none", "max_params": "5M", "max_latency": "20ms", "max_memory": "2GB", "workers": 3}
    expected |= {"overrides": {"learning_rate": 0.01}, "out": "x", "resume": False, "dry_run": False}
    assert {key: settings[key] for key in expected} == expected
    assert capsys.readouterr().out.startswith("Use `a`.")


def test_a_run_without_a_model_ends_with_an_error(
    calls: list[tuple[Any, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model" / "config.json").unlink()
    assert cli.main(["fit", "t.csv", "--quiet"]) == 1
    assert f"graftwork fit --resume {tmp_path}" in capsys.readouterr().err


def test_weights_tolerance_and_preference_become_settings(calls: list[tuple[Any, dict[str, Any]]]) -> None:
    words = "fit t.csv --weight sold=2 --weight price=0.5 --tolerance 2% --prefer cost --quiet"
    assert cli.main(words.split()) == 0
    settings = calls[0][1]
    given = FitSettings.of_user("t.csv", **{key: settings[key] for key in ("weights", "tolerance", "prefer")})
    assert (given.weights, given.tolerance, given.prefer) == ({"sold": 2.0, "price": 0.5}, 2.0, "cost")
    assert FitSettings.from_json(given.to_json()) == given
    plain = FitSettings.of_user("t.csv")
    assert (plain.weights, plain.tolerance, plain.prefer) == ({}, 1.0, "score")


def test_what_cannot_weigh_or_be_tolerated_is_named() -> None:
    with pytest.raises(ConfigError, match="The weight of 'sold' is a number, as in 2 or 0.5; got 'much'"):
        FitSettings.of_user("t.csv", weights={"sold": "much"})
    with pytest.raises(ConfigError) as caught:
        FitSettings.of_user("t.csv", weights={"sold": 0}, tolerance=-1, prefer="speed")
    text = str(caught.value)
    for words in ("weights of tasks must be above 0; got sold=0.0", "tolerance must be between 0 and 100", "one of score, cost"):
        assert words in text


def test_no_source_is_the_demo_and_json_prints_the_verdict(
    calls: list[tuple[Any, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fit", "--json"]) == 0
    assert calls[0][0] is None
    assert json.loads(capsys.readouterr().out)["choice"] == "a"


def test_what_first_models_are_for_and_methods_that_do_not_fit_are_said() -> None:
    progress = Progress()
    first = {"event": "phase", "phase": "first models", "jobs": 2, "plans": ["constant", "linear"]}
    assert progress.handle(first) == ["quick models first, so that there is one in any case: constant, linear"]
    costs = {"event": "phase", "phase": "costs", "jobs": 1, "plans": ["bn-only"]}
    assert progress.handle(costs) == ["measuring the costs of 1 method: bn-only"]
    progress.handle(
        {"event": "job-start", "job": "cost-bn-only", "phase": "costs", "plan": "bn-only", "seed": 0, "task": None, "until": 1}
    )
    end = {
        "event": "job-end",
        "job": "cost-bn-only",
        "status": "failed",
        "message": "There is no BatchNorm.\nMore.",
        "seconds": 1.0,
    }
    assert progress.handle(end) == ["  bn-only: not possible: There is no BatchNorm."]


def test_a_dry_run_says_how_to_go_on(calls: list[tuple[Any, dict[str, Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "t.csv", "--dry-run", "--quiet"]) == 0
    assert calls[0][1]["dry_run"] is True
    assert "graftwork fit --resume" in capsys.readouterr().out


@pytest.mark.usefixtures("calls")
def test_a_dry_run_gives_estimates_and_schedule_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"estimates": {"a": {"seconds": 2.0}}, "schedule": {"seconds": 9.0}, "state": "scheduled"}
    (tmp_path / "run.json").write_text(json.dumps(state))
    assert cli.main(["fit", "t.csv", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"folder": str(tmp_path), "estimates": state["estimates"], "schedule": state["schedule"]}


def begun(folder: Path, state: str = "scheduled") -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"state": state}))
    return folder


def test_which_run_resume_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"There is no run in runs/ to resume"):
        run_folder_of(parse("--resume"), "fit")
    begun(Path("runs/done"), "done")
    begun(Path("runs/open"))
    begun(Path("elsewhere"))
    Path("t.csv").write_text("a\n1\n")
    assert run_folder_of(parse("--resume"), "fit") == (None, "runs/open")
    assert run_folder_of(parse("--resume", "elsewhere"), "fit") == (None, "elsewhere")
    assert run_folder_of(parse("t.csv", "--out", "new", "--resume"), "fit") == ("t.csv", "new")
    assert run_folder_of(parse("--out", "new", "--resume", "t.csv"), "fit") == ("t.csv", "new")
    assert run_folder_of(parse("t.csv", "--out", "new"), "fit") == ("t.csv", "new")
    with pytest.raises(ConfigError, match="There is no run to resume in nowhere"):
        run_folder_of(parse("--resume", "nowhere"), "fit")
    assert run_folder_of(parse("t.csv", "--out", "elsewhere", "--resume", "./elsewhere"), "fit") == ("t.csv", "./elsewhere")
    for source in ((), ("t.csv",)):
        with pytest.raises(ConfigError, match="--resume names the run folder elsewhere and --out another one, new"):
            run_folder_of(parse(*source, "--out", "new", "--resume", "elsewhere"), "fit")
    with pytest.raises(ConfigError, match="--resume names the run folder nowhere and --out another one, new"):
        run_folder_of(parse("t.csv", "--out", "new", "--resume", "nowhere"), "fit")


@pytest.mark.parametrize("content", ["[1, 2]", "{", "7"])
def test_a_damaged_run_keeps_no_other_from_being_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    begun(Path("runs/open"))
    (begun(Path("runs/bad")) / "run.json").write_text(content)
    assert run_folder_of(parse("--resume"), "fit") == (None, "runs/open")
    assert "note: runs/bad is passed over: runs/bad/run.json" in capsys.readouterr().err.replace("\\", "/")


EVENTS: list[dict[str, Any]] = [
    {"event": "suite", "name": "s", "modality": "table", "rows": 9, "splits": {"train": 9}, "notes": ["few rows"]}
    | {"tasks": [{"name": "y", "kind": "multiclass", "size": 3, "classes": ["a", "b", "c"]}]},
    {"event": "phase", "phase": "estimate", "jobs": 2, "plans": ["a", "b"]},
    {
        "event": "estimate",
        "plan": "a",
        "kept": True,
        "reason": "",
        "parameters": 1000,
        "peak_rss_bytes": 0,
        "seconds_per_step": 0.01,
    }
    | {"horizon": 40, "seconds": 4.0},
    {"event": "estimate", "plan": "b", "kept": False, "reason": "too slow"},
    {"event": "estimate", "plan": "c", "kept": True, "measured": False, "seconds_per_step": 0.3, "seconds": 2.0}
    | {"reason": "", "peak_rss_bytes": 0, "parameters": 0, "horizon": 7},
    {"event": "estimate", "plan": "d", "kept": False, "reason": "no time was left"},
    {"event": "estimate", "plan": "e", "kept": False, "reason": "no time was left"},
    {"event": "schedule", "seconds": 100.0, "workers": 2, "seeds": [0, 1], "notes": []},
    {"event": "phase", "phase": "rung 1", "jobs": 1, "plans": ["a", "c"]},
    {"event": "job-start", "job": "rung1-a", "phase": "rung 1", "plan": "a", "seed": 0, "task": None, "until": 10},
    {"event": "progress", "job": "rung1-a", "step": 4},
]


def test_progress_follows_the_events() -> None:
    progress = Progress()
    lines = [line for event in EVENTS for line in progress.handle(event)]
    assert "data: s (table), 9 rows (train 9)" in lines
    assert "  task y: multiclass, 3 classes" in lines
    assert "  c: not measured for lack of time, a guess from the others: about 2.0 s" in lines
    assert lines.index("  b: left out: too slow") < lines.index("  d, e: left out: no time was left")
    assert sum("left out" in line for line in lines) == 2
    assert progress.running_rows() == [("a", "rung 1, seed 0", 4, 10)]
    assert "0 of 1 jobs" in progress.headline()
    assert 90 < (progress.remaining_seconds() or 0) <= 100
    failed = progress.handle({"event": "job-end", "job": "rung1-a", "status": "diverged", "message": "NaN\nmore", "seconds": 1.0})
    assert failed == ["  rung1-a: diverged: NaN"]
    progress.handle({"event": "rung", "rung": 0, "scores": {"a": 1.5, "c": -2.0}, "kept": ["a"], "left": ["c"]})
    assert progress.ranking() == [("a", "+1.5 %", "leads"), ("c", "-2.0 %", "left at rung 1")]
    assert progress.running_rows() == []


def test_progress_says_what_is_planned_anew_and_what_is_tried() -> None:
    progress = Progress()
    for event in EVENTS:
        progress.handle(event)
    assert progress.handle({"event": "replan", "rung": 0, "seconds": 30.0}) == [
        "  planned again with measured times: about 30 s to go"
    ]
    assert 20 < (progress.remaining_seconds() or 0) <= 30
    assert progress.handle({"event": "replan", "rung": 0, "seconds": 300.0, "left": 20.0}) == [
        "  planned again with measured times: about 5 min 00 s to go, but 20 s are left: what is not done by then is cut"
    ]
    assert (progress.remaining_seconds() or 0) <= 20
    assert progress.handle({"event": "phase", "phase": "rung 2", "jobs": 1, "plans": ["a"]}) == ["rung 2: 1 plan races: a"]
    assert progress.handle({"event": "phase", "phase": "estimate", "jobs": 0, "plans": []}) == []
    attempt = {"event": "phase", "phase": "attempt 1", "jobs": 2, "plans": ["a"], "what": "a: learning_rate 0.001"}
    assert progress.handle(attempt) == ["attempt 1, since there is time left: a: learning_rate 0.001"]
    assert progress.handle({"event": "phase", "phase": "controls", "jobs": 4, "plans": ["a"]}) == ["controls and affinities: a"]
    assert progress.handle({"event": "phase", "phase": "controls", "jobs": 1, "plans": ["a"]}) == ["affinities: a"]
    finals = {"event": "phase", "phase": "finals", "jobs": 2, "plans": ["a", "b"], "control_plan": "b"}
    assert progress.handle({**finals, "control_tasks": ["y"]}) == ["finals: a, b; control with shuffled companions: b"]
    assert progress.handle({**finals, "control_tasks": []}) == ["finals: a, b"], "there is no time for one"


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    display = make_display()
    assert type(display) is PlainDisplay
    with display:
        for event in EVENTS:
            display.handle(event)
    assert "rung 1: 2 plans race: a, c" in stream.getvalue()
    assert type(make_display(quiet=True)) is QuietDisplay


def test_the_live_table_draws_everything() -> None:
    pytest.importorskip("rich")
    from graftwork.workflows.runs.display import LiveDisplay

    stream = io.StringIO()
    display = LiveDisplay(stream)
    with display:
        for event in EVENTS:
            display.handle(event)
        display.handle({"event": "rung", "rung": 0, "scores": {"a": 1.5, "c": None}, "kept": ["a"], "left": ["c"]})
        display._console.print(display._render())
    text = stream.getvalue()
    assert "4 / 10" in text
    assert "leads" in text


def test_validate_shows_a_hundred_problems_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"plans": [0] * 2000}))
    assert cli.main(["validate", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 101
    assert printed.err.endswith(": and 1,900 more\n")
    assert printed.out.endswith(": 2000 problems\n")


def test_validate_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "plans.toml"
    bad.write_text('[[plans]]\nname = "x"\ncolour = 1\n')
    assert cli.main(["validate", str(bad)]) == 2
    text = capsys.readouterr().err
    assert "unknown key 'colour'" in text
    assert "missing key 'role'" in text
    assert cli.main(["validate", str(tmp_path / "none.yaml")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert cli.main(["validate", str(tmp_path / "t.csv")]) == 2
    assert "graftwork fit --dry-run" in capsys.readouterr().err
    (tmp_path / "suite.yaml").write_text("datasets:\n- source: t.csv\n  targets: {a: {metric: acuracy}}\n")
    assert cli.main(["validate", str(tmp_path / "suite.yaml")]) == 2
    assert "Did you mean 'accuracy'" in capsys.readouterr().err


def test_plans_that_are_fitted_in_one_go_are_said_to_be() -> None:
    event = {"event": "estimate", "kept": True, "plan": "linear", "parameters": 30, "peak_rss_bytes": 0, "reason": ""}
    event |= {"horizon": 1, "seconds": 2.0}
    (line,) = Progress().handle({**event, "seconds_per_step": 0.0})
    assert line == "  linear: 30 parameters, fitted in one go, about 2.0 s"
    (line,) = Progress().handle({**event, "seconds_per_step": 0.004})
    assert "4 ms a step, 1 step, about" in line
    # What has no parameters before it is trained is not said to have none.
    (line,) = Progress().handle({**event, "parameters": 0, "seconds_per_step": 0.0})
    assert line == "  linear: fitted in one go, about 2.0 s"


def test_many_tasks_are_told_in_one_line() -> None:
    tasks = [{"name": f"t{number}", "kind": "binary" if number % 4 else "regression", "size": 1} for number in range(200)]
    event = {"event": "suite", "name": "x", "modality": "table", "rows": 10, "splits": {"train": 10}, "tasks": tasks, "notes": []}
    lines = Progress().handle(event)
    assert len(lines) == 2
    assert "200 tasks: 150 binary (t1 ...), 50 regression (t0 ...)" in lines[1]
