"""Requests of a hundred thousand keys, or of names of megabytes, are refused without comparing all of them with each other."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.nearest import nearest_name
from graftwork.data.encoders.columns import NumericColumn
from graftwork.data.encoders.table import TableEncoder
from graftwork.serving.asking import read_options
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import MOST_PROBLEMS, Problem
from graftwork.serving.reading import TableReader

TASKS = ("churn", "plan")


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All names that were compared with another."""
    names: list[str] = []
    real: Callable[..., list[str]] = difflib.get_close_matches

    def watched(word: str, possibilities: list[str], **others: Any) -> list[str]:
        assert len(word) < 1000
        names.extend(possibilities)
        return real(word, possibilities, **others)

    monkeypatch.setattr(difflib, "get_close_matches", watched)
    return names


@pytest.mark.parametrize(
    "content", [{f"key {index}": 1 for index in range(50_000)}, {"importance": {f"churn{index}": 1 for index in range(50_000)}}]
)
def test_unknown_keys_are_named_up_to_the_length_of_an_answer(content: dict[str, Any], compared: list[str]) -> None:
    problems: list[Problem] = []
    read_options(content, TASKS, rows=("rows",), smallest_budget=0.1, problems=problems)
    assert len(problems) == MOST_PROBLEMS
    assert len(compared) <= MOST_PROBLEMS * 10


def test_missing_columns_are_compared_with_the_first_keys_of_a_row(compared: list[str]) -> None:
    encoder = TableEncoder([NumericColumn(f"column {index}", 0.0, 1.0, False) for index in range(50)])
    reader = TableReader(encoder, ServeLimits(max_rows=8))
    problems: list[Problem] = []
    reader.read_one("rows", "rows[0]", {f"colum {index}": 1 for index in range(50_000)}, problems)
    assert [problem.field for problem in problems[:2]] == ["rows[0].column 0", "rows[0].column 1"]
    assert "Did you mean 'colum 1'?" in problems[1].allowed
    assert len(compared) <= MOST_PROBLEMS * 200


@pytest.mark.parametrize("content", [{"tasks": ["x" * 2_000_000]}, {"importance": {"x" * 2_000_000: 1}}, {"x" * 2_000_000: 1}])
def test_names_of_megabytes_are_neither_compared_nor_repeated(content: dict[str, Any], compared: list[str]) -> None:
    problems: list[Problem] = []
    read_options(content, TASKS, rows=("rows",), smallest_budget=0.1, problems=problems)
    assert not compared
    assert len(str(problems[0].json())) < 2000


@given(st.text("abc", max_size=12), st.lists(st.text("abc", max_size=12), unique=True, max_size=6))
def test_lengths_rule_out_only_what_is_not_near(name: str, options: list[str]) -> None:
    found = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    assert nearest_name(name, options) == (found[0] if found else None)
