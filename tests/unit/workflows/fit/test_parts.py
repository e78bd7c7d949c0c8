"""Small parts of ``fit``: settings, the run folder, examples, the repeat command, broken limits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.fit import load_run
from graftwork.workflows.fit.examples import describe_value, sample_predictions
from graftwork.workflows.runs.begin import default_out_folder, repeat_command
from graftwork.workflows.runs.control import JobControl, PauseTraining
from graftwork.workflows.runs.estimation import broken_limit
from graftwork.workflows.runs.job_data import read_predictions, write_predictions
from graftwork.workflows.runs.jobs.estimate import _final_numbers
from graftwork.workflows.runs.plan_costs import Estimate
from graftwork.workflows.runs.run_folder import RunFolder, clean_json
from graftwork.workflows.runs.settings import DEFAULT_TIME_LIMIT, FitSettings

CLASSES = ("red", "green", "blue")
TASKS = (
    TaskSpec(name="kind", kind="multiclass", size=3, classes=CLASSES),
    TaskSpec(name="late", kind="binary", size=1, classes=("no", "yes")),
    TaskSpec(name="tags", kind="multilabel", size=3, classes=CLASSES),
    TaskSpec(name="price", kind="regression", size=2),
    TaskSpec(name="stars", kind="ordinal", size=3, classes=("1", "2", "3")),
)


def suite_of(rows: int = 6) -> Suite:
    targets = {
        "kind": np.array([0, 1, 2, -1, 0, 1]),
        "late": np.array([0, 1, 1, -1, 0, 1]),
        "tags": np.array([[1, 0, 1]] * 5 + [[np.nan] * 3], dtype=np.float32),
        "price": np.array([[1.5, 2.0]] * 5 + [[np.nan, np.nan]], dtype=np.float32),
        "stars": np.array([0, 1, 2, -1, 0, 1]),
    }
    return Suite.of_arrays(
        name="small",
        input_specs={"image": InputSpec(kind="image")},
        tasks=TASKS,
        inputs={"image": np.full((rows, 4, 4, 3), 200, np.uint8)},
        targets=targets,
        splits={"train": np.arange(2), "val": np.arange(2, 3), "test": np.arange(6)},
        raw={"labels": [f"picture {row}" for row in range(rows)]},
    )


def test_the_default_limit_holds_unless_steps_are_given() -> None:
    assert FitSettings.of_user("t.csv").time_limit == DEFAULT_TIME_LIMIT
    assert FitSettings.of_user("t.csv", steps=50).time_limit is None
    assert FitSettings.of_user("t.csv", steps=50, time_limit="1m").time_limit == 60
    given = FitSettings.of_user("t.csv", targets="a, b", plans=["all"], max_params="5M", max_latency="20ms", max_memory="2GB")
    assert (given.data.targets, given.plans, given.max_params, given.max_memory) == (
        ("a", "b"),
        ("all",),
        5_000_000,
        2_000_000_000,
    )
    assert FitSettings.from_json(json.loads(json.dumps(given.to_json()))) == given


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        FitSettings(steps=2, seeds=0, workers=-1)
    for part in ("steps must be at least 4", "seeds must be between 1 and 100; got 0", "workers must be at least 0; got -1"):
        assert part in str(caught.value)


def test_the_repeat_command_says_everything_that_differs() -> None:
    settings = FitSettings.of_user(
        "my table.csv",
        targets="a,b",
        task_kinds={"a": "regression"},
        time_limit="6m",
        max_latency="20ms",
        overrides={"learning_rate": 0.01},
        workers=2,
    )
    assert repeat_command(settings) == (
        "graftwork fit 'my table.csv' --targets a,b --time-limit 360s --max-latency 20ms --task-kind a=regression "
        "--set learning_rate=0.01"
    )
    assert repeat_command(FitSettings()) == "graftwork fit"


def test_the_default_folder_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = default_out_folder("emoji")
    first.mkdir(parents=True)
    assert first.parts[0] == "runs"
    assert default_out_folder("emoji") != first


def test_limits_in_words() -> None:
    estimate = Estimate(plan="x", parameters=10, latency_ms=30.0, peak_rss_bytes=3 * 10**9)
    assert broken_limit(estimate, FitSettings()) == ""
    assert "30 ms for one row, more than --max-latency 20 ms" in broken_limit(estimate, FitSettings(max_latency=20.0))
    assert "3 GB of memory, more than --max-memory 2 GB" in broken_limit(estimate, FitSettings(max_memory=2 * 10**9))


def test_models_that_grow_are_counted_at_their_end() -> None:
    assert _final_numbers(100, 100, 6, 1000) == 100
    assert _final_numbers(60, 360, 6, 400) == 60 + 60 * 399


def test_values_in_words() -> None:
    kind, late, tags, price, stars = TASKS
    assert describe_value(kind, np.array(2), is_prediction=False) == "blue"
    assert describe_value(kind, np.array(-1), is_prediction=False) == ""
    assert describe_value(kind, np.array([0.1, 0.7, 0.2]), is_prediction=True) == "green (70 %)"
    assert describe_value(late, np.array(0.2), is_prediction=True) == "no (80 %)"
    assert describe_value(tags, np.array([0.9, 0.1, 0.6]), is_prediction=True) == "red, blue"
    assert describe_value(tags, np.array([0.0, 0.1, 0.2]), is_prediction=True) == "none"
    assert describe_value(price, np.array([1234.56, 0.001]), is_prediction=True) == "1235, 0.001"
    assert describe_value(price, np.array([np.nan, np.nan]), is_prediction=False) == ""
    assert describe_value(stars, np.array([0.4, 0.3, 0.3]), is_prediction=True) == "1 (40 %)", "as predict says it"


def test_examples_have_pictures_truth_and_prediction() -> None:
    pytest.importorskip("PIL")
    suite = suite_of()
    predictions = {
        "kind": np.eye(3)[[0, 0, 2, 1, 0, 1]],
        "late": np.array([0.1, 0.9, 0.2, 0.5, 0.4, 0.6]),
        "tags": np.full((6, 3), 0.7),
        "price": np.ones((6, 2)),
        "stars": np.eye(3)[[0, 1, 2, 0, 0, 1]],
    }
    examples = sample_predictions(suite, predictions, number=4)
    assert len(examples) == 4
    first = next(item for item in examples if item["row"] == 0)
    assert first["label"] == "picture 0"
    assert first["picture"].startswith("data:image/png;base64,")
    assert first["truth"]["kind"] == "red"
    assert first["correct"] == {"kind": True, "late": True, "tags": False, "price": None, "stars": True}
    assert 3 not in [item["row"] for item in examples]
    assert examples == sample_predictions(suite, predictions, number=4)


def test_predictions_survive_the_disk(tmp_path: Path) -> None:
    suite = suite_of()
    found = {"test": {"kind": np.eye(3, dtype=np.float32), "late": np.ones(3, np.float32)}}
    write_predictions(tmp_path / "p.safetensors", found, suite)
    again = read_predictions(tmp_path / "p.safetensors", suite)
    assert list(again["test"]) == ["kind", "late"]
    np.testing.assert_array_equal(again["test"]["kind"], found["test"]["kind"])


def test_json_without_nan_and_numpy() -> None:
    value = {"a": np.float64("nan"), "b": (np.int64(3), np.array([1.0, np.inf])), 4: True}
    assert clean_json(value) == {"a": None, "b": [3, [1.0, None]], "4": True}


def test_a_run_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": "other"}')
    with pytest.raises(FileFormatError, match=r"is not of the format 'graftwork-run-1'.*--out"):
        RunFolder(tmp_path).open()


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "r"), RunFolder(tmp_path / "r")
    first.create({}, "command")
    with pytest.raises(ConfigError, match="Another process is working"):
        second.open()
    first.release()
    second.open()
    second.release()


def test_a_folder_without_result_says_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="Give a folder that graftwork fit wrote"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileFormatError, match="Finish it with: graftwork fit --resume"):
        load_run(tmp_path)


def test_control_pauses_for_checkpoints_and_stops() -> None:
    reports: list[dict[str, object]] = []
    control = JobControl(report=reports.append, checkpoint_seconds=1e9)
    control.progress(1)
    control.progress(2)
    assert [report["step"] for report in reports] == [1]
    control.stop = "keep"
    with pytest.raises(PauseTraining):
        control.progress(3)
    with pytest.raises(PauseTraining):
        JobControl(checkpoint_seconds=0.0).progress(1)
