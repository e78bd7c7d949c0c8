"""The verdict in plain sentences. Pure functions from numbers to words; every number in them is in the result, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.records import Interval

__all__ = [
    "affinity_phrases",
    "control_sentence",
    "format_change",
    "format_interval",
    "headline",
    "join_words",
    "per_task_sentence",
    "quote",
    "ratio_phrase",
    "source_sentence",
    "together_sentence",
]

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
        >>> format_change(12.34)
        '+12.3 %'
    """
    # Three digits at most: "+123.4 %" claims more than is known.
    return f"{value:+.0f} %" if abs(value) >= 100 else f"{value:+.1f} %"


def format_interval(interval: Interval) -> str:
    """Return a change with its interval."""
    if not (np.isfinite(interval.low) and np.isfinite(interval.high)):
        return format_change(interval.value)
    digits = 0 if max(abs(interval.low), abs(interval.high)) >= 100 else 1
    return (
        f"{format_change(interval.value)} ({100 * interval.level:.0f} % interval "
        f"{interval.low:.{digits}f} to {interval.high:.{digits}f})"
    )


def ratio_phrase(cost: float, reference: float, name: str) -> str:
    """Return how a cost compares, for example ``"a third of the parameters"``; empty if a cost is unknown."""
    if not (cost > 0 and reference > 0):
        return ""
    ratio, unit = cost / reference, _UNITS.get(name, name)
    if 0.9 <= ratio <= 1.1:
        return f"about {unit.replace('the ', 'the same ', 1)}"
    # Relative distance: 0.12 is a tenth and 0.15 is nothing, though both are near in absolute terms.
    near = min(_FRACTIONS, key=lambda fraction: abs(fraction - ratio) / fraction)
    if abs(near - ratio) <= 0.12 * near:
        return f"{_FRACTIONS[near]} {unit}"
    if ratio < 1:
        return f"{100 * ratio:.2g} % of {unit}"
    return f"{ratio:.2g} times {unit}" if ratio < 100 else f"{ratio:,.0f} times {unit}"


def headline(
    *,
    choice: str,
    reference: str | None,
    rival: str | None,
    interval: Interval | None,
    label: str,
    cost: str,
    num_tasks: int,
    saves_from: str | None,
    is_cheapest: bool,
) -> tuple[str, str]:
    """Return the strength (``asserts``, ``tentative``, ``no difference``) and the first sentence.

    Args:
        choice: The chosen plan.
        reference: The separate models' plan, if any ran.
        rival: The other plan of the comparison when the reference itself is chosen.
        interval: Mean change over tasks on the test rows: of the choice against the reference, or of the rival if the reference
            is chosen.
        label: Word for that change.
        cost: Phrase of :func:`ratio_phrase` for choice against reference; empty if unknown.
        num_tasks: Number of tasks.
        saves_from: The more costly plan that the choice replaces because validation shows no difference.
        is_cheapest: Whether the choice is the cheapest of the finalists.
    """
    chosen, mean = quote(choice), " on average over the tasks" if num_tasks > 1 else ""
    baseline = (f"separate models ({quote(reference)})" if num_tasks > 1 else quote(reference)) if reference else ""
    cheap = "take the cheapest" if is_cheapest else "take the cheaper"
    if reference is None or interval is None:
        if rival is None and reference == choice:
            return "no difference", f"Only {chosen} finished, so there is nothing to compare it with."
        return (
            "no difference",
            f"Use {chosen}, the best on validation; there is no plan of separate models to measure a gain against.",
        )
    if choice == reference:
        other, changes = quote(rival or ""), format_interval(interval)
        advice = f"Train them separately: {chosen}" if num_tasks > 1 else f"Use {chosen}"
        if label == "worse":
            return "asserts", f"{advice}. The best other plan by validation, {other}, changes the result by {changes}{mean}."
        if label == "probably worse":
            return (
                "tentative",
                f"{advice}, as far as these data can tell. The best other plan by validation, {other}, "
                f"changes the result by {changes}{mean}.",
            )
        if label == "no difference":
            return (
                "no difference",
                f"No difference was found between {baseline} and {other}: {changes}{mean}; "
                + (f"{cheap}: {chosen}." if saves_from or is_cheapest else f"validation favours {chosen}."),
            )
        # The test rows disagree with validation. Choosing by them now would make them training rows.
        return (
            "no difference",
            f"Validation found no sure gain over {chosen}, though on the test rows {other} reached {changes}{mean}; "
            f"take {chosen}, or run with more seeds to decide.",
        )
    where = f", at {cost}" if cost else ""
    instead = f" No difference was found to the more costly {quote(saves_from)}." if saves_from else ""
    gain = f"{format_interval(interval)}{mean} over {baseline}{where}."
    if label == "better":
        return "asserts", f"Use {chosen}: {gain}{instead}"
    if label == "probably better":
        return "tentative", f"{chosen} is probably better: {gain}{instead}"
    if label == "no difference":
        advice = f"{cheap}: {chosen}{where}" if saves_from or is_cheapest else f"validation favours {chosen}{where}"
        return (
            "no difference",
            f"No difference was found between {chosen} and {baseline}: {format_interval(interval)}{mean}; {advice}.",
        )
    return (
        "no difference",
        f"Validation chose {chosen}, but on the test rows it measured {format_interval(interval)}{mean} against {baseline}: "
        f"no plan is reliably better.",
    )


