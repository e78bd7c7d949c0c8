"""``distill`` of data without any label: what the teachers answer is learned, and agreement with them is all that is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError, DataError
from graftwork.data.options import DataOptions
from graftwork.data.store import load_suite
from graftwork.data.suites.glyphs import glyphs
from graftwork.workflows.distill.agreement import agreement_sentences
from graftwork.workflows.distill.bare_data import asks_for_none, open_bare

ROWS = 160
SETTINGS: dict[str, Any] = {"steps": 30, "seeds": 2, "workers": 0, "progress": False, "overrides": {"batch_size": 16}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table without labels, and what somebody predicts for its rows."""
    path = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.standard_normal((ROWS, 3)).round(4), columns=["a", "b", "c"])
    frame.to_csv(path / "bare.csv", index=False)
    kind = np.where(frame["a"] > 0.4, "red", np.where(frame["b"] > 0, "green", "blue"))
    predictions = pd.DataFrame({"row": np.arange(ROWS), "kind": kind, "kind_probability": 0.8, "amount": 2.0 * frame["a"] + 10.0})
    predictions.to_csv(path / "predictions.csv", index=False)
    frame.assign(kind=kind, amount=predictions["amount"]).to_csv(path / "labelled.csv", index=False)
    np.save(path / "features.npy", frame[["b", "c"]].to_numpy(dtype=np.float32))
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> gw.DistillRun:
    out = tmp_path_factory.mktemp("runs") / "run"
    teachers = [str(folder / "predictions.csv"), str(folder / "features.npy")]
    return gw.distill(folder / "bare.csv", targets="none", teachers=teachers, out=out, **SETTINGS)


def test_the_student_learns_what_the_teachers_answer_and_no_accuracy_is_told(run: gw.DistillRun, folder: Path) -> None:
    result = run.result
    assert result["labels"] == "none"
    assert (result["changes"], result["flips"]) == ({}, {})
    assert list(result["plans"]) == ["distilled"], "a student alone would have nothing to learn"
    assert result["plans"]["distilled"]["test"] == {}
    assert not any(word in json.dumps(result["verdict"]) for word in ("accuracy", "alone and", "Teaching"))
    first, second = run.teachers
    assert (first["weight"], second["weight"]) == (0.5, 0.5), "nothing says which is more relevant"
    assert set(first["agreement"]) == {"kind", "amount"}
    assert first["agreement"]["kind"]["measure"] == "agreement"
    assert first["agreement"]["amount"]["measure"] == "distance"
    assert list(second["agreement"]) == ["features of features (2)"]
    assert (first["scores"], first["kept"], first["relevance"]) == ({}, {}, {})
    assert run.sentences[0].startswith("There are no labels: the student learned from its teachers alone (30 steps, 2 seeds)")
    assert any("It says the same as" in sentence and "predictions.csv" in sentence for sentence in run.sentences)
    page, told = run.report.read_text(encoding="utf-8"), run.summary()
    for text in (page, told):
        assert "There are no labels" in text
        assert "same answer" in text
        assert "student alone" not in text
    assert list(run.leaderboard()["plan"]) == ["distilled"]
    assert gw.load_run(run.folder).result == run.result


def test_agreement_is_that_of_the_exported_student_with_the_teachers_file(run: gw.DistillRun, folder: Path) -> None:
    suite = load_suite(run.folder / "suite")
    rows = suite.splits["test"]
    predictions = pd.read_csv(folder / "predictions.csv")
    assert [suite.task("kind").classes[index] for index in suite.targets["kind"]] == predictions["kind"].tolist()
    np.testing.assert_allclose(suite.targets["amount"][:, 0], predictions["amount"], rtol=1e-3, atol=1e-3)
    said = run.predict(folder / "bare.csv")
    same = float((said["kind"].to_numpy()[rows] == predictions["kind"].to_numpy()[rows]).mean())
    told = run.teachers[0]["agreement"]["kind"]["taught"]
    # The model handed over is that of one of the two seeds.
    assert abs(same - told["value"]) < 0.25
    assert told["low"] <= told["value"] <= told["high"]
    assert same > 0.5
    # Features are learned standardised by the training rows.
    features = suite.targets["features of features (2)"]
    np.testing.assert_allclose(features[suite.splits["train"]].mean(axis=0), 0.0, atol=1e-4)
    assert "kind" not in suite.raw["columns"]
    assert not any("no target" in note for note in suite.notes)
    assert set(suite.sources) == {"bare.csv"}


