"""Source data judged for a target: classes by votes, tasks by relevance, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.methods.selection.dp4tl import ClassRanking
from graftwork.workflows.rank import rank_data
from graftwork.workflows.rank.source_classes import SourceClasses, class_verdict
from graftwork.workflows.rank.source_tasks import plain_result, task_relevance


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def shades(levels: list[int], rows: int = 120, *, labelled: bool = True, seed: int = 0) -> Suite:
    """Squares of a few shades of grey; the shade is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(levels), size=rows)
    images = np.clip(np.array(levels)[labels][:, None, None, None] + random.normal(scale=6, size=(rows, 12, 12, 3)), 0, 255)
    shade = TaskSpec(name="shade", kind="multiclass", size=len(levels), classes=tuple(f"grey {level}" for level in levels))
    mean = TaskSpec(name="mean", kind="regression", size=1)
    targets: dict[str, Any] = {"shade": labels} if labelled else {"mean": images.mean(axis=(1, 2, 3))[:, None].astype(np.float32)}
    return Suite.of_arrays(
        name=f"shades-{len(levels)}", input_specs=image_input(12), tasks=[shade if labelled else mean],
        inputs={"image": images.astype(np.uint8)}, targets=targets,
        splits={"train": np.arange(rows - 20), "val": np.arange(rows - 20, rows - 10), "test": np.arange(rows - 10, rows)},
    )  # fmt: skip


def test_classes_that_the_target_resembles_are_kept(tmp_path: Path) -> None:
    target, source = shades([60, 70], seed=1), shades([10, 65, 120, 180, 240], rows=220)
    found = rank_data(target, data=source, sources="scratch", draws=10, out=tmp_path / "out")
    rows = {row["name"]: row for row in found.result["rows"]}
    assert rows["grey 65"]["keep"]
    assert rows["grey 65"]["votes"] > 90
    assert not rows["grey 240"]["keep"]
    assert sum(row["votes"] for row in rows.values()) == 100
    assert found.result["rows"][0]["name"] == "grey 65"
    assert "1 of 5 classes" in found.sentences[0]
    assert "not what accuracy comes of it" in found.sentences[1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "coverage" in page
    assert "grey 180" in page
    assert "grey 65" in found.summary(80)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["question"] == "classes"


def test_a_source_without_classes_is_grouped(tmp_path: Path) -> None:
    found = rank_data(
        shades([65], seed=1), data=shades([10, 65, 240], labelled=False), sources="scratch", draws=10, out=tmp_path / "out"
    )
    assert found.result["mapping"] == "features"
    assert found.result["rows"][0]["name"].startswith("group ")
    assert any("no task of classes" in note for note in found.result["notes"])


def test_verdicts_follow_from_the_votes() -> None:
    def judged(votes: list[int]) -> SourceClasses:
        count = len(votes)
        return SourceClasses(
            tuple(map(str, range(count))), ClassRanking(np.array(votes)), np.full(count, 10), np.ones(count), "labels"
        )

    certainty, sentences = class_verdict(judged([96, 1, 1, 1, 1]), 100)
    assert certainty == "keep-part"
    assert "1 of 5 classes (20 % of the source's rows)" in sentences[0]
    assert class_verdict(judged([20, 20, 20, 20, 20]), 100)[0] == "keep-all"


def tasks_world(seed: int = 0, rows: int = 400) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 10))
    weights = np.linalg.qr(random.normal(size=(10, 5)))[0]
    states = features @ weights

    def noisy(values: np.ndarray) -> np.ndarray:
        return (values + 0.3 * random.normal(size=rows))[:, None]

    targets: dict[str, np.ndarray] = {
        "wanted": noisy(states[:, 0]),
        "same": noisy(-2.0 * states[:, 0]),
        "other": noisy(states[:, 1]),
        "third": (states[:, 2] > 0).astype(np.int64),
        "kinds": np.digitize(states[:, 3], [-0.5, 0.5]).astype(np.int64),
    }
    targets["same"][200:] = np.nan
    return features, targets


def test_the_task_with_the_targets_head_gets_the_labels() -> None:
    features, targets = tasks_world()
    found = task_relevance(features, targets, "wanted", draws=12)
    shares = dict(zip(found.sources, found.shares.tolist(), strict=True))
    assert set(shares) == {"same", "other", "third", "kinds"}
    assert shares["same"] > 0.7
    assert found.shares.sum() == pytest.approx(1.0)
    assert dict(zip(found.sources, found.labelled, strict=True))["same"] == 200
    told = plain_result(found, 500)
    assert told["rows"][0]["name"] == told["verdict"]["choice"] == "same"
    assert sum(row["next"] for row in told["rows"]) == 500
    assert all(row["low"] <= row["share"] <= row["high"] for row in told["rows"])
    assert "`same`" in told["verdict"]["sentences"][0]


def test_tasks_without_labels_are_left_out_or_refused() -> None:
    features, targets = tasks_world()
    targets["third"] = np.full(400, -1)
    assert "third" not in task_relevance(features, targets, "wanted", draws=2).sources
    with pytest.raises(DataError, match="fewer than 20"):
        task_relevance(features, targets, "third", draws=2)
    with pytest.raises(DataError, match="No other task"):
        task_relevance(features, {"wanted": targets["wanted"]}, "wanted", draws=2)


def test_the_command_says_which_tasks_to_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(240, 4)), columns=list("abcd"))
    frame["wanted"] = frame["a"] + 0.2 * random.normal(size=240)
    frame["same"] = frame["a"] + 0.2 * random.normal(size=240)
    frame["other"] = frame["b"] - frame["c"] + 0.2 * random.normal(size=240)
    frame.to_csv("rows.csv", index=False)
    command = ["rank", "rows.csv", "--targets", "wanted,same,other", "--data", "tasks", "--draws", "10", "--out", "out"]
    assert main([*command, "--target-task", "wanted", "--budget", "60"]) == 0
    said = capsys.readouterr().out
    assert "label next: `same`" in said
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["budget"] == 60
    assert result["features"] == "scratch"
    assert "relevance" in (tmp_path / "out" / "report.html").read_text()
    assert main([*command, "--target-task", "nothing"]) == 2
    assert "no task 'nothing'" in capsys.readouterr().err
    assert main(["rank", "rows.csv", "--targets", "wanted", "--budget", "60"]) == 2
    assert "belongs to --data" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    suite = shades([60, 200])
    with pytest.raises(ConfigError, match="only task"):
        rank_data(suite, data="tasks", sources="scratch", out=tmp_path / "a")
    with pytest.raises(ConfigError, match="--target-task"):
        rank_data(suite, data=suite, target_task="shade", out=tmp_path / "b")
    with pytest.raises(ConfigError, match="--data-labels"):
        rank_data(suite, data="tasks", data_labels="x.csv", out=tmp_path / "c")
    with pytest.raises(ConfigError, match="budget"):
        rank_data(suite, data="tasks", budget=0, out=tmp_path / "d")
