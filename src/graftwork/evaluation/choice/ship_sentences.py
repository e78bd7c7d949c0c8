"""Sentences on the second question of a verdict: which model to ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.evaluation.choice.selection import Cheaper
from graftwork.evaluation.choice.sentences import format_change, join_words, open_word, quote, row_interval
from graftwork.evaluation.choice.word import NEGATIVE

__all__ = ["Shipped", "baseline_sentence", "beats", "cheaper_sentence", "mixed_sentence", "ship_sentence"]

Row = Mapping[str, Any]
NAMED_TASKS = 4
"""Tasks of one plan that a sentence names; of more, it says how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipped:
    """What the sentence says."""

    choice: str
    best: str
    """Best on validation."""
    is_cheaper: bool
    """Whether ``choice`` is cheaper than ``best`` and not worse; otherwise, if it is another plan, it is an average of plans."""
    reference: str | None
    """Separate models, if any ran."""
    row: Row | None
    """Comparison by delta-m on the test rows: of ``choice`` with ``reference``; if the reference is the choice, of the best other
    plan with it; without a reference, of ``choice`` with the best other plan. None if there is no other plan."""
    rival_is_joint: bool
    """Whether the other plan learns tasks together."""
    cost: str
    """Phrase for the cost of the choice against the reference; empty if unknown."""
    num_tasks: int
    weighted: bool
    """Whether the user weighs the tasks."""


_STRENGTHS = {
    "better": "asserts",
    "worse": "asserts",
    "probably better": "tentative",
    "probably worse": "tentative",
    "no difference": "no difference",
    "unclear": "open",
}


def ship_sentence(found: Shipped) -> tuple[str, str]:
    """Return the strength (``asserts``, ``tentative``, ``no difference``, ``open``) and the sentence."""
    chosen, row = quote(found.choice), found.row
    if row is None:
        return "open", f"Only {chosen} was judged on test rows, so there is nothing to compare it with."
    mean = ""
    if found.num_tasks > 1:
        mean = " on average over the tasks" + (", weighted as asked" if found.weighted else "")
    changes, word = f"{row_interval(row)}{mean}", row["label"]
    why = _why(found)
    if found.reference == found.choice:
        return _reference_chosen(found, changes, why)
    if found.reference is None:
        against = f"the next best on validation, {quote(row['reference'])}"
    else:
        against = f"separate models ({quote(found.reference)})" if found.num_tasks > 1 else quote(found.reference)
    where = f", at {found.cost}" if found.cost and found.reference is not None else ""
    if word in NEGATIVE:
        # Choosing by the test rows now would make them training rows.
        return "open", (
            f"Use {chosen}{why}, with care: on the test rows it is {word} than {against}, {changes}{where}. Validation and test "
            "rows disagree; more rows or seeds would decide."
        )
    texts = {
        "better": f"Use {chosen}: it is better than {against}, {changes}{where}.",
        "probably better": f"Use {chosen}: it is probably better than {against}, {changes}{where}.",
        "no difference": f"Use {chosen}{why}; no difference to {against} was found on the test rows, {changes}{where}.",
        "unclear": f"Use {chosen}{why}; whether it is better than {against} is {open_word(row)}, {changes}{where}.",
    }
    return _STRENGTHS[word], texts[word]


def _why(found: Shipped) -> str:
    if found.choice == found.best:
        return ", the best on validation"
    if found.is_cheaper:
        return f", cheaper than {quote(found.best)} and not worse"
    return f", the average of several plans ({quote(found.best)} is ahead on validation, but not clearly)"


