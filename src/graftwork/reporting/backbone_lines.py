"""Lines on which of several pretrained backbones a run started from, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.reporting.result_view import ResultView

__all__ = ["backbone_line", "ranking_words"]


def backbone_line(view: ResultView) -> str:
    """Return for each kind of input which backbone was chosen of several; empty if there was nothing to choose."""
    return " ".join(f"For {ranking_words(ranking)}." for ranking in view.result.get("backbone_rankings") or ())


def ranking_words(ranking: Mapping[str, Any]) -> str:
    """Return a ranking in words.

    Example:
        >>> sources = [{"name": "a", "first_share": 0.9}, {"name": "b", "first_share": 0.1}]
        >>> ranking_words({"kind": "image", "rows": 500, "scores": ["knn", "logme"], "sources": sources})
        'image inputs the plans start from `a`, ranked before `b` by knn, logme on 500 training rows (first in 90 % of half-samples)'
    """
    first, *others = ranking["sources"]
    names = ", ".join(f"`{one['name']}`" for one in others)
    return (
        f"{ranking['kind']} inputs the plans start from `{first['name']}`, ranked before {names} by {', '.join(ranking['scores'])} on "
        f"{ranking['rows']:,} training rows (first in {100 * first['first_share']:.0f} % of half-samples)"
    )
