"""Sentences on the first question of a verdict: do the tasks help each other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.evaluation.choice.sentences import format_change, join_words, listed, open_word, quote, row_interval
from graftwork.evaluation.choice.word import NEGATIVE, POSITIVE

__all__ = ["not_tested_sentence", "together_sentence"]

Row = Mapping[str, Any]
_SURE = ("better", "worse")


def not_tested_sentence(joint: Sequence[str]) -> str:
    """Say why the question was not tested.

    Args:
        joint: Finished plans that learn the tasks together; none of them has a counterpart that learns them separately.
    """
    if not joint:
        return "Whether the tasks help each other was not tested: no plan that learns them together finished."
    return (
        f"Whether the tasks help each other was not tested: {join_words([quote(name) for name in joint])} learned them together, "
        "but no plan that learns each of them separately with the same kind of model finished."
    )


def together_sentence(answer: Row, phrases: Sequence[str] = (), *, weighted: bool = False) -> str:
    """Say whether the tasks help or hurt each other.

    Args:
        answer: From :func:`graftwork.evaluation.choice.together.answers_of`.
        phrases: From :func:`graftwork.evaluation.choice.sentences.affinity_phrases`.
        weighted: Whether the user weighs the tasks.
    """
    word, tasks = answer["label"], answer["tasks"]
    helped = [row for row in tasks if row["control"] == "transfer"]
    hurt = [row for row in tasks if row["control"] == "harm"]
    checked = [row for row in tasks if row["control"] is not None]
    plan, other = f"together ({quote(answer['plan'])})", f"separately ({quote(answer['reference'])})"
    changes = f"{row_interval(answer)} on average over the tasks{', weighted as asked' if weighted else ''}"
    verb = "help" if word in POSITIVE else "hurt" if word in NEGATIVE else ""
    causes, opposite = (helped, hurt) if word in POSITIVE else (hurt, helped) if word in NEGATIVE else ([], [])
    pooled = answer["control"]
    # The mean over the controls shows what single tasks are too noisy for.
    shown = verb == "help" and pooled is not None and pooled["label"] == "transfer"
    better = f"Learning {plan} is {word} than {other}, {changes}"
    if opposite and (causes or shown):
        lead = f"{better}; the other tasks' labels help some tasks and hurt others"
    elif causes and not shown and 2 * len(causes) < len(checked):
        # What was shown for one task of many is no statement on all of them.
        lead = f"{better}; that the other tasks' labels are the reason was shown for some tasks only"
    elif shown or causes:
        sure = word in _SURE and (any(row["surely"] for row in causes) or (shown and pooled["over_control_word"] in _SURE))
        lead = f"The tasks {'' if sure else 'probably '}{verb} each other: learned {plan} against {other}, {changes}"
        if shown:
            lead += f"; against shuffled companions, {_pooled_words(pooled, len(tasks), weighted)}"
    elif verb and answer["unlearned"]:
        none = answer["unlearned"]
        both = join_words([format_change(none[key]["value"]) for key in ("plan", "reference")])
        lead = (
            f"{better}; neither was shown to beat the simple baseline {quote(none['baseline'])} ({both}), so this says nothing of the "
            "tasks"
        )
    elif verb and not checked:
        lead = f"{better}; whether the other tasks' labels are the reason was not tested, for lack of a control with shuffled companions"
    elif verb:
        lead = f"{better}; that the other tasks' labels are the reason was not shown"
    elif word == "no difference":
        lead = f"Learning {plan} makes no difference to {other}, {changes}"
    elif helped or hurt:
        lead = f"Whether learning {plan} is better than {other} on average is {open_word(answer)}, {changes}"
    else:
        lead = f"Whether the tasks help each other is {open_word(answer)}: learned {plan} against {other}, {changes}"
    return "; ".join([lead, *_details(tasks, has_controls=bool(checked)), *phrases]) + "."


def _pooled_words(pooled: Row, num_tasks: int, weighted: bool) -> str:
    count = len(pooled["tasks"])
    where = "the tasks" if count == num_tasks else f"{count} of {num_tasks} tasks"
    mean = f" on average over {where}{', weighted as asked' if weighted else ''}"
    return row_interval({"difference": pooled["over_control"]}) + mean


def _details(tasks: Sequence[Row], *, has_controls: bool) -> list[str]:
    """Return phrases for the tasks of which something can be said, helped ones first."""

    def chosen(label: str, *, surely: bool | None = None) -> list[Row]:
        return [row for row in tasks if row["control"] == label and (surely is None or row["surely"] == surely)]

    effects = [
        f"{verb} {listed(rows)}"
        for verb, rows in (
            ("helps", chosen("transfer", surely=True)),
            ("probably helps", chosen("transfer", surely=False)),
            ("hurts", chosen("harm", surely=True)),
            ("probably hurts", chosen("harm", surely=False)),
        )
        if rows
    ]
    parts = [f"it {join_words(effects)}"] if effects else []
    causes = {
        "regularisation": "better with shuffled companions, too, which is regularisation",
        "cost": "worse with shuffled companions, too, which is the cost of sharing",
        "gain": "better together, for a reason that is open",
        "loss": "worse together, for a reason that is open",
    }
    for label, what in causes.items():
        if rows := chosen(label):
            parts.append(f"{listed(rows)} {'is' if len(rows) == 1 else 'are'} {what}")
    # What was not tested is said.
    for word in (*POSITIVE, *NEGATIVE):
        rows = [row for row in tasks if row["control"] is None and row["label"] == word]
        if rows:
            note = ", without a control" if has_controls else ""
            parts.append(f"{listed(rows)} {'is' if len(rows) == 1 else 'are'} {word} together{note}")
    return parts