def test_a_run_teaches_its_own_tasks_and_a_killed_run_goes_on(folder: Path, run: gw.DistillRun, tmp_path: Path) -> None:
    teacher = run.folder
    shutil.copy(folder / "bare.csv", tmp_path / "bare.csv")
    settings = {**SETTINGS, "seeds": 1, "steps": 6}
    with pytest.MonkeyPatch.context() as patch:

        def cut(*given: Any, **more: Any) -> Any:
            raise KeyboardInterrupt

        patch.setattr("graftwork.workflows.distill.session.run_trainings", cut)
        with pytest.raises(KeyboardInterrupt):
            gw.distill(tmp_path / "bare.csv", targets="none", teachers=str(teacher), out=tmp_path / "out", **settings)
    more = {"teachers": str(teacher), "out": tmp_path / "out", "resume": True, "workers": 0, "progress": False}
    second = gw.distill(tmp_path / "bare.csv", targets="none", **more)
    (told,) = second.teachers
    assert told["ways"] == ["logits"]
    assert set(told["agreement"]) == {"kind", "amount", "features of features (2)"}
    # One seed: an interval over seeds is not known.
    assert told["agreement"]["kind"]["taught"]["low"] is None
    suite = load_suite(second.folder / "suite")
    said = run.predict(tmp_path / "bare.csv")
    labels = [suite.task("kind").classes[index] for index in suite.targets["kind"]]
    assert labels == said["kind"].tolist(), "pseudo labels are what the teacher predicts"


def test_networks_teach_their_features_to_pictures_without_labels(tmp_path: Path) -> None:
    pictures = glyphs(num_train=24, num_val=8, num_test=8, num_classes=2, size=16)
    from dataclasses import replace

    bare = replace(pictures, tasks=(), targets={})
    made = gw.distill(bare, teachers="vit-mini", out=tmp_path / "run", **{**SETTINGS, "steps": 4, "seeds": 1})
    assert made.result["suite"]["tasks"][0]["name"] == "features of vit-mini"
    assert made.teachers[0]["ways"] == ["features"]
    assert made.teachers[0]["agreement"]["features of vit-mini"]["measure"] == "distance"
    assert made.teachers[0]["alike"]["taught"] is not None


def test_folders_of_pictures_are_opened_without_labels(tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(random.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(tmp_path / f"{number:02}.png")
    suite = open_bare(tmp_path, DataOptions.of_user(targets="none"))
    assert (suite.tasks, dict(suite.targets), len(suite)) == ((), {}, 40)
    assert sorted(np.concatenate([suite.splits[name] for name in ("train", "val", "test")]).tolist()) == list(range(40))
    with pytest.raises(ConfigError, match="leave --labels out"):
        open_bare(tmp_path, DataOptions.of_user(targets="none", labels="labels.csv"))


def test_a_column_called_none_is_a_target(folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "bare.csv")
    options = DataOptions.of_user(targets="none")
    assert asks_for_none(frame, options)
    assert not asks_for_none(frame.rename(columns={"c": "none"}), options)
    frame.rename(columns={"c": "none"}).to_csv(tmp_path / "named.csv", index=False)
    assert not asks_for_none(tmp_path / "named.csv", options)
    assert not asks_for_none(frame, DataOptions.of_user(targets="a"))


def test_what_cannot_be_learned_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predictions = str(folder / "predictions.csv")

    def asked(data: Any, *teachers: str, **more: Any) -> gw.DistillRun:
        return gw.distill(data, targets="none", teachers=[*teachers], out=out, **{**SETTINGS, **more})

    with pytest.raises(
        ConfigError, match="has a column 'kind', which is what a teacher answers. If it is the label, say --targets"
    ):
        asked(folder / "labelled.csv", predictions)
    short = tmp_path / "short.csv"
    pd.read_csv(predictions)[:9].to_csv(short, index=False)
    with pytest.raises(ConfigError, match=r"short.csv has 9 rows, and the data has 160"):
        asked(folder / "bare.csv", str(short))
    other = tmp_path / "other.csv"
    pd.DataFrame({"kind": np.where(np.arange(ROWS) % 2, "x", "y")}).to_csv(other, index=False)
    with pytest.raises(ConfigError, match="both answer 'kind', with another .*classes"):
        asked(folder / "bare.csv", predictions, str(other))
    np.savez(tmp_path / "same.npz", classes=np.full((ROWS, 3), 1 / 3))
    with pytest.raises(ConfigError, match="answer the same for all rows"):
        asked(folder / "bare.csv", str(tmp_path / "same.npz"))
    with pytest.raises((ConfigError, DataError)):
        asked(tmp_path / "nothing.csv", predictions)
    assert not out.exists()
    ignored = asked(folder / "labelled.csv", predictions, ignore="kind,amount", steps=4, seeds=1)
    assert set(ignored.teachers[0]["agreement"]) == {"kind", "amount"}


def test_sentences_name_the_task_on_which_they_are_least_alike() -> None:
    def item(measure: str, value: float, low: float | None = None) -> dict[str, Any]:
        return {"measure": measure, "taught": {"value": value, "low": low, "high": value + 0.02, "level": 0.95}}

    told = agreement_sentences(
        [
            {
                "name": "big",
                "agreement": {"a": item("agreement", 0.9, 0.87), "b": item("agreement", 0.7), "c": item("distance", 0.4)},
            },
            {"name": "silent", "agreement": {}},
        ]
    )
    assert told == [
        "It says the same as `big` for 70.0 % of the test rows on `b`, the task of 2 on which it is least alike.",
        "It is 0.40 standard deviations from `big` on `c`.",
    ]
