"""The leaderboard in plain sentences; every number in them is in the result, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.records import Interval
from graftwork.evaluation.choice.sentences import format_interval, join_words, quote

__all__ = ["leaderboard_sentences"]


def leaderboard_sentences(rows: Sequence[Mapping[str, Any]], reference: str | None, choice: str) -> list[str]:
    """Return what the leaderboard shows.

    Args:
        rows: From :func:`graftwork.workflows.compare.finish.leaderboard`.
        reference: The separate models; None if they did not finish.
        choice: The plan that validation rows choose.
    """
    ranked = [row for row in rows if row["rank"] is not None]
    troubled = [quote(row["plan"]) for row in rows if row["rank"] is None]
    sentences = []
    if reference is None:
        sentences.append(
            "The separate models did not finish, so there is no common scale; the table shows each plan's own scores."
        )
    elif len(ranked) == 1:
        sentences.append(f"Only {quote(ranked[0]['plan'])} finished, so there is nothing to compare it with.")
    else:
        sentences.append(_lead(ranked, reference))
        sentences.append(_against(ranked, reference))
        sentences.append(
            f"To choose one plan, take {quote(choice)}: it is the best on the validation rows; the numbers of this table are of other rows and took no part."
        )
    if troubled:
        sentences.append(f"Without a score: {join_words(troubled)}; the table says why.")
    return sentences


def _lead(ranked: Sequence[Mapping[str, Any]], reference: str) -> str:
    first = ranked[0]
    if first["plan"] == reference:
        second = ranked[1]
        return (
            f"No plan has a higher mean than separate models ({quote(reference)}); the next is {quote(second['plan'])} with "
            f"{_changed(second)}."
        )
    if first["label"] in ("better", "probably better"):
        return f"{quote(first['plan'])} leads with {_changed(first)} against separate models ({quote(reference)})."
    return (
        f"No plan is shown to be better than separate models ({quote(reference)}); the highest mean is that of "
        f"{quote(first['plan'])}, {_changed(first)}."
    )


def _changed(row: Mapping[str, Any]) -> str:
    value = row["delta_m"] or {}
    numbers = [float("nan") if value.get(key) is None else float(value[key]) for key in ("value", "low", "high")]
    return format_interval(Interval(*numbers)) if value else "an unknown change"


def _against(ranked: Sequence[Mapping[str, Any]], reference: str) -> str:
    others = [row for row in ranked if row["plan"] != reference]
    found = {label: [quote(row["plan"]) for row in others if row["label"] == label] for label in ("better", "worse")}
    unsure = len(others) - len(found["better"]) - len(found["worse"])
    parts = [f"{join_words(names)} {'is' if len(names) == 1 else 'are'} {label}" for label, names in found.items() if names]
    if unsure:
        parts.append(f"no sure difference was found for {unsure} plan{'s' * (unsure != 1)}")
    text = "; ".join(parts)
    return f"On the mean over tasks, {text} (paired by seed and test row, Holm's correction for {len(others)} plan{'s' * (len(others) != 1)})."
