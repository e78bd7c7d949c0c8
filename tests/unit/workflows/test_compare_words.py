from __future__ import annotations

from typing import Any

import pytest

from graftwork.workflows.compare.words import leaderboard_sentences


def row(plan: str, rank: int, label: str | None, value: float) -> dict[str, Any]:
    return {"plan": plan, "rank": rank, "label": label, "delta_m": {"value": value, "low": value - 5, "high": value + 5}}


@pytest.mark.parametrize(
    ("label", "first"),
    [
        ("better", "`mmoe` leads with +9.0 % (95 % interval 4.0 to 14.0) against separate models (`separate`)."),
        (
            "unclear",
            "No plan is shown to be better than separate models (`separate`); the highest mean is that of `mmoe`, "
            "+9.0 % (95 % interval 4.0 to 14.0).",
        ),
    ],
)
def test_only_what_is_shown_to_be_better_leads(label: str, first: str) -> None:
    rows = [row("mmoe", 1, label, 9.0), row("separate", 2, None, 0.0)]
    assert leaderboard_sentences(rows, "separate", "mmoe")[0] == first
