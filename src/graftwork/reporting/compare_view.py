"""Reads a comparison's ``result.json``: what a fit's has, and a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graftwork.reporting.result_view import ResultView

__all__ = ["CompareView"]


@dataclass(frozen=True)
class CompareView(ResultView):
    """Typed access to a comparison.

    Raises:
        FileFormatError: On building, if the object is not a result of ``graftwork compare``.
    """

    format: ClassVar[str] = "graftwork-compare-1"
    verb: ClassVar[str] = "compare"

    @property
    def leaderboard(self) -> list[dict[str, Any]]:
        """One row a plan, the best first."""
        return self.rows("leaderboard")
