"""The verdict in plain sentences. Pure functions from numbers to words; every number in them is in the result, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.records import Interval
from graftwork.evaluation.choice.word import NEGATIVE, POSITIVE, is_narrow

__all__ = [
    "affinity_phrases",
    "format_change",
    "format_interval",
    "join_words",
    "listed",
    "open_word",
    "per_task_sentence",
    "quote",
    "ratio_phrase",
    "row_interval",
    "source_sentence",
]

Row = Mapping[str, Any]

_UNITS = {
    "parameters_stored": "the parameters",
    "parameters_total": "the parameters",
    "latency_ms_batch1": "the latency",
    "flops_per_sample": "the computation",
    "wall_seconds": "the training time",
    "peak_rss_bytes": "the memory",
}
_FRACTIONS = {1 / 2: "half", 1 / 3: "a third of", 1 / 4: "a quarter of", 1 / 5: "a fifth of", 1 / 10: "a tenth of"}


def quote(name: str) -> str:
    """Return a name as sentences show it."""
    return f"`{name}`"


def join_words(words: Sequence[str]) -> str:
    """Join words as English does.

    Example:
        >>> join_words(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def format_change(value: float) -> str:
    """Return a change in percent with its sign.

    Example:
        >>> format_change(12.34), format_change(-0.01)
        ('+12.3 %', '0.0 %')
    """
    # Three digits at most: "+123.4 %" claims more than is known.
    text = f"{value:+.0f} %" if abs(value) >= 100 else f"{value:+.1f} %"
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text


def format_interval(interval: Interval) -> str:
    """Return a change with its interval."""
    if not (np.isfinite(interval.low) and np.isfinite(interval.high)):
        return format_change(interval.value)
    digits = 0 if max(abs(interval.low), abs(interval.high)) >= 100 else 1
    # Adding 0.0 turns -0.0 into 0.0.
    low, high = (round(end, digits) + 0.0 for end in (interval.low, interval.high))
    return f"{format_change(interval.value)} ({100 * interval.level:.0f} % interval {low:.{digits}f} to {high:.{digits}f})"


def row_interval(row: Row) -> str:
    """Return the change of a comparison with its interval."""
    return format_interval(Interval.from_json(row["difference"]))


def open_word(row: Row) -> str:
    """Return that a comparison is open, and why where its interval does not show it: one training of each says nothing of others,
    however clear of zero the interval of its test rows is, and neither do a few dozen rows that two models answer alike."""
    low, high = (row["difference"].get(key) for key in ("low", "high"))
    lacks = row["evidence"] == "none" or (
        row["evidence"] == "some" and low is not None and high is not None and is_narrow(low, high)
    )
    return "open for lack of trainings or test rows" if lacks else "open"


def ratio_phrase(cost: float, reference: float, name: str) -> str:
    """Return how a cost compares, for example ``"a third of the parameters"``; empty if a cost is unknown."""
    if not (cost > 0 and reference > 0):
        return ""
    ratio, unit = cost / reference, _UNITS.get(name, name)
    if 0.95 <= ratio <= 1.05:
        return f"about {unit.replace('the ', 'the same ', 1)}"
    # Relative distance: 0.12 is a tenth and 0.15 is nothing, though both are near in absolute terms.
    near = min(_FRACTIONS, key=lambda fraction: abs(fraction - ratio) / fraction)
    if abs(near - ratio) <= 0.12 * near:
        return f"{_FRACTIONS[near]} {unit}"
    if ratio < 1:
        return f"{100 * ratio:.2g} % of {unit}"
    return f"{ratio:.3g} times {unit}" if ratio < 100 else f"{ratio:,.0f} times {unit}"


def listed(rows: Sequence[Row], key: str = "difference") -> str:
    """Return tasks with their changes: ``"`a` (+1.0 %) and `b` (-2.0 %)"``."""
    return join_words([f"{quote(row['task'])} ({format_change(row[key]['value'])})" for row in rows])


def per_task_sentence(rows: Sequence[Row], choice: str) -> str | None:
    """Name the tasks for which another plan is better than the chosen one.

    Args:
        rows: Comparisons of each task's own best plan (by validation) with the choice, on the test rows.
        choice: The chosen plan.
    """
    parts = []
    for label, advice in (("better", "use"), ("probably better", "consider")):
        plans: dict[str, list[Row]] = {}
        for row in rows:
            if row["label"] == label:
                plans.setdefault(row["plan"], []).append(row)
        parts += [f"for {listed(items)} {advice} {quote(plan)}" for plan, items in plans.items()]
    if not parts:
        return None
    text = f"{'; '.join(parts)} instead of {quote(choice)}."
    return text[0].upper() + text[1:]


def affinity_phrases(affinity: Mapping[str, Any] | None) -> list[str]:
    """Name the pairs that help each other, and those that pull against each other, both ways.

    Args:
        affinity: As ``result.json`` holds it, with ``words`` from :func:`graftwork.evaluation.pair_judgement.judge_pairs`.
    """
    if not affinity or not affinity.get("words"):
        return []
    names, words = affinity["tasks"], affinity["words"]

    def pairs(word: str) -> list[str]:
        return [
            f"{quote(names[first])} and {quote(names[second])}"
            for first in range(len(names))
            for second in range(first + 1, len(names))
            if words[first][second] == words[second][first] == word
        ]

    helping, against = pairs("helps"), pairs("hurts")
    phrases = [f"{join_words(_limited(helping))} help each other's loss during training"] if helping else []
    return phrases + ([f"{join_words(_limited(against))} pull against each other"] if against else [])


def _limited(pairs: list[str], most: int = 3) -> list[str]:
    if len(pairs) == 1:
        return pairs
    shown = [f"({pair})" for pair in pairs[:most]]
    return [*shown, f"{len(pairs) - most} more pairs"] if len(pairs) > most else shown


def source_sentence(rows: Sequence[Row]) -> str | None:
    """Say which tasks the pretrained backbone helps and which it hurts; None without a comparison."""
    if not rows:
        return None
    verbs = (("better", "helps"), ("worse", "hurts"), ("probably better", "probably helps"), ("probably worse", "probably hurts"))
    found = {label: [row for row in rows if row["label"] == label] for label, _ in verbs}
    effects = [f"{verb} {listed(found[label])}" for label, verb in verbs if found[label]]
    if effects:
        return f"The pretrained backbone {join_words(effects)}."
    if all(row["label"] not in (*POSITIVE, *NEGATIVE, "unclear") for row in rows):
        return "The pretrained backbone makes no difference for any task."
    return "What the pretrained backbone does to the tasks is open: no comparison is clear."
