"""Which plans enter the race."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.core.errors import ConfigError
from graftwork.core.records import Modality
from graftwork.workflows.plan_check import plan_problems
from graftwork.workflows.portfolio import load_catalogue, portfolio, read_plan_file

PLAN = """
[[plans]]
name = "mine"
title = "My own plan"
role = "joint"
group = "sharing"
modalities = ["table"]
training = { batch_size = 16 }
"""


@pytest.mark.parametrize("modality", ["table", "image", "text"])
def test_separate_models_come_first_and_sharing_is_there(modality: Modality) -> None:
    plans = portfolio([modality], 3)
    assert plans[0].role == "reference"
    groups = {plan.group for plan in plans}
    assert {"sharing", "balancing"} <= groups
    assert "trees" in groups
    assert ("frozen" in groups) == (modality != "table")


def test_the_catalogue_holds_what_is_promised() -> None:
    names = set(load_catalogue())
    assert {
        *("separate", "shared-trunk", "mmoe", "ple", "uncertainty", "dwa", "pcgrad", "cagrad", "mgda", "upgrad", "nashmtl"),
        *("aligned-mtl", "upgrad-rep", "lightgbm", "frozen-features", "lora", "full-tuning"),
        *("tfidf-linear", "tfidf-lightgbm", "embeddings-linear", "pixels-linear", "pixels-trees"),
    } <= names


def test_every_plan_of_the_catalogue_can_run() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("torchjd")
    for entry in load_catalogue().values():
        assert plan_problems(entry.plan) == [], entry.plan.name


def test_one_task_leaves_sharing_out() -> None:
    assert {plan.group for plan in portfolio(["table"], 1)} == {"separate", "baseline", "trees", "linear", "kernels"}


def test_names_add_and_replace() -> None:
    defaults = [plan.name for plan in portfolio(["table"], 3)]
    assert set(defaults) < {plan.name for plan in portfolio(["table"], 3, ["all"])}
    assert {plan.name for plan in portfolio(["table"], 3, ["+dwa"])} == {*defaults, "dwa"}
    assert [plan.name for plan in portfolio(["table"], 3, ["dwa"])] == ["separate", "dwa"]
    assert [plan.name for plan in portfolio(["table"], 3, ["none"])] == ["separate"]


def test_wrong_names_are_all_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no plan 'mmeo'; did you mean 'mmoe'") as caught:
        portfolio(["table"], 1, ["mmeo", "lora", "dwa"])
    assert "'lora' is for image, text, and the inputs of this suite are: table" in str(caught.value)
    assert "'dwa' needs at least 2 tasks, and this suite has 1" in str(caught.value)


def test_a_plan_of_a_toml_file_joins_without_code(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(PLAN)
    joined = portfolio(["table"], 2, [str(file)])
    assert "mine" in [plan.name for plan in joined]
    assert "shared-trunk" in [plan.name for plan in joined]
    assert [plan.name for plan in portfolio(["table"], 2, [str(file), "mine"])] == ["separate", "mine"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = ", "cannot be read"),
        ("x = " + "7" * 6_000, "cannot be read: Exceeds the limit"),
        ("x = [[0x" + "f" * 6_000 + "]]", "cannot be read: it holds an integer of 24,000 bits"),
        ("x = " + "[" * 5_000, "cannot be read: it is nested too deeply"),
        ("a = 1", r"holds no \[\[plans\]\]"),
        (PLAN.replace("role", "rloe"), r"unknown key 'rloe'\. Did you mean 'role'.*Known keys"),
        (PLAN + 'default = ["text"]', r"`default` must be true, false or a list of its modalities \['table'\]; got \['text'\]"),
    ],
)
def test_a_bad_plan_file_says_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(content)
    with pytest.raises(ConfigError, match="(?s)" + message):
        read_plan_file(file)


def test_two_plans_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(PLAN.replace('"mine"', '"mmoe"'))
    with pytest.raises(ConfigError, match=r"Two plans are called 'mmoe': in portfolio.toml and in plans.toml"):
        portfolio(["table"], 2, [str(file)])


def test_a_file_may_be_called_like_that_of_graftwork(tmp_path: Path) -> None:
    file = tmp_path / "portfolio.toml"
    file.write_text(PLAN)
    assert [plan.name for plan in portfolio(["table"], 2, [str(file), "dwa"])] == ["separate", "dwa", "mine"]