def _reference_chosen(found: Shipped, changes: str, why: str) -> tuple[str, str]:
    row = found.row
    assert row is not None
    several = found.num_tasks > 1
    chosen = f"separate models ({quote(found.choice)})" if several else quote(found.choice)
    word, rival = row["label"], f"the best other plan on validation, {quote(row['plan'])},"
    if word in NEGATIVE:
        advice = (
            f"Train the tasks separately, with {quote(found.choice)}" if several and found.rival_is_joint else f"Use {chosen}"
        )
        return _STRENGTHS[word], f"{advice}: {rival} is {word}, {changes}."
    texts = {
        "no difference": f"Use {chosen}{why}; no difference to {rival} was found on the test rows, {changes}.",
        "unclear": f"Use {chosen}{why}; whether {rival} is better or worse is {open_word(row)}, {changes}.",
    }
    if word in texts:
        return _STRENGTHS[word], texts[word]
    return "open", (
        f"Use {chosen}{why}, with care: on the test rows {rival} is {word}, {changes}. Validation and test rows disagree; more "
        "rows or seeds would decide."
    )


def mixed_sentence(plan: str, tasks: Mapping[str, Sequence[str]]) -> str:
    """Say which plans a mixed plan is made of.

    Args:
        plan: Its name.
        tasks: ``{name of a plan: tasks that it answers}``.

    Example:
        >>> mixed_sentence("mixed", {"linear": ["price"], "trees": ["late", "size"]})
        '`mixed` answers each task with one plan, chosen on validation: `linear` for `price`, `trees` for `late` and `size`.'
    """
    parts = [
        f"{quote(name)} for {join_words([quote(task) for task in own]) if len(own) <= NAMED_TASKS else f'{len(own)} tasks'}"
        for name, own in tasks.items()
    ]
    return f"{quote(plan)} answers each task with one plan, chosen on validation: {', '.join(parts)}."


def cheaper_sentence(found: Cheaper, *, taken: bool, tolerance: float, cost: str) -> str:
    """Say which cheaper plan is not worse than the best one, and whether it was taken.

    Args:
        found: The cheaper plan.
        taken: Whether it is the choice.
        tolerance: Percent of the best score.
        cost: Phrase of :func:`graftwork.evaluation.choice.sentences.ratio_phrase`, of the cheaper plan against the best.
    """
    bounds = (
        f"{format_change(found.change)} on validation, at least {format_change(found.lower)} on average and "
        f"{format_change(found.lowest)} on every task, tolerance {tolerance:g} %"
    )
    if taken:
        return f"{quote(found.plan)} costs {cost} of {quote(found.than)}, the best on validation, and is not worse: {bounds}."
    return f"{quote(found.plan)} costs {cost} of {quote(found.than)} and is not worse: {bounds}; `--prefer cost` would take it."


def baseline_sentence(row: Row, unbeaten: Sequence[str], *, baseline: str, choice: str, num_tasks: int) -> str | None:
    """Say if nothing was shown to beat a simple baseline; None if the choice beats them on every task.

    Args:
        row: Comparison by delta-m of the chosen plan (of the best other one, if the baseline is chosen) with the baseline.
        unbeaten: Tasks on which that plan does not :func:`beat <beats>` the baseline.
        baseline: Name of the baseline.
        choice: The chosen plan.
        num_tasks: Number of tasks: of several, some may be learned although their mean is not.
    """
    plan = quote(row["plan"])
    if choice == baseline or not beats(row):
        which = f"the best plan, {plan}," if choice != baseline else f"the best other plan, {plan},"
        lead = "On average over the tasks, nothing" if num_tasks > 1 else "Nothing"
        return (
            f"{lead} was shown to beat the simple baseline {quote(baseline)}: {which} removes {row_interval(row)} of its distance from a "
            "perfect score."
        )
    if not unbeaten:
        return None
    return f"For {join_words([quote(task) for task in unbeaten])}, {plan} was not shown to beat the simple baseline {quote(baseline)}."


def beats(row: Row) -> bool:
    """Return whether a change is above zero for all that is known of it, few rows or seeds or not."""
    low = row["difference"]["low"]
    return row["difference"]["value"] > 0 and low is not None and low > 0