def _listed(rows: Sequence[Mapping[str, Any]], key: str = "difference") -> str:
    return join_words([f"{quote(row['task'])} ({format_change(row[key]['value'])})" for row in rows])


def _by_label(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["label"], []).append(row)
    return found


def _effects(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return phrases such as "helps `a` (+3.0 %)", sure ones first."""
    found = _by_label(rows)
    verbs = (("better", "helps"), ("worse", "hurts"), ("probably better", "probably helps"), ("probably worse", "probably hurts"))
    return [f"{verb} {_listed(found[label])}" for label, verb in verbs if label in found]


def per_task_sentence(rows: Sequence[Mapping[str, Any]], choice: str) -> str | None:
    """Name the tasks for which another plan is better than the chosen one.

    Args:
        rows: Comparisons of each task's own best plan (by validation) with the choice, on the test rows.
        choice: The chosen plan.
    """
    parts = []
    for label, advice in (("better", "use"), ("probably better", "consider")):
        plans: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["label"] == label:
                plans.setdefault(row["plan"], []).append(row)
        parts += [f"for {_listed(items)} {advice} {quote(plan)}" for plan, items in plans.items()]
    if not parts:
        return None
    text = f"{'; '.join(parts)} instead of {quote(choice)}."
    return text[0].upper() + text[1:]


def together_sentence(plan: str, rows: Sequence[Mapping[str, Any]], phrases: Sequence[str], *, advise: bool) -> str:
    """Say whom training together hurts and helps.

    Args:
        plan: The best plan that trains the tasks together.
        rows: Its comparisons with separate models, on the test rows.
        phrases: From :func:`affinity_phrases`.
        advise: Whether to say that hurt tasks should be trained separately.
    """
    effects = join_words(_effects(rows)) or "neither helps nor hurts any task beyond noise"
    hurt = [row["task"] for row in rows if row["label"] in ("worse", "probably worse")]
    # Hurt tasks can be split off only while others stay behind.
    advice = f": train {'it' if len(hurt) == 1 else 'them'} separately" if hurt and len(hurt) < len(rows) else ""
    if advice and advise:
        helped = [row for row in rows if row["label"] not in ("worse", "probably worse")]
        lead = join_words(_effects([row for row in rows if row["task"] in hurt]))
        others = join_words(_effects(helped))
        effects = f"{lead}{advice}" + (f"; it {others}" if others else "")
    return "; ".join([f"Training together ({quote(plan)}) {effects}", *phrases]) + "."


def affinity_phrases(affinity: Mapping[str, Any] | None, left_out: Sequence[str] = ()) -> list[str]:
    """Name the pairs that help each other, and those that pull against each other: both directions' intervals exclude zero.

    Args:
        affinity: As ``result.json`` holds it, or None.
        left_out: Tasks that other words already call hurt: they are not said to be helped.
    """
    if not affinity:
        return []
    names, low, high = affinity["tasks"], affinity["low"], affinity["high"]

    def pairs(sign: int) -> list[str]:
        # Help must be sure, so its low end counts; harm by its high end.
        bound = low if sign > 0 else high
        found = []
        for first in range(len(names)):
            for second in range(first + 1, len(names)):
                edges = (bound[first][second], bound[second][first])
                if all(edge is not None and sign * edge > 0 for edge in edges):
                    found.append(f"{quote(names[first])} and {quote(names[second])}")
        return found

    # A task that the test rows call hurt cannot be helped in the same breath; affinity is about the training loss.
    helping = [pair for pair in pairs(1) if not any(quote(name) in pair for name in left_out)]
    against = pairs(-1)
    phrases = [f"{join_words(_limited(helping))} help each other's loss during training"] if helping else []
    return phrases + ([f"{join_words(_limited(against))} pull against each other"] if against else [])


def _limited(pairs: list[str], most: int = 3) -> list[str]:
    if len(pairs) == 1:
        return pairs
    shown = [f"({pair})" for pair in pairs[:most]]
    return [*shown, f"{len(pairs) - most} more pairs"] if len(pairs) > most else shown


def control_sentence(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say which gains are transfer and which only regularisation; None if no task gains."""
    parts = []
    for label in ("transfer", "regularisation"):
        tasks = [quote(row["task"]) for row in rows if row["label"] == label]
        if tasks:
            parts.append(f"the gain on {join_words(tasks)} is {label}")
    if not parts:
        return None
    return f"Against a control with the companions' labels shuffled, {join_words(parts)}."


def source_sentence(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say which tasks the pretrained backbone helps and which it hurts; None without a comparison."""
    if not rows:
        return None
    effects = join_words(_effects(rows)) or "makes no difference beyond noise for any task"
    return f"The pretrained backbone {effects}."
