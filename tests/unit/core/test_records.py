from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, MissingDependencyError
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds


def through_json(value: object) -> object:
    return json.loads(json.dumps(value))


@given(st.sampled_from(["binary", "multiclass", "ordinal", "multilabel", "regression"]), st.integers(2, 9))
def test_task_survives_json_and_knows_its_head(kind: str, size: int) -> None:
    task = TaskSpec(name="t", kind=kind, size=size, classes=tuple("abcdefghi"[:size]), center=(0.5,), scale=(2.0,))  # type: ignore[arg-type]
    assert TaskSpec.from_json(through_json(task.to_json())) == task  # type: ignore[arg-type]
    assert task.num_outputs == (size - 1 if kind == "ordinal" else size)


def test_unknown_kind_lists_the_allowed_ones() -> None:
    with pytest.raises(ConfigError, match=r"kind must be one of binary, .*multiclass.*'clas'"):
        TaskSpec(name="t", kind="clas", size=2)  # type: ignore[arg-type]


def test_missing_package_says_what_to_type() -> None:
    with pytest.raises(
        MissingDependencyError, match=r'The moon plan needs the package "no_such_package".*pip install "graftwork\[moon\]"'
    ):
        require("no_such_package", extra="moon", purpose="The moon plan")


@given(st.integers(), st.text(max_size=5), st.text(max_size=5))
def test_streams_are_stable_and_distinct(root: int, first: str, second: str) -> None:
    assert Seeds(root).integer(first) == Seeds(root).integer(first)
    assert (Seeds(root).integer(first) == Seeds(root).integer(second)) == (first == second)
    assert 0 <= Seeds(root).integer(first) < 2**63


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 2.0}, "size must be an integer; got 2.0"),
        ({"size": True}, "size must be an integer"),
        ({"classes": "ab"}, "classes must be a list"),
        ({"classes": [1, 2]}, "classes must be a list of which each is a text"),
        ({"name": 7}, "name must be a text; got 7"),
        ({"details": []}, "details must be an object"),
        ({"center": ["x"]}, "center must be a list"),
    ],
)
def test_a_stored_task_with_other_types_is_refused(change: dict[str, object], words: str) -> None:
    stored = TaskSpec(name="a", kind="multiclass", size=2, classes=("x", "y")).to_json()
    with pytest.raises(ConfigError, match=words):
        TaskSpec.from_json({**stored, **change})
    with pytest.raises(ConfigError, match="described by an object"):
        TaskSpec.from_json("abc")  # type: ignore[arg-type]
