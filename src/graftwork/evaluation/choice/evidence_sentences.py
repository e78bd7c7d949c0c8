"""Sentences on what comparisons rest on: too few rows, groups, seeds or folds, and for which tasks and plans."""

from __future__ import annotations

from collections.abc import Sequence

from graftwork.evaluation.choice.comparison import FEWEST_ROWS, evidence_of
from graftwork.evaluation.choice.scores import ScoreBank
from graftwork.evaluation.choice.sentences import join_words, quote
from graftwork.evaluation.choice.together import Pair
from graftwork.evaluation.choice.word import Evidence

__all__ = ["evidence_sentences"]

_MOST_NAMED = 12


def evidence_sentences(bank: ScoreBank, pairs: Sequence[Pair]) -> list[str]:
    """Return a sentence for each reason why less than everything may be said.

    Plans may have finished different numbers of seeds, so a reason that holds for some of them only names those.

    Args:
        bank: Test scores.
        pairs: All comparisons that are shown, each a plan and what it is compared with.
    """
    reasons: dict[tuple[Evidence, str], dict[str, list[Pair]]] = {}
    compared: dict[str, set[Pair]] = {}
    for pair in dict.fromkeys(pairs):
        for task in bank.suite.task_names:
            change = bank.change(task, *pair)
            if change is None:
                continue
            compared.setdefault(task, set()).add(pair)
            level, reason = evidence_of(bank, task, change)
            if reason:
                reasons.setdefault((level, reason), {}).setdefault(task, []).append(pair)
    found = []
    for (level, reason), of_task in reasons.items():
        if not reason.startswith("only "):
            # What is known against the splits concerns all tasks and plans.
            found.append(_sentence(level, reason, "", ""))
            continue
        # Tasks that share their pairs share a sentence; None stands for all pairs.
        shared: dict[tuple[tuple[str, ...], str] | None, list[str]] = {}
        for task, own in of_task.items():
            if set(own) == compared[task]:
                shared.setdefault(None, []).append(task)
                continue
            for other in dict.fromkeys(reference for _, reference in own):
                plans = tuple(plan for plan, reference in own if reference == other)
                shared.setdefault((plans, other), []).append(task)
        for where, tasks in shared.items():
            named = "" if where is None else f" of {_listed(where[0])} with {quote(where[1])}"
            found.append(_sentence(level, reason, named, f" for {_listed(tasks)}"))
    return found


def _listed(names: Sequence[str]) -> str:
    """Return names as English lists them; of very many the first ones."""
    quoted = [quote(name) for name in names]
    return join_words(quoted if len(quoted) <= _MOST_NAMED else [*quoted[:3], f"{len(quoted) - 3} more"])


def _sentence(level: Evidence, reason: str, plans: str, tasks: str) -> str:
    what = "nothing is said of these comparisons" if level == "none" else "these comparisons are tentative"
    least = f" ({FEWEST_ROWS} are needed)" if level == "none" and "labelled" in reason else ""
    return f"{reason[:1].upper()}{reason[1:]}{least}{plans}{tasks}: {what}."
