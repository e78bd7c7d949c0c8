from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from graftwork.cli.run_flags import add_data_arguments
from graftwork.core.errors import DataError
from graftwork.data.options import DataOptions
from graftwork.data.reading.ingest import open_data, open_suite
from graftwork.workflows.compare.settings import CompareSettings
from graftwork.workflows.runs.begin import repeat_command
from graftwork.workflows.runs.settings import FitSettings

OPTIONS = DataOptions.of_user(
    targets="price, tags", text="title+body", group="user", categories=["a", "b"], histories={"seen": "a"},
    task_kinds={"tags": "multilabel"}, image_size=32, labels="labels.csv",
)  # fmt: skip


def test_what_people_write() -> None:
    assert OPTIONS.targets == ("price", "tags")
    assert OPTIONS.categories == ("a", "b")
    assert DataOptions.of_user(targets={"colour": ["r", "g"], "y": "y"}).targets == {"colour": ("r", "g"), "y": ("y",)}
    assert OPTIONS.text_columns(["title", "body"]) == ("title", "body")
    assert OPTIONS.text_columns(["title+body"]) == ("title+body",)
    assert DataOptions().given() == {}
    assert list(OPTIONS.given(besides=("targets", "labels"))) == [
        "text",
        "group",
        "categories",
        "histories",
        "task_kinds",
        "image_size",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        OPTIONS.group = "site"  # type: ignore[misc]


@pytest.mark.parametrize("kind", [FitSettings, CompareSettings])
def test_settings_hold_them_and_older_run_files_load(kind: type[FitSettings]) -> None:
    settings = kind(source="t.csv", data=OPTIONS, seeds=2)
    stored = json.loads(json.dumps(settings.to_json()))
    assert kind.from_json(stored) == settings
    assert stored["targets"] == ["price", "tags"], "the keys of run.json stay what they were"
    assert "data" not in stored
    assert DataOptions.from_json(stored) == OPTIONS
    older = {
        "source": "t.csv",
        "targets": ["y"],
        "labels": None,
        "text": None,
        "group": "user",
        "categories": None,
        "task_kinds": {},
    }
    assert kind.from_json(older).data == DataOptions(targets=("y",), group="user")
    assert kind.of_user("t.csv", targets="y", group="user", steps=10).data == DataOptions(targets=("y",), group="user")


def test_a_record_and_arguments_open_the_same_suite(tmp_path: Path) -> None:
    rows = 60
    frame = pd.DataFrame(
        {"y": range(rows), "x": [index * 7 % 11 for index in range(rows)], "who": [index // 3 for index in range(rows)]}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    options = DataOptions.of_user(targets="y", group="who")
    suites = [open_data(tmp_path / "t.csv", options, seed=3), open_suite(tmp_path / "t.csv", targets="y", group="who", seed=3)]
    assert suites[0].fingerprint() == suites[1].fingerprint()
    with pytest.raises(DataError, match="conflicting describes its own data, so group cannot be set"):
        open_data("conflicting", DataOptions(group="who"))


def test_a_column_may_be_called_a_comma_b() -> None:
    frame = pd.DataFrame({"a,b": [float(index) for index in range(40)], "x": [index % 7 for index in range(40)]})
    assert open_suite(frame, targets="a,b").task_names == ("a,b",)


def test_words_for_missing_cells_are_one_flag_each() -> None:
    settings = FitSettings.of_user("t.csv", targets="y", missing=["?", "a, b"], split_labels="_", strict=True, steps=10)
    assert settings.data.missing == ("?", "a, b")
    assert FitSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert DataOptions.of_user(missing="a, b").missing == ("a, b",)
    assert "strict" not in DataOptions().given()
    command = repeat_command(settings)
    assert command == "graftwork fit t.csv --targets y --split-labels _ --steps 10 --strict --missing '?' --missing 'a, b'"
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    arguments = parser.parse_args(["--missing", "?", "--missing", "-999", "--split-labels", "_", "--strict"])
    assert (arguments.missing, arguments.split_labels, arguments.strict) == (["?", "-999"], "_", True)
    assert parser.parse_args([]).missing is None


def test_a_path_of_labels_is_kept_as_text(tmp_path: Path) -> None:
    options = DataOptions.of_user(labels=tmp_path / "labels.csv")
    assert options.labels == str(tmp_path / "labels.csv")
    assert DataOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
