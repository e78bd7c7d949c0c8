"""What is said of a choice among several backbones."""

from __future__ import annotations

from typing import Any

from graftwork.reporting.backbone_lines import backbone_line
from graftwork.reporting.result_view import ResultView

RANKING: dict[str, Any] = {
    "kind": "image",
    "rows": 1200,
    "scores": ["knn", "logme"],
    "sources": [{"name": "a", "first_share": 0.75}, {"name": "b", "first_share": 0.2}, {"name": "c", "first_share": 0.05}],
}


def test_a_choice_is_said_with_what_it_was_made_by() -> None:
    view = ResultView({"format": "graftwork-fit-1", "backbone_rankings": [RANKING]})
    assert backbone_line(view) == (
        "For image inputs the plans start from `a`, ranked before `b`, `c` by knn, logme on 1,200 training rows (first in 75 % of "
        "half-samples)."
    )


def test_nothing_is_said_where_there_was_no_choice() -> None:
    assert backbone_line(ResultView({"format": "graftwork-fit-1", "backbone_rankings": []})) == ""
    assert backbone_line(ResultView({"format": "graftwork-fit-1"})) == ""  # an older run
