"""``tune`` and ``distill`` refuse what cannot work before anything is measured, and leave no folder behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import graftwork as gw
from graftwork.core.errors import ConfigError
from graftwork.workflows.tune.costs import choose
from graftwork.workflows.tune.settings import TuneSettings


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text("body,liked\n" + "a fine day,yes\na dull day,no\n" * 20)
    return tmp_path / "t.csv"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"settings": {"rr": 4}}, "lora has no setting 'rr'. Did you mean 'r'?"),
        ({"settings": {"r": "abc"}}, "r must be an integer; got 'abc'"),
        ({"settings": {"r": 0}}, "`r` must be at least 1; got 0"),
        ({"overrides": {"learning_rat": 0.1}}, "unknown training setting 'learning_rat'. Did you mean 'learning_rate'?"),
        ({"overrides": {"learning_rat": 0.1}, "method": "auto", "settings": {}}, "unknown training setting 'learning_rat'"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_measured(
    asked: dict[str, Any], said: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        gw.tune("minilm", table, **{"method": "lora", "targets": "liked", "out": tmp_path / "run", "progress": False, **asked})
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_is_told_how_it_is_named(table: Path, tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"is named hf:{tmp_path / 'bert'}"):
        gw.tune(str(tmp_path / "bert"), table, targets="liked", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_one_reason_of_all_methods_is_said_once() -> None:
    context: Any = SimpleNamespace(settings=TuneSettings(source="t", steps=4))
    rows = [{"method": name, "status": "failed", "message": "there is no tokenizer.json"} for name in ("frozen", "lora")]
    with pytest.raises(ConfigError, match="No method can tune this backbone") as caught:
        choose(context, rows, {})
    assert caught.value.problems == ("frozen, lora: there is no tokenizer.json",)
    rows[1] |= {"status": "over", "message": "9 numbers learn, more than 5 (5)"}
    with pytest.raises(ConfigError, match="No method fits the limits"):
        choose(context, rows, {})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"overrides": {"batchsize": 4}}, "unknown training setting 'batchsize'. Did you mean 'batch_size'?"),
        ({"teachers": "no-file.csv"}, "There is no file or folder no-file.csv"),
    ],
)
def test_a_distillation_that_cannot_work(asked: dict[str, Any], said: str, table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        gw.distill(table, **{"targets": "liked", "teachers": str(table), "out": tmp_path / "run", "progress": False, **asked})
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
